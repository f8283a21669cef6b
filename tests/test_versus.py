"""Which of two jobs wins: what is shared cancels, what is independent adds up."""

import math
from functools import cache

import pytest

from cmxjax.answers.limits import largest, parse_limit
from cmxjax.answers.predict import predict
from cmxjax.answers.versus import versus
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

NAME = "llama-3.1-70b-decode-gb200-nvl72"
ASCEND = {
    "system": "cloudmatrix384",
    "engine": "cloudmatrix-infer",
    "dtypes.weight": "int8",
    "dtypes.activation": "int8",
}
RATE = "tokens_rate_per_package"


@cache
def sides():
    return load_scenario(NAME, ASCEND), load_scenario(NAME)


@cache
def compared(*order: int, **sigmas: float):
    pair = [sides()[k] for k in order]
    return versus(*pair, RATE, limits=("tpot=20ms",), workload_sigmas=sigmas)


def test_swapping_the_sides_swaps_the_odds():
    there, back = compared(0, 1), compared(1, 0)
    assert there.ratio == pytest.approx(1.0 / back.ratio)
    assert there.sigma == pytest.approx(back.sigma)
    assert there.probability == pytest.approx(1.0 - back.probability, abs=1e-12)


def test_independent_calibrations_add_their_variances():
    found = compared(0, 1)
    both = math.hypot(found.first.sigma, found.second.sigma)
    assert found.sigma == pytest.approx(both)
    normal = 0.5 * (1.0 + math.erf(math.log(found.ratio) / (both * math.sqrt(2.0))))
    assert found.probability == pytest.approx(normal, rel=1e-6)


def test_what_is_not_known_of_the_workload_nearly_cancels():
    bare, found = compared(0, 1), compared(0, 1, kv_tokens=0.5)
    slopes = [side.workload_slopes["kv_tokens"] for side in (found.first, found.second)]
    assert all(slope < 0.0 for slope in slopes)
    added = found.sigma**2 - bare.sigma**2
    assert added == pytest.approx((0.5 * (slopes[0] - slopes[1])) ** 2)
    assert added < (0.5 * slopes[0]) ** 2 + (0.5 * slopes[1]) ** 2


def test_a_job_ties_with_itself():
    found = compared(1, 1)
    assert found.ratio == 1.0
    assert found.probability == 0.5
    # parameters cancel; the model's own error, learned from ratios too, counts once
    assert found.sigma < found.first.sigma


def test_the_best_batch_is_at_least_as_good_as_the_largest():
    found = compared(1, 1).first
    key = "workload.sequences_per_device"
    batch = largest(sides()[1], key, [parse_limit("tpot=20ms")])
    at = predict(load_scenario(NAME, {key: batch})).values
    assert found.value >= at["tokens_per_s_per_package"] * (1.0 - 1e-4)


def test_one_that_can_not_meet_the_limit_loses_for_sure():
    low = {"system.engines.trtllm.decode_step_s": 0.2}
    slow = load_scenario(NAME, low)
    found = versus(slow, sides()[1], RATE, limits=("tpot=20ms",))
    assert (found.ratio, found.probability) == (0.0, 0.0)
    with pytest.raises(SpecError, match="neither job"):
        versus(slow, slow, RATE, limits=("tpot=20ms",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantity": "beauty"}, "no such quantity"),
        ({"quantity": "ttft"}, "does not predict"),
        ({"workload_sigmas": {"prompts": 0.1}}, "not a key"),
    ],
)
def test_a_wrong_option_says_what_to_do(options, said):
    given = {"quantity": RATE} | options
    with pytest.raises(SpecError, match=said):
        versus(*sides(), given.pop("quantity"), **given)


def test_two_phases_are_refused():
    other = load_scenario("gpt-3-175b-prefill-cloudmatrix384")
    with pytest.raises(SpecError, match="one phase"):
        versus(sides()[0], other, RATE)
