"""Pooling of calibrated systems for one that was never measured."""

import json

import numpy as np
import pytest

from cmxjax.answers.predict import predict
from cmxjax.specs.build import build
from cmxjax.specs.calibration_file import Calibration, FittedSpec, InheritedSpec
from cmxjax.specs.discrepancy import model_error
from cmxjax.specs.figures import Figure
from cmxjax.specs.relatives import (
    CLOSE_GROUPS,
    LEAST_SPREAD,
    WIDER,
    pooled,
    relatives,
    unconstrained,
)
from cmxjax.specs.scenario import load_scenario


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
