"""The same numbers compiled or not, batched or alone, in float32, and as s grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import JOBS, OVER, evaluated, headline, job, off_lattice, predict

from cmxjax.phases.metrics import metrics
from cmxjax.specs.build import build
from cmxjax.specs.files import shipped
from cmxjax.specs.scenario import load_scenario

over_jobs = pytest.mark.parametrize("name", OVER)
over_sharpness = pytest.mark.parametrize(
    "sharpness", [None, pytest.param(8.0, marks=pytest.mark.slow)]
)
over_kinds = pytest.mark.parametrize(
    "name",
    [
        "mla-decode",
        "gqa-prefill",
        pytest.param("mla-prefill", marks=pytest.mark.slow),
        pytest.param("gqa-decode", marks=pytest.mark.slow),
    ],
)
over_batches = pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param(name, count, marks=() if name == "mla-decode" else pytest.mark.slow)
        for name in JOBS
        for count in (1, 100_000)
    ]
    # where a compiler once returned wrong rows (jax-ml/jax#39103)
    + [(name, 16_385) for name in JOBS],
)

FRACTIONS = (
    "draft_tokens",
    "acceptance",
    "cached_fraction",
    "recompute_fraction",
    "offload_activations",
    "offload_weights",
    "offload_optimizer",
)


def rows_of(inputs, count, seed=0):
    """Workloads and layouts of `count` jobs: other sizes, fewer ways of each split.

    A layout's splits are the printed ones to a power from 0 to 1, the same for all axes
    of a tier, so attention and experts span the same devices. A fifth of the powers
    are 0 and a fifth 1.
    """
    rng = np.random.default_rng(seed)

    def vary(path, leaf):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        shape = (count, *leaf.shape)
        low, high = (0.0, 1.0) if name in FRACTIONS else (0.1, 3.0)
        return jnp.asarray(leaf * rng.uniform(low, high, shape), float)

    workload = jax.tree_util.tree_map_with_path(vary, inputs[2])
    layout = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), inputs[3]
    )
    tiers = layout.factor.shape[-1]
    power = np.clip(rng.uniform(-0.33, 1.33, (count, 1, tiers)), 0.0, 1.0)
    layout = layout.replace(factor=jnp.asarray(layout.factor**power, float))
    return workload, layout


def one_row(rows, i):
    return jax.tree.map(lambda x: x[i], rows)


def alone(inputs, row):
    """The job with one row's workload and layout."""
    return (*inputs[:2], *row, inputs[4])


@jax.jit
def batched(inputs, rows, sharpness=None):
    """Metrics of every row in one vectorized call."""
    predict_row = lambda row: evaluated(alone(inputs, row), sharpness)
    return jax.vmap(predict_row)(rows)


CHUNK = 1024


def in_chunks(inputs, rows, count, sharpness=None):
    """Metrics of every row, in calls of a size far below the suspicious ones."""
    padded = -count % CHUNK
    whole = jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], padded, axis=0)]), rows
    )
    parts = [
        batched(inputs, jax.tree.map(lambda x: x[i : i + CHUNK], whole), sharpness)
        for i in range(0, count, CHUNK)
    ]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


def assert_same(value, reference, rtol):
    """Every metric agrees; excesses are differences, so they get the scale of a job."""
    for field, expected in vars(reference).items():
        if field == "kind" or expected is None:
            continue
        scale = {"memory_excess_bytes": 1e11, "placement_excess": 1.0}.get(field, 0.0)
        np.testing.assert_allclose(
            getattr(value, field), expected, rtol=rtol, atol=rtol * scale, err_msg=field
        )


@over_jobs
@over_sharpness
def test_compiled_equals_not_compiled(name, sharpness):
    inputs = jax.tree.map(jnp.asarray, off_lattice(job(name), 8))
    traced = None if sharpness is None else jnp.asarray(sharpness)
    assert_same(predict(inputs, sharpness), evaluated(inputs, traced), 1e-11)


@over_batches
def test_every_row_of_a_batch_equals_the_same_row_in_small_chunks(name, count):
    inputs = job(name)
    rows = rows_of(inputs, count)
    assert_same(batched(inputs, rows), in_chunks(inputs, rows, count), 1e-11)


@over_batches
def test_rows_of_a_batch_equal_a_loop(name, count):
    inputs = job(name)
    rows = rows_of(inputs, count)
    values = batched(inputs, rows)
    picked = np.random.default_rng(1).choice(count, size=min(count, 20), replace=False)
    for i in (0, count - 1, *picked.tolist()):
        expected = predict(alone(inputs, one_row(rows, i)))
        assert_same(one_row(values, i), expected, 1e-11)


@pytest.mark.slow
@over_jobs
@pytest.mark.parametrize("count", [1, 16_385])
def test_rows_of_a_relaxed_batch_equal_a_loop(name, count):
    inputs, sharpness = job(name), 8.0
    rows = rows_of(inputs, count, seed=3)
    values = batched(inputs, rows, jnp.asarray(sharpness))
    picked = np.random.default_rng(1).choice(count, size=min(count, 20), replace=False)
    for i in (0, count - 1, *picked.tolist()):
        expected = predict(alone(inputs, one_row(rows, i)), sharpness)
        assert_same(one_row(values, i), expected, 1e-11)


@pytest.mark.slow
@over_jobs
def test_gradients_of_a_batch_equal_a_loop(name):
    inputs, count = job(name), 16_385
    rows = rows_of(inputs, count, seed=2)

    def time_s(row):
        m = evaluated(alone(inputs, row))
        return m.tpot_s if "decode" in name else m.ttft_s

    slopes = jax.jit(jax.vmap(jax.grad(time_s)))(rows)
    single = jax.jit(jax.grad(time_s))
    for i in (0, count - 1, *range(7, count, count // 20)):
        for got, expected in zip(
            jax.tree.leaves(one_row(slopes, i)), jax.tree.leaves(single(one_row(rows, i)))
        ):
            scale = float(jnp.abs(expected).max())
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12 * scale)


def in_float32(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def strays(value, reference, rtol=1e-4):
    """Share of rows whose metrics differ by more than rtol."""
    far = False
    for field, expected in vars(reference).items():
        if field == "kind" or field.endswith("excess") or expected is None:
            continue
        if field in ("memory_excess_bytes", "cache_load_time_s"):
            continue
        got = np.asarray(getattr(value, field), float)
        far = far | (np.abs(got - expected) > rtol * np.abs(expected))
    return far


@over_jobs
@over_sharpness
def test_float32_is_close_to_float64(name, sharpness):
    """As printed, where sizes lie on the edges of tiles, and away from there."""
    traced = None if sharpness is None else np.float32(sharpness)
    for inputs in (job(name), off_lattice(job(name), 1), off_lattice(job(name), 2)):
        expected = predict(inputs, sharpness)
        with jax.enable_x64(False):
            low = jax.jit(evaluated)(in_float32(inputs), traced)
            assert {x.dtype for x in jax.tree.leaves(low)} == {np.dtype(np.float32)}
            low = jax.tree.map(np.asarray, low)
        assert not strays(low, expected)


@over_kinds
def test_a_batch_in_float32_is_close_to_float64(name):
    """A size within rounding of a whole tile may fall on its other side: 1 in 1000."""
    inputs, count = job(name), 16_385
    rows = rows_of(inputs, count)
    expected = batched(inputs, rows)
    with jax.enable_x64(False):
        low = jax.jit(batched.__wrapped__)(in_float32(inputs), in_float32(rows))
        low = jax.tree.map(np.asarray, low)
    assert strays(low, expected).mean() < 1e-3


@over_kinds
def test_float32_leaves_are_accepted_where_float64_is_on(name):
    inputs = off_lattice(job(name), 1)
    expected = predict(inputs)
    low = predict(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), inputs))
    assert not strays(low, expected)


@over_jobs
def test_the_relaxed_model_tends_to_the_exact_one(name):
    """The error falls as one over the sharpness: groups of 1.01 ranks are slow to."""
    inputs = off_lattice(job(name), 9)
    exact = headline(inputs)[0]
    errors = [abs(float(headline(inputs, s)[0] - exact)) for s in (1e2, 1e4, 1e6)]
    assert errors[2] < 1e-4
    assert errors[2] < 0.011 * errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped("scenarios")))
def test_relaxed_times_are_within_three_parts_in_sharpness_of_the_exact_ones(name):
    p = build(load_scenario(name), "none")
    fields = ("step_time_s", "tpot_s", "ttft_s", "request_time_s")

    def seconds(s):
        m = metrics(*p.inputs, s)
        found = (getattr(m, field, None) for field in fields)
        return jnp.stack([value for value in found if value is not None])

    sharpness = jnp.asarray([4.0, 16.0, 64.0, 1e3])
    errors = abs(jax.lax.map(seconds, sharpness) / seconds(None) - 1.0)
    assert (errors <= 3.0 / sharpness[:, None]).all()


@over_jobs
def test_three_values_need_one_trace(name):
    traces = []

    @jax.jit
    def counted(inputs, sharpness):
        traces.append(name)
        return evaluated(inputs, sharpness)

    for seed, sharpness in enumerate((2.0, 8.0, 1e6)):
        counted(off_lattice(job(name), seed), jnp.asarray(sharpness))
    assert len(traces) == 1
