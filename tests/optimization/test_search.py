"""The search against an independent brute force, its certificate and its honesty."""

import math

import jax
import numpy as np
import pytest

from cmxjax.answers.predict import predict
from cmxjax.interop.emit import emit
from cmxjax.optimization.answer import changes_of, optimize
from cmxjax.optimization.ask import ask
from cmxjax.optimization.bound import bound
from cmxjax.optimization.evaluator import TOLERANCE, Evaluator, factor_of, point_of
from cmxjax.optimization.moves import neighbors
from cmxjax.optimization.search import GRADIENT_COST, search
from cmxjax.optimization.space import allowed, count, grid, placements
from cmxjax.optimization.sweep import exhaustive
from cmxjax.phases.metrics import metrics
from cmxjax.report.optimization import as_scenario, write_answer
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario, validate_scenario, with_overrides

NAME = "deepseek-r1-decode-cloudmatrix384"
SMALL = {
    "limits": ("tpot=50ms",),
    "pinned": {"cp": 1, "etp": 1, "pp": 1},
    "settings": {"sequences_per_device": (4, 16, 48, 96), "extra_slots": (0,)},
    "calibration": "none",
}
"""DeepSeek-R1 on 96 dies with the degrees tp, dp, ep, edp free: a few thousand points."""


@pytest.fixture(scope="module")
def scenario():
    return load_scenario(NAME, {"layout.devices": 96, "layout.dp": 96, "layout.ep": 96})


@pytest.fixture(scope="module")
def question(scenario):
    return ask(scenario, **SMALL)


@pytest.fixture(scope="module")
def swept(question):
    return exhaustive(question)


@pytest.fixture(scope="module")
def found(question):
    return search(question)


def test_the_sweep_is_what_predictions_of_single_layouts_say(question, swept):
    """Independent brute force: every allowed layout through `metrics` alone."""
    p = question.problem
    frame, rules = question.space.frames[0], question.space.rules
    family = question.families[swept.best.family]
    assert not family.dispatches_shared or float(p.model.experts.shared) == 1.0
    rows = [
        (factor, batch)
        for factor in placements(frame, rules)
        for batch in SMALL["settings"]["sequences_per_device"]
    ]
    factors = np.array([factor for factor, _ in rows], float)
    batches = np.array([batch for _, batch in rows])
    routed, ep = float(p.model.experts.routed), factors[:, 5].prod(axis=1)
    redundant = np.ceil(routed / ep) * ep - routed

    def one(row):
        factor, batch, spare = row
        layout = p.layout.replace(
            factor=factor,
            attention="tp",
            microbatches="auto",
            routing=p.layout.routing.replace(redundant_experts=spare),
        )
        workload = p.workload.replace(sequences_per_device=batch)
        return metrics(p.machine, p.model, workload, layout)

    m = jax.jit(lambda x: jax.lax.map(one, x))((factors, batches, redundant))
    good = (np.asarray(m.tpot_s) <= 0.05 * (1 + TOLERANCE)) & (
        np.asarray(m.memory_excess_bytes) <= 0.0
    )
    best = np.where(good, m.tokens_per_s_per_package, 0.0).max()
    # the same family of the sweep: shared experts on every device
    here = next(i for i, f in enumerate(question.families) if not f.dispatches_shared)
    alone = exhaustive(question._replace(families=(question.families[here],)))
    assert question.value(alone.score.objective) == pytest.approx(best, rel=1e-12)
    assert alone.points == len(rows)
    assert alone.feasible == good.sum()
    assert swept.score.rank <= alone.score.rank


def test_the_search_reaches_the_optimum(question, swept, found):
    assert swept.points == count(question.space) * len(question.families)
    assert found.score.feasible
    assert found.score.objective <= swept.score.objective + 0.01
    assert found.score.objective >= swept.score.objective - TOLERANCE


def test_evaluations_are_counted(found):
    assert found.evaluations == found.exact + GRADIENT_COST * found.gradients
    assert found.gradients > 0


def test_equal_seeds_find_equal_layouts(question, found):
    assert search(question).best == found.best


def test_the_answer_predicts_as_it_says(scenario):
    answer = optimize(scenario, **SMALL)
    assert answer.feasible
    assert answer.method == "enumerate"
    changed = load_scenario(NAME, answer.changes)
    prediction = predict(changed, "none")
    assert not prediction.reasons
    for field, value in answer.metrics.items():
        assert prediction.values[field] == pytest.approx(value, rel=1e-9), field


@pytest.mark.parametrize("tp", [1, 2])
def test_points_share_the_head_as_their_predictions_do(tp):
    changes = {"layout.devices": 96, "layout.ep": 96, "layout.dp": 96, "layout.head": 4}
    found = ask(load_scenario(NAME, changes), **SMALL)
    factors = placements(found.space.frames[0], found.space.rules)
    factor = next(x for x in factors if x[0].prod() == tp and x[5].prod() == 96)
    point = point_of(0, 0, factor, (0, 0))
    (score,), said = Evaluator(found)([point]), changes_of(found, point)
    assert ("layout.head" in said) == (tp > 1)  # a tensor group has it
    values = predict(load_scenario(NAME, changes | said), "none").values
    for field, log in zip(found.fields, score.logs, strict=True):
        assert values[field] == pytest.approx(math.exp(log), rel=1e-9), field


@pytest.mark.slow
def test_a_training_answer_keeps_the_batch_and_the_overlap_asked_for():
    raw = {
        "system": "cloudmatrix384",
        "model": "deepseek-v3",
        "phase": "train",
        # fewer sequences than devices, as pipelines allow
        "workload": {"global_batch": 128, "sequence_tokens": 4096},
        "layout": {"devices": 512, "pp": 8, "overlapped_microbatches": 2},
    }
    pinned = {"tp": 1, "cp": 1, "pp": 8, "etp": 1, "ep": 64}
    settings = {"micro_batch": (1.0,), "recompute_fraction": (1.0,)}
    scenario = validate_scenario(raw, "test")
    answer = optimize(
        scenario, pinned=pinned, settings=settings, devices=(512,), calibration="none"
    )
    changed = validate_scenario(with_overrides(raw, answer.changes), "answer")
    found = predict(changed, "none").values
    assert found["step_time_s"] == pytest.approx(answer.metrics["step_time_s"], rel=1e-9)
    written = validate_scenario(as_scenario(answer), "written")
    assert predict(written, "none").values == found
    alone = with_overrides(raw, answer.changes | {"layout.overlapped_microbatches": 1})
    slower = predict(validate_scenario(alone, "alone"), "none").values
    assert slower["step_time_s"] > found["step_time_s"]


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
    scenario = validate_scenario(raw, "test")
    options = {"objective": "step_time", "calibration": "none"}
    answer = optimize(scenario, method="gradient", pinned={"cp": 1}, **options)
    assert answer.feasible
    assert answer.certificate.gap <= 0.01
    changed = validate_scenario(with_overrides(raw, answer.changes), "answer")
    prediction = predict(changed, "none")
    assert not prediction.reasons
    for field, value in answer.metrics.items():
        assert prediction.values[field] == pytest.approx(value, rel=1e-9), field


def test_gradient_search_states_its_certificate(scenario, swept, question):
    answer = optimize(scenario, method="gradient", **SMALL)
    c = answer.certificate
    best = question.value(swept.score.objective)
    assert c.optimum == pytest.approx(best)
    assert answer.value == pytest.approx(best)
    assert 0.0 <= c.gap <= 0.01
    assert c.rounded <= best * (1 + 1e-9)
    assert c.relaxed > 0.0
    assert c.points == c.evaluations["exhaustive"] == swept.points


def test_no_layout_beats_the_bound(question, swept):
    proven = bound(question)
    assert proven.points < swept.points
    assert proven.score <= swept.score.objective


def test_an_infeasible_job_is_said_to_be_infeasible(scenario):
    options = SMALL | {"limits": ("tpot=1ms",)}
    for method in ("gradient", "enumerate"):
        answer = optimize(scenario, method=method, **options)
        assert not answer.feasible
        assert "nearest" in answer.reasons[0]
        assert not answer.as_json()["feasible"]


def test_nothing_on_the_front_is_beaten(question, swept):
    for cost in swept.front.entries:
        rows = swept.front.table(cost)
        rates, costs = [row[0] for row in rows], [row[1] for row in rows]
        assert rates == sorted(rates)
        assert costs == sorted(costs)
    best = max(row[0] for row in swept.front.table("tpot_s"))
    assert best == pytest.approx(question.value(swept.score.objective), rel=2e-3)


def test_neighbors_keep_the_devices_and_the_rules(question, swept):
    factor = factor_of(swept.best, 4)
    near = neighbors(factor, question.space.rules)
    assert len(near) > 5
    stacked = np.stack(near).astype(int)
    assert (stacked[:, :4].prod(axis=1) == factor[:4].prod(axis=0)).all()
    assert (stacked[:, 3:].prod(axis=1) == factor[3:].prod(axis=0)).all()
    assert allowed(question.space.rules, stacked.prod(axis=2)).all()


def test_scores_are_remembered(question, swept):
    evaluator = Evaluator(question)
    first = evaluator([swept.best, swept.best])
    assert evaluator.count == 1
    assert first[0].objective == pytest.approx(swept.score.objective, rel=1e-12)
    assert math.isclose(evaluator([swept.best])[0].violation, swept.score.violation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "mfu"}, "does not predict"),
        ({"objective": "speed"}, "no such quantity"),
        ({"limits": ("tpot=50kg",)}, "tpot"),
        ({"limits": ("tpot=-1ms",)}, "tpot"),
        ({"pinned": {"xp": 2}}, "no such axis"),
        ({"settings": {"kv_tokens": (1.0,)}}, "not free here"),
        ({"method": "luck"}, "use one of"),
        ({"devices": (431,)}, "whole units"),
    ],
)
def test_wrong_options_are_named(scenario, options, message):
    with pytest.raises(SpecError, match=message):
        optimize(scenario, **options)


def test_devices_over_which_the_experts_do_not_divide_can_be_searched():
    """256 experts on 96 devices: no layout by default, but some with ep of 1 to 96."""
    job = {
        "system": "cloudmatrix384",
        "model": "deepseek-r1",
        "phase": "decode",
        "workload": {"sequences_per_device": 32, "kv_tokens": 4096},
        "layout": {"devices": 96},
    }
    space = ask(load_scenario(job), **SMALL).space
    assert [frame.devices for frame in space.frames] == [96]
    assert space.settings[0].values == (4.0, 16.0, 48.0, 96.0)


def test_a_grid_holds_every_combination(question):
    assert len(grid(question.space.settings)) == 4


SMALL_TRAINING = {
    "system": "cloudmatrix384",
    "model": "llama-3.1-8b",
    "phase": "train",
    "workload": {"global_batch": 64, "sequence_tokens": 4096},
    "layout": {"devices": 32},
}
PP8 = {"cp": 1, "pp": 8}


@pytest.mark.slow
def test_the_schedule_is_chosen_with_the_layout():
    scenario = validate_scenario(SMALL_TRAINING, "test")
    answer = optimize(
        scenario,
        objective="step_time",
        pinned=PP8,
        settings={"schedule": ("1f1b", "zero_bubble")},
        calibration="none",
    )
    times = {}
    for schedule in ("1f1b", "zero_bubble"):
        changes = answer.changes | {"workload.schedule": schedule}
        changed = validate_scenario(with_overrides(SMALL_TRAINING, changes), "changed")
        times[schedule] = predict(changed, "none").values["step_time_s"]
    assert answer.changes["workload.schedule"] == min(times, key=times.__getitem__)
    assert answer.value == pytest.approx(min(times.values()), rel=1e-9)
    assert min(times.values()) < 0.99 * max(times.values())


@pytest.mark.slow
def test_the_best_of_all_ways_is_the_best_of_the_ways_taken_one_by_one():
    options = {"objective": "step_time", "pinned": PP8, "calibration": "none"}
    ways = {"schedule": ("1f1b", "zero_bubble"), "vpp": (1, 2)}
    scenario = validate_scenario(SMALL_TRAINING, "test")
    answer = optimize(scenario, settings=ways, **options)
    values = {}
    for schedule in ways["schedule"]:
        for chunks in ways["vpp"]:
            one = {"workload.schedule": schedule, "layout.vpp": chunks}
            alone = validate_scenario(with_overrides(SMALL_TRAINING, one), "one")
            values[schedule, chunks] = optimize(alone, **options).value
    assert answer.value == pytest.approx(min(values.values()), rel=1e-12)
    assert len({f"{value:.9g}" for value in values.values()}) == len(values)
    best = min(values, key=values.__getitem__)
    found = answer.changes["workload.schedule"], answer.changes["layout.vpp"]
    assert values[found] == pytest.approx(values[best], rel=1e-12)
    changed = validate_scenario(with_overrides(SMALL_TRAINING, answer.changes), "answer")
    prediction = predict(changed, "none")
    assert not prediction.reasons
    assert prediction.values["step_time_s"] == pytest.approx(answer.value, rel=1e-9)


def test_no_answer_has_more_chunks_than_layers_fill(tmp_path):
    """Eight chunks on each of eight stages would be faster, but there are 32 layers."""
    scenario = validate_scenario(SMALL_TRAINING, "test")
    options = {"objective": "step_time", "pinned": PP8, "calibration": "none"}
    found = optimize(scenario, settings={"vpp": (4, 8)}, **options)
    assert found.changes["layout.vpp"] == 4
    none = optimize(scenario, settings={"vpp": (8,)}, **options)
    assert none.value < found.value
    assert not none.feasible
    assert "layers for all chunks" in none.reasons[0]
    assert "% over" not in none.reasons[0]
    path = tmp_path / "answer.toml"
    with pytest.raises(SpecError, match="layout.vpp = 8: pp 8 x vpp 8 chunks"):
        write_answer(none, str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("own", "tried"), [pytest.param(4, {}, marks=pytest.mark.slow), (1, {"vpp": (4,)})]
)
def test_a_single_stage_has_one_chunk(own, tried):
    raw = with_overrides(SMALL_TRAINING, {"layout.vpp": own})
    found = optimize(
        validate_scenario(raw, "test"),
        pinned={"cp": 1, "pp": 1},
        settings=tried,
        calibration="none",
    )
    assert found.changes["layout.vpp"] == 1
    changed = validate_scenario(with_overrides(raw, found.changes), "answer")
    rate = predict(changed, "none").values["tokens_per_s_per_package"]
    assert rate == pytest.approx(found.value, rel=1e-9)
    assert "--micro-batch-size" in emit(changed, "megatron", "none").arguments


@pytest.mark.parametrize(
    ("batch", "micro_batch", "runs"),
    # eight stages need sixteen micro-batches of a rank, 64 sequences on dp = 4
    [(64, 1.0, True), (64, 2.0, False), (68, 1.0, False), (72, 1.0, True)],
)
@pytest.mark.parametrize("own", [True, False])
def test_dualpipe_has_two_micro_batches_for_each_stage(batch, micro_batch, runs, own):
    raw = with_overrides(SMALL_TRAINING, {"workload.global_batch": batch})
    tried = {"micro_batch": (micro_batch,)}
    if own:
        raw = with_overrides(raw, {"workload.schedule": "dualpipe"})
    else:
        tried["schedule"] = ("dualpipe",)
    found = optimize(
        validate_scenario(raw, "test"),
        pinned=PP8 | {"dp": 4},
        settings=tried,
        calibration="none",
    )
    assert found.feasible is runs
    assert runs or "dualpipe needs" in found.reasons[0]
    changed = with_overrides(raw, found.changes)
    if runs:
        assert not predict(validate_scenario(changed, "answer"), "none").reasons
    else:
        with pytest.raises(SpecError, match="schedule dualpipe needs an even number"):
            predict(validate_scenario(changed, "answer"), "none")


@pytest.mark.parametrize(("group", "fits"), [(8, True), (32, False)])
def test_groups_of_zero_are_whole(group, fits):
    raw = with_overrides(SMALL_TRAINING, {"workload.zero_group": group})
    given = ask(validate_scenario(raw, "test"), pinned={"cp": 1, "pp": 1, "tp": 4})
    factor = placements(given.space.frames[0], given.space.rules)[0]
    (score,) = Evaluator(given)([point_of(0, 0, factor, (0, 0))])  # dp = 8
    assert score.feasible is fits
    assert fits or "whole groups of workload.zero_group" in given.needs[score.worst]


def test_dualpipe_has_an_even_number_of_stages():
    raw = with_overrides(
        SMALL_TRAINING, {"layout.devices": 48, "workload.global_batch": 192}
    )
    options = {"settings": {"schedule": ("dualpipe",)}, "calibration": "none"}
    scenario = validate_scenario(raw, "test")
    assert not optimize(scenario, pinned={"cp": 1, "pp": 3}, **options).feasible
    assert optimize(scenario, pinned={"cp": 1, "pp": 6}, **options).feasible


def test_a_batch_that_ranks_cannot_share_is_the_reason():
    found = optimize(
        validate_scenario(SMALL_TRAINING, "test"),
        pinned=PP8,
        settings={"micro_batch": (3.0,), "vpp": (4,)},
        calibration="none",
    )
    assert "whole number of micro-batches" in found.reasons[0]


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
        ({"overlapped_microbatches": (math.nan,)}, "= nan: use 1 or 2"),
        ({"overlapped_microbatches": (True,)}, "= True: use 1 or 2"),
        ({"overlapped_microbatches": (3,)}, "overlapped_microbatches = 3: use 1 or 2"),
        ({"micro_batch": ("two",)}, "micro_batch = two: use numbers"),
        ({"micro_batch": (0.0,)}, "micro_batch = 0.0: use numbers above 0"),
        ({"micro_batch": (math.inf,)}, "micro_batch = inf: use numbers above 0"),
        ({"recompute_fraction": (1.5,)}, "= 1.5: use numbers from 0 to 1"),
        ({"batch": (2,)}, "batch: not free here"),
    ],
)
def test_a_way_that_does_not_exist_gets_one_message(settings, words):
    scenario = validate_scenario(SMALL_TRAINING, "test")
    with pytest.raises(SpecError, match=words):
        optimize(scenario, settings=settings)
