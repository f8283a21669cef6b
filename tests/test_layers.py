"""Models whose layers are of several kinds: what each kind is, and that kinds add up."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_budgets import equations

import cmxjax as cmx
from cmxjax.model.mixers import bounded_mean
from cmxjax.specs.model_file import ModelFile
from cmxjax.specs.model_load import architecture_of
from cmxjax.specs.scenario import validate_scenario
from cmxjax.work.attention import mixer_ops
from cmxjax.work.held import holding_of
from cmxjax.work.serving import decode_rows, prefill_rows
from cmxjax.work.table import matrix_flop, sizes_by_name, tabulate

FULL = {"kind": "grouped_query", "heads": 32, "kv_heads": 8, "head_dim": 128}
WINDOW = FULL | {"window": 1024}
CHUNK = FULL | {"chunk": 1024}
DELTA = {
    "kind": "recurrent",
    "heads": 32,
    "key_dim": 128,
    "value_dim": 64,
    "columns": 6144,
    "channels": 4096,
    "kernel": 4,
    "delta": True,
    "chunk": 64,
}
SPARSE = {
    "kind": "latent",
    "heads": 32,
    "query_rank": 1024,
    "latent_dim": 512,
    "rope_dim": 64,
    "nope_dim": 128,
    "value_dim": 128,
    "indexer": {"heads": 16, "head_dim": 128, "topk": 512},
}
DENSE = {"kind": "dense", "intermediate": 14336}
MIXTURE = {
    "kind": "mixture",
    "routed": 64,
    "topk": 4,
    "shared": 1,
    "intermediate": 2048,
}
PLAIN = {
    "attention": FULL,
    "intermediate": 14336,
    "dense_layers": 32,
}

JOBS: dict[str, dict[str, Any]] = {
    "decode": {
        "layout": {"devices": 8, "tp": 2, "dp": 4},
        "workload": {"sequences_per_device": 16, "kv_tokens": 4096},
    },
    "prefill": {
        "layout": {"devices": 8, "tp": 2, "dp": 4},
        "workload": {"tokens_per_device": 8192, "prompt_tokens": 4096},
    },
    "train": {
        "layout": {"devices": 32, "tp": 2, "pp": 4, "dp": 4},
        "workload": {"sequence_tokens": 4096, "global_batch": 64, "micro_batch": 1},
    },
}
TIMES = {"decode": "tpot_s", "prefill": "ttft_s", "train": "step_time_s"}


def model(**keys: Any):
    """A model of 32 layers, 4096 wide."""
    base = {
        "name": "m",
        "title": "m",
        "kind": "assumed",
        "source": "s",
        "locator": "l",
        "sources": {"s": {"title": "s"}},
        "hidden": 4096,
        "layers": 32,
        "vocabulary": 128000,
    }
    return architecture_of(ModelFile.model_validate(base | keys))


def listed(mixers: dict, halves: dict, *pattern: dict, **keys: Any):
    return model(mixers=mixers, feed_forwards=halves, pattern=list(pattern), **keys)


@functools.cache
def problem(phase: str, changes: tuple = (), name: str = "llama-3.1-8b") -> Any:
    """A job on a machine; its model is replaced."""
    raw = {"system": "cloudmatrix384", "model": name, "phase": phase}
    job = {key: dict(value) for key, value in JOBS[phase].items()}
    for path, value in changes:
        group, key = path.split(".")
        job[group][key] = list(value) if isinstance(value, tuple) else value
    return cmx.build(validate_scenario(raw | job, "test"), "none")


def predicted(phase: str, a: Any, explains: bool = False, **changes: Any) -> Any:
    mixture = "qwen3-235b-a22b" if "layout.ep" in changes else "llama-3.1-8b"
    p = problem(phase, tuple(sorted(changes.items())), mixture)
    run = cmx.explain if explains else cmx.metrics
    return run(p.machine, a, p.workload, p.layout)


def same(one: Any, other: Any, but: tuple[str, ...] = ()) -> None:
    for name, value in vars(one).items():
        if hasattr(value, "dtype") and name not in but:
            twin = getattr(other, name)
            np.testing.assert_allclose(value, twin, rtol=1e-9, err_msg=name)


ALTERNATING = ({"mixer": "a", "feed_forward": "x"}, {"mixer": "b", "feed_forward": "y"})


@pytest.mark.parametrize("phase", JOBS)
def test_kinds_that_are_alike_make_the_model_of_one_kind(phase):
    halves = {"x": DENSE, "y": DENSE}
    several = listed({"a": FULL, "b": FULL}, halves, *ALTERNATING)
    same(predicted(phase, several), predicted(phase, model(**PLAIN)))


@pytest.mark.parametrize("phase", JOBS)
def test_dense_layers_in_front_are_a_pattern_too(phase):
    mixture = {k: v for k, v in MIXTURE.items() if k != "kind"}
    plain = model(**PLAIN | {"experts": mixture, "dense_layers": 3})
    halves = {"x": DENSE, "y": MIXTURE}
    pattern = (
        {"mixer": "a", "feed_forward": "x", "count": 3},
        {"mixer": "a", "feed_forward": "y", "count": 29},
    )
    several = listed({"a": FULL}, halves, *pattern)
    same(predicted(phase, several), predicted(phase, plain))


@pytest.mark.parametrize("phase", JOBS)
def test_layers_of_one_half_are_the_halves_of_whole_ones(phase):
    """One after another, with one micro-batch."""
    halves = [{"mixer": "a"}, {"feed_forward": "x"}]
    split = listed({"a": FULL}, {"x": DENSE}, *halves, layers=64)
    whole = model(**PLAIN)
    counted = ("layer_time_s", "forward_time_s", "backward_time_s", "iteration_rest_s")
    streams = ("attention_stream_time_s", "moe_stream_time_s")
    changes = {"layout.pp": 1, "layout.dp": 16} if phase == "train" else {}
    one, other = (predicted(phase, a, **changes) for a in (split, whole))
    same(one, other, (*counted, *streams, *MEMORY))


MEMORY = (
    "memory_bytes",
    "memory_activations_bytes",
    "memory_excess_bytes",
    "memory_first_stage_bytes",
    "memory_last_stage_bytes",
    "memory_communication_bytes",
)
"""What depends on how layers are cut: each keeps its input."""


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_halves_hide_communication_where_two_micro_batches_overlap(phase):
    halves = [{"mixer": "a"}, {"feed_forward": "x"}]
    split = listed({"a": FULL}, {"x": MIXTURE}, *halves, layers=64)
    whole = listed({"a": FULL}, {"x": MIXTURE}, {"mixer": "a", "feed_forward": "x"})
    name = "layout.overlapped_microbatches"
    layout = {name: 2, "layout.ep": 8}
    times = [
        float(getattr(predicted(phase, a, **layout), TIMES[phase]))
        for a in (split, whole)
    ]
    assert times[0] == pytest.approx(times[1], rel=1e-9)


@pytest.mark.parametrize("phase", JOBS)
def test_a_window_as_long_as_the_context_sees_all_of_it(phase):
    wide = model(**PLAIN | {"attention": FULL | {"window": 8192}})
    same(predicted(phase, wide), predicted(phase, model(**PLAIN)))


@pytest.mark.parametrize("phase", JOBS)
@pytest.mark.parametrize(
    "mixer", [WINDOW, CHUNK, DELTA], ids=["window", "chunk", "delta"]
)
def test_layers_with_less_context_take_less_time_and_are_between(phase, mixer):
    part = {"mixer": "b", "feed_forward": "x", "count": 3}
    some = listed(
        {"a": FULL, "b": mixer}, {"x": DENSE}, part, {"mixer": "a", "feed_forward": "x"}
    )
    every = model(**PLAIN | {"attention": mixer})
    name = TIMES[phase]
    mixed, alone, full = (
        float(getattr(predicted(phase, a), name)) for a in (some, every, model(**PLAIN))
    )
    if mixer is not DELTA:
        assert alone < mixed < full
    near = 1e-3 if phase == "train" else 1e-9  # stages between the ends hold the mean
    assert mixed == pytest.approx(0.75 * alone + 0.25 * full, rel=max(near, 0.05))


def test_a_window_bounds_what_decode_caches_and_reads():
    p = problem("decode")
    a = model(**PLAIN | {"attention": WINDOW})
    rows = decode_rows(a, p.workload, p.layout, jnp.ones(()))
    held = 16 * 2  # a group of two ranks
    assert float(rows["pairs.0"]) == held * 1024
    assert float(rows["kv_read.0"]) == held * 1024 / 2
    m = predicted("decode", a)
    pair = 2 * 8 * 128 * 2.0
    assert float(m.memory_kv_cache_bytes) == pytest.approx(32 * held * 1024 * pair / 2)


def test_a_chunk_is_seen_half_on_average():
    p = problem("decode")
    a = model(**PLAIN | {"attention": CHUNK})
    rows = decode_rows(a, p.workload, p.layout, jnp.ones(()))
    assert float(rows["pairs.0"]) == 16 * 2 * 1025 / 2


@settings(deadline=None)
@given(start=st.integers(0, 40), new=st.integers(1, 60), window=st.integers(1, 50))
def test_the_mean_of_what_queries_see_is_that_of_all_places(start, new, window):
    end = start + new
    seen = np.mean([min(place, window) for place in range(start + 1, end + 1)])
    most = min(window, end)
    got = float(bounded_mean(float(start), float(end), float(most), float(most)))
    assert got == pytest.approx(seen, rel=1e-9)


def test_a_state_is_all_that_a_recurrent_layer_keeps():
    a = model(**PLAIN | {"attention": DELTA})
    state = 32 * 128 * 64 + 4096 * 3
    held = [
        float(predicted("decode", a, **{"workload.kv_tokens": k}).memory_kv_cache_bytes)
        for k in (1024, 65536)
    ]
    assert held[0] == held[1] == pytest.approx(32 * 16 * state * 2.0)
    times = [
        float(predicted("decode", a, **{"workload.kv_tokens": k}).tpot_s)
        for k in (1024, 65536)
    ]
    assert times[0] == times[1]


def flop(a: Any, phase: str, tokens: float) -> float:
    """Matrix FLOP of the model's first mixer for each token on a device."""
    p = problem(phase)
    work = decode_rows if phase == "decode" else prefill_rows
    rows = work(a, p.workload, p.layout, jnp.ones(()))
    sizes = p.workload.software.sizes
    ops = mixer_ops(a, sizes, 0, decodes=phase == "decode")
    return float(matrix_flop(tabulate(ops, rows, sizes_by_name(a, sizes))).sum()) / tokens


def test_flop_of_a_gated_delta_layer_by_hand():
    """Projections, and in chunks of 64 tokens twice scores and values, a state read and
    one written; a step token by token does without products of matrices."""
    a = model(**PLAIN | {"attention": DELTA})
    weights = 4096 * (6144 + 32 * 64)
    assert flop(a, "decode", 16.0) == pytest.approx(2 * weights)
    chunk = 2 * 64 * 32 * (128 + 64) + 2 * 32 * 128 * 64
    assert flop(a, "prefill", 8192.0) == pytest.approx(2 * (weights + chunk))


def test_sparse_attention_meets_its_top_tokens_and_scans_all():
    a = model(**PLAIN | {"attention": SPARSE})
    absorbed = 32 * (576 + 512) * 512
    scanned = 16 * 128 * 4096
    index = 1024 * 16 * 128 + 4096 * (128 + 16)
    down, up = 4096 * (1024 + 576), 1024 * 32 * 192
    latents, out = 32 * 512 * (128 + 128), 32 * 128 * 4096
    # both ranks of a group project all of its tokens down, and choose for their own
    expected = 2 * down + 2 * index + up + latents + out + absorbed + scanned
    assert flop(a, "decode", 16.0) == pytest.approx(2 * expected)


def test_an_indexer_s_keys_are_cached():
    sparse = model(**PLAIN | {"attention": SPARSE})
    without = {k: v for k, v in SPARSE.items() if k != "indexer"}
    full = model(**PLAIN | {"attention": without})
    kept = [float(predicted("decode", a).memory_kv_cache_bytes) for a in (sparse, full)]
    assert kept[0] / kept[1] == pytest.approx((576 + 128) / 576)


def test_stages_hold_the_layers_that_the_order_gives_them():
    """Experts in every other layer of the last half: stages differ in what they hold."""
    dense, mixed = ({"mixer": "a", "feed_forward": half} for half in ("x", "y"))
    pattern = [dense | {"count": 16}, *[dense, mixed] * 8]
    a = listed({"a": FULL}, {"x": DENSE, "y": MIXTURE}, *pattern)
    p = problem("train", (("layout.stages", (8, 9, 8, 7)),))
    holding = holding_of(
        a, p.workload, p.layout, jnp.zeros(()), p.machine.runtime.stages, None
    )
    layers = [np.asarray(x).tolist() for x in holding.span.layers]
    assert layers == [[8.0, 9.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]]
    held = [sum(map(float, kind)) for kind in holding.layer_weights]
    total = np.asarray(holding.weights.shared + holding.weights.expert)
    assert total[1] == pytest.approx(9 * held[0])
    assert total[2] == pytest.approx(4 * held[0] + 4 * held[1])


@pytest.mark.parametrize("phase", JOBS)
def test_a_breakdown_of_several_kinds_sums_to_the_step(phase):
    part = {"mixer": "b", "feed_forward": "x", "count": 3}
    last = {"mixer": "a", "feed_forward": "y"}
    a = listed({"a": FULL, "b": DELTA}, {"x": DENSE, "y": MIXTURE}, part, last)
    m = predicted(phase, a, explains=True)
    whole = m.ttft_s if phase == "prefill" else m.step_time_s
    assert sum(map(float, m.breakdown.values())) == pytest.approx(float(whole))
    assert all(float(value) >= -1e-12 for value in m.breakdown.values())


@pytest.mark.parametrize(
    "phase", ["decode", "prefill", pytest.param("train", marks=pytest.mark.slow)]
)
def test_gradients_go_through_all_kinds(phase):
    part = {"mixer": "b", "feed_forward": "x", "count": 3}
    last = {"mixer": "a", "feed_forward": "y"}
    a = listed({"a": WINDOW, "b": DELTA}, {"x": DENSE, "y": MIXTURE}, part, last)
    # stages between whole layers only: there the kinds' shares have a kink
    changes = (("layout.dp", 16), ("layout.pp", 1)) if phase == "train" else ()
    p, name = problem(phase, changes), TIMES[phase]

    def log_time(logs):
        moved = a.replace(
            mixers=(
                a.mixers[0].replace(heads=a.mixers[0].heads * jnp.exp(logs[0])),
                a.mixers[1].replace(columns=a.mixers[1].columns * jnp.exp(logs[1])),
            ),
            hidden=a.hidden * jnp.exp(logs[2]),
        )
        s = jnp.asarray(4.0)
        m = cmx.metrics(p.machine, moved, p.workload, p.layout, s)
        return jnp.log(getattr(m, name))

    base = jnp.array([0.011, 0.017, 0.013])  # off whole tiles, where slopes jump
    slopes = jax.grad(log_time)(base)
    step = 1e-6
    for i in range(3):
        at = jnp.zeros(3).at[i].set(step)
        rise = (log_time(base + at) - log_time(base - at)) / (2.0 * step)
        assert float(slopes[i]) == pytest.approx(float(rise), rel=1e-4, abs=1e-7)
        assert float(slopes[i]) > 0.0


@pytest.mark.parametrize("phase", JOBS)
@pytest.mark.parametrize(
    ("mixer", "half", "most"),
    [(DELTA, None, 200), (WINDOW, None, 290), (None, MIXTURE, 650)],
    ids=["recurrent", "window", "mixture"],
)
def test_a_further_kind_is_a_small_addition(phase, mixer, half, most):
    """A recurrence adds 200 equations; one more attention exchanges of its own over cp,
    and a mixture all of dispatch and combine."""
    p = problem(phase)
    part = {"mixer": "a", "feed_forward": "x"}
    one = listed({"a": FULL}, {"x": DENSE}, part)
    mixers = {"a": FULL} | ({"b": mixer} if mixer else {})
    halves = {"x": DENSE} | ({"y": half} if half else {})
    other = {"mixer": "b" if mixer else "a", "feed_forward": "y" if half else "x"}
    two = listed(mixers, halves, part, other)
    counts = [
        equations(jax.make_jaxpr(cmx.metrics)(p.machine, a, p.workload, p.layout).jaxpr)
        for a in (one, two)
    ]
    assert counts[1] - counts[0] <= most
