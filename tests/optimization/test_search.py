"""The search: what it says of its answer, and what it refuses.

Beside these, `test_brute.py` compares answers with all points of small jobs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute import blocks, pieces
from drawn_jobs import draw
from points import MEASURED, feasible, inputs_of, price, ways

from cmxjax.answers.predict import predict
from cmxjax.interop.emit import emit
from cmxjax.optimization.answer import PROVEN, optimize
from cmxjax.optimization.cells import ALL, At
from cmxjax.optimization.job import job_of
from cmxjax.optimization.price import GRADIENT_COST
from cmxjax.optimization.search import MARGIN, Search
from cmxjax.phases.metrics import metrics
from cmxjax.report.optimization import as_scenario, write_answer
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario, validate_scenario, with_overrides

NAME = "deepseek-r1-decode-cloudmatrix384"
LIMITS = ("tpot=50ms",)
QUICK, OTHER = 12, "memory_bytes"
"""A drawn job with few programs, and what its objective is traded against."""

PINNED = {"cp": 1, "etp": 1, "pp": 1}
"""Of DeepSeek-R1 on 96 dies; the degrees tp, dp, ep, edp are free."""


def decoded(scenario, limits=LIMITS, pinned=PINNED, **options):
    return optimize(scenario, limits=limits, pinned=pinned, calibration="none", **options)


@pytest.fixture(scope="module")
def scenario():
    return load_scenario(NAME, {"layout.devices": 96, "layout.dp": 96, "layout.ep": 96})


@pytest.fixture(scope="module")
def answer(scenario):
    return decoded(scenario)


@pytest.fixture(scope="module")
def descended(scenario):
    return decoded(scenario, method="gradient")


def test_the_answer_predicts_as_it_says(answer):
    assert answer.feasible
    prediction = predict(load_scenario(NAME, answer.changes), "none")
    assert not prediction.reasons
    for field, value in answer.metrics.items():
        assert prediction.values[field] == pytest.approx(value, rel=1e-9), field


def test_the_proof_says_what_it_covers(answer):
    c = answer.certificate
    assert c.bound >= answer.value
    assert c.gap == pytest.approx(c.bound / answer.value - 1.0)
    assert (c.optimum is not None) == (c.gap <= PROVEN)
    assert c.checked > 1000
    for said in ("96 devices", "whole number of requests", "cp = 1", "etp = 1", "pp = 1"):
        assert said in c.space
    assert c.evaluations["exhaustive"] < c.points


def test_one_more_request_of_a_group_is_over_a_limit_or_slower(answer):
    group = answer.changes["layout.tp"] * answer.changes["layout.cp"]
    batch = answer.changes["workload.sequences_per_device"]
    assert batch * group == pytest.approx(round(batch * group))
    more = {"workload.sequences_per_device": (batch * group + 1.0) / group}
    beyond = predict(load_scenario(NAME, answer.changes | more), "none")
    rate = beyond.values["tokens_per_s_per_package"]
    over = beyond.reasons or beyond.values["tpot_s"] > 0.05
    assert over or rate <= answer.value * (1.0 + 1e-9)


SMALL = load_scenario(NAME, {f"layout.{axis}": 16 for axis in ("devices", "dp", "ep")})
TRAINED = {
    "system": "hgx-h200",
    "model": "olmoe-1b-7b",
    "phase": "train",
    "workload": {"global_batch": 100, "sequence_tokens": 8192},
    "layout": {"devices": 8},
}


@pytest.mark.parametrize(
    ("job", "limits", "pinned"),
    [(SMALL, (), {}), (load_scenario(TRAINED), ("memory=40GB",), {"pp": 1})],
)
def test_no_point_of_a_cell_is_better_than_its_bound(job, limits, pinned):
    """Points drawn from cells with batches of up to 64 requests; cells of all placements
    may be off by the margin that the search leaves them. With a limit on memory a cell
    whose fastest point takes too much may hold others that don't."""
    search = Search(job_of(job, limits=limits, pinned=pinned, calibration="none"))
    cells = search._first(0, np.flatnonzero(search.layouts.usable))
    rng = np.random.default_rng(1)
    cells = cells.take(rng.choice(cells.size, 512))
    cells = cells._replace(high=np.minimum(cells.high, 63))
    bounded, possible, _ = search.bounds.bounded(cells)
    index = rng.integers(cells.low, cells.high + 1)
    listed = [search.layouts.placed(int(row)) for row in cells.row]
    places = np.array([int(rng.integers(len(every))) for every in listed])
    factors = search.bounds.factors(cells.row, places)
    at = At(cells.row, factors, cells.family, index)
    points = search.bounds.exact(at)
    runs = np.isfinite(points.score)
    assert runs.sum() > 30
    assert possible[runs].all()
    margin = np.where(cells.place == ALL, MARGIN, 1e-9)
    assert (points.score >= bounded.bound - margin)[runs].all()


def test_a_bound_that_does_not_hold_is_in_the_gap(scenario, monkeypatch):
    """Bounds that promise too little by 3 % drop what is better; the check sees it."""
    search = Search(job_of(scenario, limits=LIMITS, pinned=PINNED, calibration="none"))
    honest = search.bounds._bound

    def wrong(*args):
        bound, possible = honest(*args)
        return bound + 0.03, possible

    monkeypatch.setattr(search.bounds, "_bound", wrong)
    search.run()
    assert search.slack > 0.01
    assert search.score - search.bound > 0.5 * search.slack


@pytest.mark.slow
def test_gradient_search_states_its_certificate(descended, answer):
    c = descended.certificate
    spent = c.evaluations
    total = spent["search_exact"] + GRADIENT_COST * spent["search_gradients"]
    assert spent["search_total"] == total
    assert spent["search_gradients"] > 0
    assert c.relaxed > 0.0
    assert c.rounded is None or c.rounded <= c.refined * (1 + 1e-9)
    assert c.refined >= 0.99 * answer.value
    assert descended.value == pytest.approx(answer.value, rel=1e-3)


@pytest.mark.slow
def test_a_descent_keeps_degrees_that_are_given(scenario):
    """Rounded placements none of whose settings can run end nothing."""
    found = decoded(scenario, pinned=PINNED | {"tp": 4, "ep": 24}, method="gradient")
    assert (found.changes["layout.tp"], found.changes["layout.ep"]) == (4, 24)
    assert found.certificate.refined == pytest.approx(found.value, rel=1e-3)


@pytest.mark.slow
def test_a_name_and_one_limit_are_taken_as_they_are(answer):
    one = optimize(
        NAME, limits="tpot=50ms", pinned=PINNED, devices=(96,), calibration="none"
    )
    assert one.value == pytest.approx(answer.value, rel=1e-12)


def test_equal_seeds_find_equal_layouts(scenario, descended):
    alone = decoded(scenario, method="gradient", certify=False)
    assert alone.certificate.refined == descended.certificate.refined
    assert alone.certificate.bound is None
    assert alone.certificate.gap is None


def test_spare_slots_are_no_better_given_than_free():
    """An expert's tokens fill whole tiles, so that a spare slot can save one of them."""
    job = load_scenario(
        {
            "system": "cloudmatrix384",
            "model": "deepseek-r1",
            "phase": "decode",
            "workload": {"sequences_per_device": 1, "kv_tokens": 4096},
            "layout": {"devices": 320},
            "dtypes": dict.fromkeys(("weight", "activation", "dispatch"), "int8"),
        }
    )
    pinned = PINNED | {"tp": 2, "ep": 160}
    none, one = (
        decoded(job, pinned=pinned, settings={"extra_slots": (n,)}).value for n in (0, 1)
    )
    assert one > 1.03 * none
    assert decoded(job, pinned=pinned).value >= one * (1.0 - 2e-4)


@pytest.mark.parametrize("tp", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_points_share_the_head_as_their_predictions_do(tp):
    changes = {"layout.devices": 96, "layout.ep": 96, "layout.dp": 96, "layout.head": 4}
    pinned = PINNED | {"tp": tp, "ep": 96}
    tried = {"sequences_per_device": (16.0,), "extra_slots": (0,)}
    found = decoded(load_scenario(NAME, changes), pinned=pinned, settings=tried)
    said = found.changes
    assert ("layout.head" in said) == (tp > 1)  # a tensor group has it
    values = predict(load_scenario(NAME, changes | said), "none").values
    for field, value in found.metrics.items():
        assert values[field] == pytest.approx(value, rel=1e-9), field


@pytest.mark.slow
def test_a_training_answer_predicts_as_it_says():
    raw = {
        "system": "cloudmatrix384",
        "model": "llama-3.1-70b",
        "phase": "train",
        "workload": {"global_batch": 256, "sequence_tokens": 4096},
        # stages of a layout that the answer replaces
        "layout": {"devices": 64, "pp": 2, "stages": [39, 41]},
    }
    answer = optimize(
        validate_scenario(raw, "test"),
        objective="step_time",
        calibration="none",
        method="gradient",
        pinned={"cp": 1},
    )
    assert answer.feasible
    assert answer.certificate.gap is not None
    assert answer.certificate.gap <= PROVEN
    assert answer.certificate.refined <= 1.01 * answer.value
    changed = validate_scenario(with_overrides(raw, answer.changes), "answer")
    prediction = predict(changed, "none")
    assert not prediction.reasons
    for field, value in answer.metrics.items():
        assert prediction.values[field] == pytest.approx(value, rel=1e-9), field
    written = validate_scenario(as_scenario(answer), "written")
    assert predict(written, "none").values == prediction.values


def test_an_infeasible_job_is_said_to_be_infeasible(scenario):
    answer = decoded(scenario, limits=("tpot=1ms",))
    assert not answer.feasible
    assert "there is none" in answer.reasons[0]
    assert "off the limit of tpot_s" in answer.reasons[0]
    assert not answer.as_json()["feasible"]
    assert answer.certificate.optimum is None


def test_nothing_on_the_front_is_beaten(answer):
    for cost in answer.front.points:
        rows = answer.front.table(cost)
        rates, costs = [row[0] for row in rows], [row[1] for row in rows]
        assert rates == sorted(rates)
        assert costs == sorted(costs)
    best = max(row[0] for row in answer.front.table("tpot_s"))
    assert best == pytest.approx(answer.value, rel=2e-3)


def test_no_point_of_all_lies_beyond_the_trade_offs():
    """Every step against all points of a small job, priced apart from the search."""
    job = draw()[QUICK]
    every = []
    for way in ways(job):
        if (inputs := inputs_of(job, way)) is None:
            continue
        for factors, numbers in pieces(blocks(job, way, inputs, {})):
            fields = price(inputs, factors, numbers)
            good = feasible(job, fields)
            every.append([fields[MEASURED[job.objective][0]][good], fields[OTHER][good]])
    first, other = np.concatenate(every, axis=1)
    sign = MEASURED[job.objective][1]
    found = optimize(
        load_scenario(job.scenario),
        objective=(job.objective, "memory"),
        limits=job.limits,
        pinned=dict(job.pinned),
        calibration="none",
    )
    (trade,) = found.trade_offs
    assert len(trade.steps) > 2
    for step in trade.steps:
        best = (sign * first[other <= step.limit * (1.0 + 1e-8)]).max()
        assert sign * step.value == pytest.approx(best, rel=2e-4)
        assert sign * step.bound >= best - 1e-9 * abs(best)
        assert step.other <= step.limit * (1.0 + 1e-8)
    assert trade.steps[0].value == found.value
    assert trade.steps[-1].other == pytest.approx(other.min(), rel=2e-4)
    # stricter limits are never better, and each step is no worse than it says
    values = [sign * step.value for step in trade.steps]
    assert values == sorted(values, reverse=True)
    assert {row["gap"] < 3e-4 for row in found.as_json()["trade_offs"]["memory"]} == {
        True
    }


def test_error_bars_are_those_of_predictions(answer):
    """By differences through the search's program, and through the prediction's."""
    said = predict(load_scenario(NAME, answer.changes), "none").sigma
    for field in answer.metrics:
        assert answer.sigma(answer.point, field) == pytest.approx(said[field], rel=1e-6)
    rows = answer.as_json()["front"]["tpot_s"]
    assert all(0.0 < row["sigma"]["tpot_s"] < 1.0 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "mfu"}, "does not predict"),
        ({"objective": "speed"}, "no such quantity"),
        ({"objective": "power"}, "nothing is known"),
        ({"objective": ("tokens_rate", "power")}, "power: nothing is known"),
        ({"objective": ("tpot", "tpot")}, "each quantity once"),
        ({"limits": ("tpot=50kg",)}, "tpot"),
        ({"limits": ("tpot=-1ms",)}, "tpot"),
        ({"pinned": {"xp": 2}}, "xp: not free here"),
        ({"pinned": {"tp": 1.5}}, "tp = 1.5: use a whole number"),
        ({"settings": {"kv_tokens": (1.0,)}}, "not free here"),
        ({"method": "luck"}, "use one of"),
        ({"devices": (431,)}, "whole units"),
    ],
)
def test_wrong_options_are_named(scenario, options, message):
    with pytest.raises(SpecError, match=message):
        optimize(scenario, **options)


TRAINING = {
    "system": "cloudmatrix384",
    "model": "llama-3.1-8b",
    "phase": "train",
    "workload": {"global_batch": 64, "sequence_tokens": 4096},
    "layout": {"devices": 32},
}
PP8 = {"cp": 1, "pp": 8}


def trained(raw=TRAINING, **options):
    return optimize(validate_scenario(raw, "test"), calibration="none", **options)


@pytest.mark.slow
def test_any_schedule_prices_each_as_its_own_program():
    job = job_of(validate_scenario(TRAINING, "test"), pinned=PP8, calibration="none")
    search = Search(job)
    row = int(np.flatnonzero(search.layouts.degrees[:, 0] == 2)[0])
    factor = search.layouts.placed(row)[:1]
    levels = np.zeros((1, len(search.bounds.settings)), int)
    for place, form in enumerate(job.forms[:6]):
        levels[0, search.bounds.form] = place
        at = At(np.array([row]), factor, np.array([0]), levels)
        logs = search.bounds.exact(at).logs[0]
        machine, a, w, layout = job.inputs
        schedule = "1f1b" if form.schedule == "interleaved" else form.schedule
        w = w.replace(micro_batch=jnp.ones(()), chunks=jnp.asarray(float(form.chunks)))
        w = w.replace(schedule=schedule, zero=jnp.zeros(()))
        layout = layout.replace(factor=jnp.asarray(factor[0], float), attention="tp")
        m = jax.jit(metrics)(machine, a, w, layout)
        for field, log in zip(job.objective.fields, logs):
            assert float(getattr(m, field)) == pytest.approx(math.exp(log), rel=1e-9)


@pytest.mark.slow
def test_the_best_of_all_settings_is_the_best_of_each_taken_alone():
    options = {"objective": "step_time", "pinned": PP8}
    tried = {"schedule": ("1f1b", "zero_bubble"), "vpp": (1, 2), "zero": (0, 1)}
    answer = trained(settings=tried, **options)
    values = {}
    for schedule in tried["schedule"]:
        for chunks in tried["vpp"]:
            for zero in tried["zero"]:
                one = {"schedule": (schedule,), "vpp": (chunks,), "zero": (zero,)}
                values[schedule, chunks, zero] = trained(settings=one, **options).value
    assert answer.value == pytest.approx(min(values.values()), rel=2e-4)
    assert len({f"{value:.9g}" for value in values.values()}) > 4
    found = (
        answer.changes["workload.schedule"],
        answer.changes["layout.vpp"],
        answer.changes["workload.zero"],
    )
    assert values[found] == pytest.approx(answer.value, rel=1e-9)


@pytest.mark.slow
def test_what_split_experts_send_overlaps_without_expert_ranks_too():
    """Experts over tensor ranks alone: the better of one micro-batch and two is found."""
    job = {
        "system": "hgx-b200",
        "model": "mixtral-8x7b",
        "phase": "train",
        "workload": {"global_batch": 8, "sequence_tokens": 4096},
        "layout": {"devices": 8},
    }
    pinned = {"tp": 1, "cp": 1, "pp": 1, "ep": 1, "etp": 2}

    def best(**setting):
        return optimize(
            load_scenario(job), pinned=pinned | setting, calibration="none", certify=False
        ).value

    both = best()
    assert both == pytest.approx(best(overlapped_microbatches=2), rel=1e-9)
    assert both > 1.001 * best(overlapped_microbatches=1)


def test_no_answer_has_more_chunks_than_layers_fill(tmp_path):
    """Eight chunks on each of eight stages would be faster, but there are 32 layers."""
    options = {"objective": "step_time", "pinned": PP8}
    schedule = {"schedule": ("1f1b",)}
    found = trained(settings=schedule | {"vpp": (4, 8)}, **options)
    assert found.changes["layout.vpp"] == 4
    none = trained(settings=schedule | {"vpp": (8,)}, **options)
    assert not none.feasible
    path = tmp_path / "answer.toml"
    with pytest.raises(SpecError):
        write_answer(none, str(path))
    assert not path.exists()


def test_a_single_stage_has_one_chunk():
    found = trained(pinned={"cp": 1, "pp": 1}, settings={"vpp": (4,), "zero": (1,)})
    assert found.changes["layout.vpp"] == 1
    changed = validate_scenario(with_overrides(TRAINING, found.changes), "answer")
    rate = predict(changed, "none").values["tokens_per_s_per_package"]
    assert rate == pytest.approx(found.value, rel=1e-9)
    assert "--micro-batch-size" in emit(changed, "megatron", "none").arguments


@pytest.mark.parametrize(
    ("batch", "micro_batch", "runs"),
    # eight stages need sixteen micro-batches of a rank, 64 sequences on dp = 4
    [(64, 1.0, True), (64, 2.0, False), (68, 1.0, False), (72, 1.0, True)],
)
def test_dualpipe_has_two_micro_batches_for_each_stage(batch, micro_batch, runs):
    raw = with_overrides(TRAINING, {"workload.global_batch": batch})
    tried = {"micro_batch": (micro_batch,), "schedule": ("dualpipe",)}
    found = trained(raw, pinned=PP8 | {"dp": 4}, settings=tried)
    assert found.feasible is runs
    if runs:
        changed = with_overrides(raw, found.changes)
        assert not predict(validate_scenario(changed, "answer"), "none").reasons


@pytest.mark.parametrize(("group", "fits"), [(8, True), (32, False)])
def test_groups_of_zero_are_whole(group, fits):
    raw = with_overrides(TRAINING, {"workload.zero_group": group})
    pinned = {"cp": 1, "pp": 1, "tp": 4}  # dp = 8
    found = trained(raw, pinned=pinned, settings={"zero": (1,), "vpp": (1,)})
    assert found.feasible is fits
    assert fits or "workload.zero_group" in found.reasons[0]


def test_a_value_that_no_layout_can_have_is_the_reason():
    found = trained(pinned=PP8, settings={"micro_batch": (3.0,), "vpp": (4,)})
    assert not found.feasible
    assert "micro_batch = 3" in found.reasons[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": ("pipedream",)}, "schedule = pipedream: use one of gpipe"),
        ({"vpp": (1.5,)}, "vpp = 1.5: use whole numbers"),
        ({"vpp": (math.inf, 2)}, "vpp = inf: use whole numbers"),
        ({"vpp": (math.nan,)}, "vpp = nan: use whole numbers"),
        ({"vpp": (10**400,)}, "use whole numbers"),
        ({"vpp": (0,)}, "vpp = 0: use whole numbers"),
        ({"vpp": ("two",)}, "vpp = two: use whole numbers"),
        ({"zero": (4,)}, "zero = 4: use 0, 1, 2 or 3"),
        ({"sequence_parallel": (2,)}, "sequence_parallel = 2: use 0 or 1"),
        ({"overlapped_microbatches": (math.nan,)}, "= nan: use 1 or 2"),
        ({"overlapped_microbatches": (True,)}, "= True: use 1 or 2"),
        ({"micro_batch": ("two",)}, "micro_batch = two: use numbers"),
        ({"micro_batch": (0.0,)}, "micro_batch = 0.0: use numbers above 0"),
        ({"recompute_fraction": (1.5,)}, "= 1.5: use numbers from 0 to 1"),
        ({"batch": (2,)}, "batch: not free here"),
    ],
)
def test_a_setting_that_does_not_exist_gets_one_message(settings, words):
    with pytest.raises(SpecError, match=words):
        trained(settings=settings)
