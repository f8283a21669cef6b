"""Error bars of every number: the same by all ways, and wider where less is known."""

import json
import math

import pytest
from bench import HEAD, copy

from cmxjax.answers.batch import log_slope
from cmxjax.answers.compare import better_sign, compare, odds_of
from cmxjax.answers.origin import ASSUMED, FITTED, PRINTED, RELATIVE
from cmxjax.answers.predict import predict
from cmxjax.answers.sensitivity import sensitivity
from cmxjax.answers.spread import sigmas
from cmxjax.answers.uncertainty import probability_above
from cmxjax.answers.validate import Row, validate
from cmxjax.cli.main import main
from cmxjax.specs.files import DATA
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.scenario import load_scenario

DECODE = "deepseek-r1-decode-cloudmatrix384"


@pytest.fixture(scope="module")
def decode():
    return predict(load_scenario(DECODE))


def test_all_ways_to_a_sigma_agree(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(HEAD + copy("copy", "64e6", 2900, 1))
    (row,) = load_measurements(str(file))
    (checked,) = validate(str(file)).rows
    answer = predict(row.scenario)
    sigma = answer.sigma["bytes_per_s"]
    assert 0.01 < sigma < 0.5
    assert checked.predicted_relative_sigma == pytest.approx(sigma, rel=1e-6)
    assert sigmas(answer.problem, ["bytes_per_s"])["bytes_per_s"] == pytest.approx(sigma)
    assert sensitivity(row.scenario, "byte_rate").sigma == pytest.approx(sigma, rel=1e-3)


def test_slopes_a_width_away_are_exponents_and_stay_finite():
    """A price whose cost grows in proportion has slope 1 at any width; a wait that is
    next to nothing, and none a step away, has a number whose square is one too."""
    for power, width in ((1.0, 0.6), (-2.0, 0.1)):
        up, down = math.exp(power * width), math.exp(-power * width)
        assert float(log_slope(3.0, 3.0 * up, 3.0 * down, width)) == pytest.approx(power)
    assert math.isfinite(float(log_slope(1e-300, 1e-3, 0.0, 0.1)) ** 2)
    assert float(log_slope(0.0, 0.0, 0.0, 0.1)) == 0.0
    # a difference of two numbers: 2 more and 2 less of 4 over a width of a half
    assert float(log_slope(-4.0, -2.0, -6.0, 0.5)) == pytest.approx(-1.0)


def test_a_tile_near_by_does_not_widen_an_error_bar():
    """With 79 requests a die the busiest expert of one nearly fills a further tile, which
    takes 4 % of the step: little beside what is not known of the experts' popularity."""
    layout = {"devices": 256, "dp": 256, "ep": 256, "overlapped_microbatches": "auto"}
    routing = {"redundant_experts": 0, "shared_replicas": 0}
    workload = {"kv_tokens": 1024, "acceptance": 0.9}
    widths = []
    for batch in (78, 79, 80):
        sizes = {"layout": layout, "routing": routing}
        sizes["workload"] = workload | {"sequences_per_device": batch}
        widths.append(predict(load_scenario(DECODE, sizes)).sigma["tpot_s"])
    assert max(widths) < 1.2 * min(widths)


def test_a_rate_of_one_device_is_as_well_known_as_the_rate_and_the_time():
    """On one device all are one number; the calibration is of other phases, so that the
    model's own error is most of the width."""
    job = {
        "system": "dgx-h100",
        "model": "llama-3.1-8b",
        "phase": "decode",
        "workload": {"sequences_per_device": 8, "kv_tokens": 2048},
        "layout": {"devices": 1},
    }
    sigma = predict(load_scenario(job)).sigma
    for each in ("tokens_per_s", "tokens_per_s_per_device", "tokens_per_s_per_package"):
        assert sigma[each] == pytest.approx(sigma["tpot_s"], rel=1e-3)


def test_json_has_one_sigma_evidence_and_origin_of_everything(capsys):
    changes = ("--set", "workload.kv_tokens=131072", "workload.sequences_per_device=4")
    assert main(["predict", DECODE, *changes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    metrics = {k for k, v in found.items() if isinstance(v, float)}
    assert found["sigma"].keys() == metrics
    assert all(0.0 <= sigma < 5.0 for sigma in found["sigma"].values())
    assert found["sigma"]["tpot_s"] == pytest.approx(
        found["sigma"]["tokens_per_s"], rel=1e-2
    )
    assert found["sigma"]["memory_weights_bytes"] == 0.0
    assert len(found["evidence"]) == 3
    keys = {"id", "quantity", "measured", "modelled", "unit", "source", "locator"}
    assert all(run.keys() == keys | {"distance"} for run in found["evidence"])
    (outside,) = found["extrapolates"]
    assert outside.keys() == {"what", "value", "range"}
    assert outside["what"] == "context"
    assert set(found["origin"].values()) <= {FITTED, RELATIVE, ASSUMED, PRINTED}
    assert found["breakdown_sigma"].keys() == found["breakdown"].keys()
    busy = {name for name, seconds in found["busy"].items() if seconds > 0.0}
    assert busy <= found["origin"].keys()


def test_the_text_is_short_and_names_the_nearest_runs(capsys):
    assert main(["predict", DECODE]) == 0
    text = capsys.readouterr().out
    assert "±" in text
    lines = [line for line in text.splitlines() if line.startswith("measured nearby")]
    assert len(lines) == 3
    assert "cm384-decode" in lines[0]


def test_errors_of_components_make_up_that_of_the_step(decode):
    """Each component errs more than the whole, in which independent errors cancel."""
    shares, bars = decode.breakdown, decode.trust.breakdown
    whole = decode.sigma["step_time_s"]
    apart = math.hypot(*(shares[name] * bars[name] for name in shares))
    assert apart >= 0.7 * whole * sum(shares.values())
    largest = max(shares, key=lambda name: shares[name])
    assert bars[largest] > whole


def test_parameters_are_fitted_borrowed_or_assumed(decode):
    assert decode.trust.origin["attention.matrix"] == FITTED
    assert decode.trust.origin["host.step"] == ASSUMED
    bare = predict(decode.problem.scenario, "none").trust
    assert FITTED not in bare.origin.values()
    assert bare.outside[0].what == "machine"


def test_a_job_is_as_good_as_itself_and_errors_of_neighbors_cancel(decode):
    same = odds_of(decode, decode)["tpot_s"]
    assert (same.ratio, same.sigma, same.better) == (1.0, 0.0, 0.5)
    near = predict(load_scenario(DECODE, {"workload.sequences_per_device": 36}))
    far = predict(load_scenario(DECODE, {"workload.sequences_per_device": 6}))
    own = decode.sigma["tpot_s"]
    widths = [odds_of(other, decode)["tpot_s"].sigma for other in (near, far)]
    assert 0.0 < widths[0] < widths[1] < 3.0 * own
    assert widths[0] < math.hypot(own, near.sigma["tpot_s"])
    faster = odds_of(near, decode)
    assert (faster["tpot_s"].better or 0.0) > 0.9
    assert (faster["tokens_per_s"].better or 1.0) < 0.1


def test_compare_says_the_probability_that_one_is_better(capsys, tmp_path):
    text = (DATA / "scenarios" / f"{DECODE}.toml").read_text("utf-8")
    other = str(tmp_path / "other.toml")
    (tmp_path / "other.toml").write_text(
        text.replace("kv_tokens = 4224", "kv_tokens = 8192")
    )
    assert main(["compare", DECODE, other, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    versus = found[other]["versus"]
    assert versus["to"] == DECODE
    for key in ("ratio", "sigma", "probability_better"):
        assert versus[key].keys() == versus["ratio"].keys()
    names = ("tokens_per_s_per_device", "tpot_s")
    for name in names:
        log, sigma = math.log(versus["ratio"][name]), versus["sigma"][name]
        chance = probability_above(better_sign(name) * log, sigma)
        assert versus["probability_better"][name] == pytest.approx(chance)
    assert versus["probability_better"]["tpot_s"] < 0.1
    assert versus["probability_better"]["memory_bytes"] is None


def test_totals_of_systems_have_neither_sigma_nor_odds():
    found = compare(["cloudmatrix384", "gb200-nvl72"])
    assert found.predictions[0].sigma["memory_bytes"] == 0.0
    assert all(odds.better is None for odds in found.odds[0].values())


@pytest.mark.parametrize(
    ("error", "sigma", "printed", "verdict"),
    [
        (0.10, 0.02, 0.03, "inconsistent"),
        (0.10, 0.05, 0.01, "consistent"),
        (0.10, 0.01, 0.06, "consistent"),
        (0.008, 0.0, 1e-6, "consistent"),
        (0.02, 0.0, 1e-6, "inconsistent"),
    ],
)
def test_a_verdict_takes_both_sigmas_together(error, sigma, printed, verdict):
    plain = ("id", "tpot", "ms", 1.0, math.exp(error), math.expm1(error), error, sigma)
    assert Row(*plain, None, printed, "source", "").verdict == verdict
