"""Pooling of calibrated systems for one that was never measured."""

import functools
import json
import math

import numpy as np
import pytest

from cmxjax.answers.predict import predict
from cmxjax.specs.build import build
from cmxjax.specs.calibration_file import Calibration, FittedSpec, InheritedSpec
from cmxjax.specs.discrepancy import UNKNOWN, model_error
from cmxjax.specs.figures import Figure
from cmxjax.specs.files import shipped
from cmxjax.specs.related import calibrated_systems
from cmxjax.specs.relatives import (
    CLOSE_GROUPS,
    LEAST_SPREAD,
    WIDER,
    pooled,
    relatives,
    unconstrained,
)
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.specs.system_load import Reference, load_system


def test_alike_and_exact_members_leave_only_the_least_spread():
    mean, sigma = pooled([0.5, 0.5, 0.5], [1e-6] * 3)
    assert mean == pytest.approx(0.5)
    assert sigma == pytest.approx(LEAST_SPREAD * np.sqrt(4 / 3))


def test_one_member_is_the_mean_with_its_error_and_the_least_spread():
    mean, sigma = pooled([0.7], [0.2])
    assert mean == pytest.approx(0.7)
    assert sigma == pytest.approx(np.sqrt(LEAST_SPREAD**2 + 0.2**2 + LEAST_SPREAD**2))


def test_members_that_differ_widen_the_bar_by_their_spread():
    draw = np.random.default_rng(0).normal(0.0, 0.8, size=400)
    mean, sigma = pooled(list(draw), [0.1] * 400)
    assert mean == pytest.approx(draw.mean(), abs=0.02)
    assert sigma == pytest.approx(0.8, rel=0.1)


def test_an_uncertain_member_counts_less():
    mean, _ = pooled([0.0, 1.0], [0.01, 3.0])
    assert mean < 0.05


def figure(value, kind="assumed", sigma=0.4):
    return Figure(value=value, unit="1", source="s", locator="l", kind=kind, sigma=sigma)


def fitted(theta, sigma, **changes):
    base = dict(
        leaves=["chip.gemm_efficiency"],
        theta=theta,
        sigma=sigma,
        prior_sigma=0.4,
        identified=True,
        bic_gain=1.0,
        reason="r",
    )
    return FittedSpec(**(base | changes))


def member(name, parameter, value):
    own = Calibration(
        name=name,
        system=name,
        parameters={"p": parameter},
        covariance=[[parameter.sigma**2]],
        discrepancy={"phase": 0.04},
    )
    return own, {leaf: figure(value) for leaf in parameter.leaves}


def test_the_value_carries_over_and_not_the_shift():
    # 0.8 shifted to 0.9 on the relative: the new chip's 0.5 goes to 0.9 too
    shift = unconstrained("a.efficiency", 0.9) - unconstrained("a.efficiency", 0.8)
    known = member("a", fitted(shift, 1e-6), 0.8)
    found = relatives("new", {"chip.gemm_efficiency": figure(0.5)}, [known])
    own = found.parameters["chip.gemm_efficiency"]
    value = 1.0 / (1.0 + np.exp(-(unconstrained("a.efficiency", 0.5) + own.theta)))
    assert value == pytest.approx(0.9)
    assert found.discrepancy["phase"] == pytest.approx(WIDER * 0.04)
    assert found.covariance == [[pytest.approx(own.sigma**2)]]


def test_a_chip_of_fewer_matrix_units_has_shorter_ramps_and_loses_less_of_its_peak():
    """An eighth of the peak at the bandwidth: loading a row takes as long as before, and
    so does what a kernel does beside multiplying."""
    leaves = ["chip.half_rows", "chip.gemm_efficiency"]
    shared = {"chip.memory_bytes_per_s": figure(4.0), "chip.matrix_cores": figure(100.0)}
    peak = "chip.matrix_flop_per_s.bf16"
    own, figures = member("a", fitted(0.0, 1e-6, leaves=leaves), 0.8)
    figures |= shared | {peak: figure(800.0)}
    weaker = dict.fromkeys(leaves, figure(0.8)) | shared | {peak: figure(100.0)}
    found = relatives("new", weaker, [(own, figures)]).theta
    assert np.exp(found["chip.half_rows"]) == pytest.approx(1.0 / 8.0)
    odds = np.exp(unconstrained("a.efficiency", 0.8) + found["chip.gemm_efficiency"])
    assert 1.0 / odds == pytest.approx((1.0 - 0.8) / 0.8 / 8.0)


def test_what_the_systems_own_sources_state_is_kept():
    known = member("a", fitted(0.3, 0.1), 0.8)
    stated = {"chip.gemm_efficiency": figure(0.5, "published", None)}
    assert not relatives("new", stated, [known]).parameters


def test_what_its_own_sources_state_with_a_width_is_averaged_with_what_others_say():
    # 0.5 of its own, 0.9 of others: by the inverse of the variances
    known = member("a", fitted(0.0, 0.1), 0.9)
    others = relatives("new", {"chip.gemm_efficiency": figure(0.5)}, [known])
    alone = others.parameters["chip.gemm_efficiency"]
    stated = {"chip.gemm_efficiency": figure(0.5, "derived", 0.2)}
    own = relatives("new", stated, [known]).parameters["chip.gemm_efficiency"]
    weights = np.array([1.0 / 0.2**2, 1.0 / alone.sigma**2])
    assert own.theta == pytest.approx(weights[1] * alone.theta / weights.sum())
    assert own.sigma == pytest.approx(weights.sum() ** -0.5)


@pytest.mark.parametrize(
    "parameter",
    [
        fitted(0.3, 0.1, leaves=["collectives.x.start_s"]),
        fitted(0.3, 0.1, identified=False),
    ],
)
def test_libraries_and_what_is_not_identified_do_not_carry_over(parameter):
    known = member("a", parameter, 0.5)
    figures = {leaf: figure(0.5) for leaf in parameter.leaves}
    assert not relatives("new", figures, [known]).parameters


def test_engines_carry_over_and_libraries_only_from_near_relatives():
    engine, library = "engines.x.decode_step_s", "collectives.x.start_s"
    figures = {engine: figure(0.5), library: figure(0.5)}
    known = member("a", fitted(0.3, 0.1, leaves=[engine, library]), 0.5)
    assert relatives("new", figures, [known]).theta.keys() == {engine}
    near = relatives("new", figures, [known], CLOSE_GROUPS).theta
    assert near == {engine: pytest.approx(0.3), library: pytest.approx(0.3)}


def test_what_is_inherited_and_then_fitted_adds_up():
    """A fit starts from relatives; what they say of other leaves keeps its width."""
    own = fitted(0.2, 0.1, leaves=["chip.half_rows"])
    said = {"chip.half_rows": (0.5, 0.3), "chip.half_depth": (-0.4, 0.3)}
    calibration = Calibration(
        name="a",
        system="a",
        parameters={"p": own},
        covariance=[[0.01]],
        inherited={k: InheritedSpec(theta=t, sigma=s) for k, (t, s) in said.items()},
    )
    assert calibration.theta == pytest.approx(
        {"chip.half_rows": 0.7, "chip.half_depth": -0.4}
    )
    slopes = {"chip.half_rows": 1.0, "chip.half_depth": 2.0}
    assert calibration.variance(slopes) == pytest.approx(0.01 + (2.0 * 0.3) ** 2)


SCENARIO = """
system = "ascend-910d"
model = "llama-3.1-8b"
phase = "decode"
workload = { sequences_per_device = 8, kv_tokens = 1024 }
layout = { devices = 8, tp = 8 }
"""


def test_a_hypothetical_chip_takes_from_its_relatives_with_wider_bars(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(SCENARIO)
    scenario = load_scenario(str(path))
    found = build(scenario).fitted
    assert found.name == "relatives"
    assert "chip.gemm_efficiency" in found.parameters
    near = build(load_scenario("deepseek-r1-decode-cloudmatrix384")).fitted
    own = next(p for p in near.parameters.values() if "chip.gemm_efficiency" in p.leaves)
    assert found.parameters["chip.gemm_efficiency"].sigma > own.sigma
    known = load_scenario("deepseek-r1-decode-cloudmatrix384")
    assert model_error(found, known, "tpot") > model_error(near, known, "tpot")
    assert predict(scenario).problem.calibration == "relatives"
    assert predict(scenario, "none").problem.calibration == "none"
    json.dumps(found.model_dump(), allow_nan=False)


JOBS = {
    "dense": ("llama-3.1-70b", "decode", "tpot_s"),
    "prompt": ("llama-3.1-70b", "prefill", "ttft_s"),
    "mixture": ("deepseek-r1", "decode", "tpot_s"),
    "training": ("llama-3.1-70b", "train", "step_time_s"),
}
WORKLOADS = {
    "decode": {"sequences_per_device": 8, "kv_tokens": 4096},
    "prefill": {"tokens_per_device": 8192, "prompt_tokens": 4096},
    "train": {"global_batch": 256, "sequence_tokens": 4096, "zero": 1},
}
LAYOUTS = {
    "dense": {"devices": 8, "tp": 8, "attention": "tp"},
    "prompt": {"devices": 8, "tp": 8, "attention": "tp"},
    "mixture": {"devices": 32, "dp": 32, "ep": 32},
    "training": {"devices": 64, "tp": 8, "pp": 4, "sequence_parallel": True},
}


def job(system, name, dtype=None, **more):
    model, phase, _ = JOBS[name]
    peaks = load_system(Reference(system)).system.chip.matrix_flop_per_s
    narrow = dtype or ("fp8" if "fp8" in peaks else "int8")
    raw = {"system": system, "model": model, "phase": phase, "layout": LAYOUTS[name]}
    if phase != "train":
        raw["dtypes"] = {"weight": narrow, "activation": narrow}
    return validate_scenario(raw | {"workload": WORKLOADS[phase]} | more, "test")


@functools.cache
def time_of(system, name, dtype=None):
    found = predict(job(system, name, dtype))
    value = found.values[JOBS[name][2]]
    assert value > 0.0
    assert all(math.isfinite(v) for v in found.values.values())
    return value


def width(system, name, runtime):
    """Error of the model itself, with the runtime that a machine has by default."""
    of = load_system(Reference(system)).system
    has = of.trainers if JOBS[name][1] == "train" else of.engines
    scenario = job(system, name, **({"engine": runtime} if runtime in has else {}))
    return model_error(build(scenario).fitted, scenario, "tpot")


NEVER_MEASURED = [n for n in shipped("systems") if n not in calibrated_systems()]


SOME = ("atlas-800-a3", "gh200", "mi300x-8", "tpu-v5p", "vera-rubin-nvl72")


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(name, marks=() if name in SOME else pytest.mark.slow)
        for name in NEVER_MEASURED
    ],
)
def test_what_was_never_measured_is_less_certain_than_its_relatives(system):
    loaded = load_system(Reference(system))
    defaults = dict(loaded.system.defaults)
    for name in ("dense", "prompt", "training"):
        runtime = defaults["trainer" if name == "training" else "engine"]
        own = width(system, name, runtime)
        assert own >= UNKNOWN
        # no surer than the surest of them
        near = [width(relative, name, runtime) for relative in loaded.file.relatives]
        assert own >= min(near, default=0.0), name


@pytest.mark.slow
@pytest.mark.parametrize("system", NEVER_MEASURED)
def test_every_machine_decodes_and_trains(system):
    for name in JOBS:
        time_of(system, name)


@pytest.mark.slow
def test_machines_rank_as_their_data_sheets_do():
    for name in JOBS:
        assert time_of("mi355x-8", name) < time_of("mi325x-8", name)
        assert time_of("mi325x-8", name) < time_of("mi300x-8", name)
        assert time_of("tpu-v7x", name) < time_of("tpu-v6e", name)
        assert time_of("vera-rubin-nvl72", name) < time_of("gb300-nvl72", name)
        assert time_of("ascend-970", name) < time_of("atlas-960-superpod", name)
        assert time_of("atlas-960-superpod", name) < time_of("atlas-950-superpod", name)
    # of H100 but for a seventh of the matrix rate
    assert time_of("hgx-h20", "dense") < 1.3 * time_of("dgx-h100", "dense")
    assert time_of("hgx-h20", "prompt") > 2.0 * time_of("dgx-h100", "prompt")
    fp4 = [time_of(f"hgx-{name}", "prompt", "fp4") for name in ("b300", "b200")]
    assert fp4[0] < fp4[1]
