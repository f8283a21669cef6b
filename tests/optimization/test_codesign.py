"""Co-design against closed forms, grids, and what more of a budget must do."""

import math
from functools import cache, partial

import jax.numpy as jnp
import numpy as np
import pytest

from cmxjax.optimization.ascent import ascend, slopes
from cmxjax.optimization.codesign.certificate import certify
from cmxjax.optimization.codesign.cost import Prices, log_cost, log_costs, to_budget
from cmxjax.optimization.codesign.design import codesign
from cmxjax.optimization.codesign.exact import exact_rows, whole_batch
from cmxjax.optimization.codesign.match import match
from cmxjax.optimization.codesign.setup import setup_of
from cmxjax.optimization.codesign.workloads import Share, shares_of
from cmxjax.smooth import maximum
from cmxjax.specs.budget_file import load_budget
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

DECODE = "llama-3.1-70b-decode-gb200-nvl72"
SIZES = (4.0, 1.0)
"""Work of a toy job: FLOP, and bytes."""

TOY = Prices(np.log([2.0, 1.0, 0.5]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))


def roofline(prices, own, x, sharpness):
    """ln of 1 / max(4 / f, 1 / b) under 2 f + b + 0.5 <= budget."""
    flop_s, byte_s = SIZES[0] * jnp.exp(-x[0]), SIZES[1] * jnp.exp(-x[1])
    return -jnp.log(maximum(flop_s, byte_s, sharpness)), (log_cost(prices, x) - own)[None]


def product(prices, own, x, sharpness):
    """ln of f^0.7 b^0.3: the optimum spends 70 and 30 % of what is free to spend."""
    return 0.7 * x[0] + 0.3 * x[1], (log_cost(prices, x) - own)[None]


LOW, HIGH = np.full(2, -5.0), np.full(2, 5.0)


def toy(terms, budget, low=LOW, high=HIGH):
    starts = np.random.default_rng(0).normal(0.0, 1.0, (4, 2))
    at = partial(slopes, terms, TOY, math.log(budget))
    ends = [ascend(at, np.clip(x, low, high), (low, high))[0] for x in starts]
    good = [x for x in ends if at(x).constraints.max() < 1e-3]
    best = max(good, key=lambda x: at(x).objective)
    return best, certify(at, best, (low, high), 2)


def test_a_product_spends_its_exponents():
    x, certificate = toy(product, 10.5)
    assert np.exp(x) == pytest.approx([0.7 * 10.0 / 2.0, 0.3 * 10.0], rel=1e-3)
    # d ln F / d ln C: 1 % more of 10.5 is 1.05 % more of the 10 that is free to spend
    assert certificate.budget_multiplier == pytest.approx(1.05, rel=1e-3)
    assert certificate.spread < 1e-2
    assert certificate.marginal == pytest.approx([1.05, 1.05], rel=1e-2)


def test_a_roofline_balances_compute_and_memory():
    # both times are equal at f = 4 b, so 8 b + b + 0.5 = 9.5 gives b = 1 and a rate of 1;
    # at sharpness 16 the relaxed corner is round by about a sixteenth
    x, _ = toy(roofline, 9.5)
    assert np.exp(x) == pytest.approx([4.0, 1.0], rel=0.2)
    assert min(np.exp(x) / SIZES) == pytest.approx(1.0, rel=1.0 / 16.0)
    assert np.exp(log_costs(TOY, x[None]))[0] == pytest.approx(9.5, rel=1e-3)


def test_a_resource_at_its_bound_gains_less_than_the_budget():
    low = np.array([-5.0, math.log(5.0)])
    x, certificate = toy(product, 10.5, low=low)
    assert np.exp(x) == pytest.approx([5.0 / 2.0, 5.0], rel=1e-3)
    assert certificate.at == ["free", "low"]
    assert certificate.marginal[1] < certificate.budget_multiplier


def test_a_point_off_the_optimum_fails_the_conditions():
    off = np.log([0.2 * 10.0 / 2.0, 0.8 * 10.0])
    certificate = certify(
        partial(slopes, product, TOY, math.log(10.5)), off, (LOW, HIGH), 2
    )
    assert certificate.spread > 0.5


def test_rows_are_brought_to_the_budget():
    z = np.random.default_rng(1).normal(0.0, 1.0, (5, 2))
    paid = to_budget(TOY, z, np.ones_like(z), math.log(7.0), (LOW, HIGH))
    assert np.exp(log_costs(TOY, paid)) == pytest.approx(np.full(5, 7.0), rel=1e-9)
    assert np.ptp(paid - z, axis=1) == pytest.approx(np.zeros(5), abs=1e-9)


MACHINE = """
title = "Two resources of a rack"
system = "gb200-nvl72"
sources.me = {{ title = "test" }}

[resources.bandwidth]
leaves = ["system.chip.memory_bytes_per_s"]
[resources.capacity]
leaves = ["system.chip.memory_bytes", "system.chip.memory_usable_bytes"]
{more}
[items.bandwidth]
value = 2
unit = "kW"
source = "me"
locator = "-"
kind = "assumed"
scales = {{ bandwidth = 1 }}
[items.capacity]
value = 1
unit = "kW"
source = "me"
locator = "-"
kind = "assumed"
scales = {{ capacity = 1 }}
[items.rest]
value = 1
unit = "kW"
source = "me"
locator = "-"
kind = "assumed"
"""


@pytest.fixture(scope="module")
def budget(tmp_path_factory):
    path = tmp_path_factory.mktemp("budgets") / "rack.toml"
    path.write_text(MACHINE.format(more=""))
    return str(path)


@cache
def job():
    return Share(load_scenario(DECODE), limits=("tpot=20ms",))


@pytest.fixture(scope="module")
def found(budget):
    return codesign([job()], budget, path=(0.5, 1.0, 2.0), calibration="none")


def test_no_machine_of_a_grid_within_the_budget_is_better(budget, found):
    setup = setup_of([job()], budget, "none")
    low, high = setup.box
    one = np.linspace(low[0], high[0], 61)
    z = np.stack([one, np.zeros_like(one)], axis=1)
    along = np.tile([0.0, 1.0], (len(one), 1))
    z = to_budget(setup.mix.prices, z, along, math.log(found.best.budget), setup.box)
    z = z[log_costs(setup.mix.prices, z) <= math.log(found.best.budget) + 1e-9]
    rows = exact_rows(setup.mix, z)
    grid = np.where(rows.violation > 0.0, -np.inf, rows.value).max()
    assert found.best.mean >= grid - 1e-4
    # and the grid comes close, so it is fine enough to have seen a better one
    assert found.best.mean - grid < 0.02


def test_marginal_gains_are_equal_and_exchanges_gain_nothing(found):
    for design in found.path:
        assert design.feasible
        assert design.certificate.spread < 0.01
        assert design.certificate.violation < 1e-3
        assert design.best_exchange < 1e-4


@pytest.mark.slow
def test_resources_that_hardly_matter_meet_the_conditions_too():
    """A link that a thousandth of the power goes to is where the conditions have it."""
    prefill = load_scenario("deepseek-r1-prefill-cloudmatrix384")
    found = codesign([Share(prefill)], "cloudmatrix384-power", calibration="none")
    certificate = found.best.certificate
    assert certificate.spread < 1e-3
    low = certificate.marginal[[side == "low" for side in certificate.at]]
    assert (low <= certificate.budget_multiplier * 1.001).all()


def test_more_budget_is_never_worse_and_none_is_exceeded(found):
    means = [design.mean for design in found.path]
    assert means == sorted(means)
    assert means[-1] > means[0]
    for design in found.path:
        assert design.cost <= design.budget * (1.0 + 1e-6)
        assert sum(design.spent.values()) == pytest.approx(design.cost)


def test_the_batch_follows_the_machine_within_its_limits(budget, found):
    for design in found.path:
        limits = design.runs[0].limits
        assert max(limits.values()) <= 1.0 + 1e-5
        assert max(limits["tpot"], limits["memory"]) > 0.99
    setup = setup_of([job()], budget, "none")
    metric, batch = found.best.runs[0].whole
    assert batch == int(batch)
    assert metric <= found.best.runs[0].metric * (1.0 + 1e-9)
    z = np.log(list(found.best.multipliers.values()))
    assert whole_batch(setup.mix.works[0], z)[1] == batch


@pytest.mark.parametrize(("gigabytes", "fits"), [(8, True), (5, False)])
def test_capacity_is_bought_until_the_weights_fit_or_said_to_be_missing(
    budget, gigabytes, fits
):
    # 70.6e9 FP8 weights on four GPUs need 17.6 GB each; the budget buys 2.5 times as much
    changes = {
        "system.chip.memory_usable_bytes": f"{gigabytes} GB",
        "layout.tp": 4,
        "layout.devices": 4,
    }
    share = Share(load_scenario(DECODE, changes), limits=("tpot=20ms",))
    found = codesign([share], budget, path=(0.5, 2.0), calibration="none")
    assert not found.now.feasible
    assert found.gain is None
    assert found.best.feasible == fits
    if fits:
        assert found.best.multipliers["capacity"] >= 17.6 / gigabytes
    else:
        assert "memory" in "; ".join(found.best.reasons)


@pytest.mark.slow
def test_matching_needs_the_change_that_a_grid_finds(budget):
    setup = setup_of([job()], budget, "none")
    here = exact_rows(setup.mix, np.zeros((1, 2))).value[0]
    now = math.exp(here - log_costs(setup.mix.prices, np.zeros((1, 2)))[0])
    found = match([job()], budget, 1.1 * now, calibration="none")
    assert found.now == pytest.approx(now)
    assert found.solved
    assert found.joint_ratio == pytest.approx(1.0, rel=0.02)
    axis = np.linspace(*[b[0] for b in setup.box], 81)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    rows = exact_rows(setup.mix, grid)
    ratio = rows.value - log_costs(setup.mix.prices, grid)
    good = (ratio >= math.log(1.1 * now)) & (rows.violation == 0.0)
    least = math.sqrt((grid[good] ** 2).sum(axis=1).min())
    own = math.hypot(*np.log(list(found.joint.values())))
    assert own <= least * 1.15
    reached = [s for s in found.singles if s.multiplier is not None]
    assert all(abs(math.log(s.multiplier)) >= own - 1e-6 for s in reached)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("chip.memory_bytes_per_s", "chip.clock", "no such leaf"),
        ("chip.memory_bytes_per_s", "chip.memory_efficiency", "can't be multiplied"),
        ("scales = { bandwidth = 1 }", "", "no item costs more with it"),
        ("scales = { bandwidth = 1 }", "scales = { bandwith = 1 }", "no such resource"),
        ("scales = { bandwidth = 1 }", "scales = { bandwidth = -1 }", "no limit"),
        ('"gb200-nvl72"', '"dgx-h100"', "run on gb200-nvl72"),
        ('value = 2\nunit = "kW"', 'value = 2\nunit = "USD"', "of one kind"),
        ("value = 2", "value = 0", "greater than 0"),
        ('source = "me"', 'source = "you"', "not under [sources]"),
        ("[resources.bandwidth]", "[resources.bandwidth]\nlow = 2", "must differ"),
    ],
)
def test_a_wrong_budget_says_what_to_do(tmp_path, old, new, said):
    path = tmp_path / "rack.toml"
    path.write_text(MACHINE.format(more="").replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        codesign([job()], str(path), calibration="none")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spend": "3 USD"}, "unit of power"),
        ({"spend": "0 kW"}, "above 0"),
        ({"path": (0.0,)}, "above 0"),
        ({"restarts": 0}, "at least 1"),
        ({"only": ("clock",)}, "use one of bandwidth, capacity"),
        ({"budget": "no-such-budget"}, "not shipped"),
        ({"workloads": []}, "at least one workload"),
    ],
)
def test_a_wrong_option_says_what_to_do(budget, options, said):
    given = {"workloads": [job()], "budget": budget, "calibration": "none"} | options
    with pytest.raises(SpecError) as caught:
        codesign(given.pop("workloads"), given.pop("budget"), **given)
    assert said in str(caught.value)


def test_all_mistakes_of_a_mix_are_told_at_once():
    scenario = load_scenario(DECODE)
    wrong = [Share(scenario, weight=0.0), Share(scenario, objective="beauty")]
    with pytest.raises(SpecError) as caught:
        setup_of(wrong, "cloudmatrix384-power", "none")
    assert "weight" in str(caught.value)
    assert "beauty" in str(caught.value)


def test_limits_go_to_the_phases_that_predict_them():
    both = [
        (load_scenario(DECODE), 1.0),
        (load_scenario("deepseek-r1-prefill-cloudmatrix384"), 0.5),
    ]
    decode, prefill = shares_of(both, ("tpot=50ms",))
    assert (decode.limits, prefill.limits) == (("tpot=50ms",), ())
    with pytest.raises(SpecError, match="no workload predicts"):
        shares_of(both, ("mfu=0.5",))


def test_the_shipped_budget_adds_up_to_the_power_of_the_system():
    spec = load_budget("cloudmatrix384-power")
    scenario = load_scenario("deepseek-r1-decode-cloudmatrix384")
    known = setup_of([Share(scenario)], "cloudmatrix384-power", "none").known
    assert spec.present == pytest.approx(known["system.power.all_in_w"])
    network = spec.items["ub_network"].si + spec.items["ub_pipelines"].si
    assert network == pytest.approx(known["system.power.network_w"], rel=1e-4)
    assert spec.amount == pytest.approx(spec.present)
