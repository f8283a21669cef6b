"""Gradients of times and memory: finite, right, and the same forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import (
    EVERY_AXIS,
    JOBS,
    MEMORY,
    OVER,
    PREFILL,
    SHIPPED,
    TIME,
    all_finite,
    derivative,
    evaluated,
    gradient,
    headline,
    job,
    metrics,
    off_lattice,
    predict,
)

from cmxjax.parameters import is_fraction, leaf_paths

GROUPS = ("system", "architecture", "workload", "layout", "theta")

# a reverse pass takes seconds to compile, so half of the relaxed ones are slow tests
QUICK = [(name, None) for name in JOBS] + [
    (name, sharpness)
    for name in ("mla-decode", "gqa-prefill")
    for sharpness in (1.0, 4.0, 64.0)
]
SLOW = [
    pytest.param(name, sharpness, marks=pytest.mark.slow)
    for name in ("mla-prefill", "gqa-decode", *EVERY_AXIS)
    for sharpness in (1.0, 4.0, 64.0)
]
over_models = pytest.mark.parametrize(("name", "sharpness"), QUICK + SLOW)
over_jobs = pytest.mark.parametrize("name", OVER)


def of_few_tokens(inputs):
    """The job with at most a few hundred rows in any operator.

    Rows are counted in tiles. A difference step that takes thousands of rows across
    the corner of a tile would not measure a derivative.
    """
    system, a, w, layout, theta = inputs
    if w.kind == "prefill":
        few = {"tokens_per_device": 37.0, "prompt_tokens": 29.0}
        w = w.replace(**{key: jnp.asarray(value, float) for key, value in few.items()})
    return system, a, w, layout, theta


def directions(inputs, seed):
    """A random direction: relative for leaves, absolute for theta, which may be 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape)), inputs)


def only(direction, group):
    """The direction with all groups but one standing still."""
    still = jax.tree.map(np.zeros_like, direction)
    return tuple(
        d if name == group else zero for name, d, zero in zip(GROUPS, direction, still)
    )


def moved(inputs, direction, step):
    """Each leaf times exp(step x direction); theta plus step x direction."""
    leaves = jax.tree.map(
        lambda leaf, d: leaf * np.exp(step * d), inputs[:4], direction[:4]
    )
    theta = jax.tree.map(lambda leaf, d: leaf + step * d, inputs[4], direction[4])
    return (*leaves, theta)


def tangents(inputs, direction):
    """The derivative of `moved` with respect to its step."""
    leaves = jax.tree.map(np.multiply, inputs[:4], direction[:4])
    return (*leaves, direction[4])


def slope_by_differences(inputs, direction, sharpness):
    """Derivative of the headline by central differences."""
    step = 1e-7
    up = headline(moved(inputs, direction, step), sharpness)
    return (up - headline(moved(inputs, direction, -step), sharpness)) / (2.0 * step)


def dot(a, b) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(*map(jax.tree.leaves, (a, b))))


@over_models
@pytest.mark.parametrize("weights", [TIME, MEMORY], ids=["time", "memory"])
def test_every_leaf_has_a_finite_gradient(name, sharpness, weights):
    assert all_finite(gradient(job(name), weights, sharpness))


@over_models
@pytest.mark.parametrize("group", GROUPS)
def test_gradient_equals_finite_differences(name, sharpness, group):
    for seed in range(3):
        inputs = off_lattice(of_few_tokens(job(name)), seed)
        direction = only(directions(inputs, seed), group)
        by_differences = slope_by_differences(inputs, direction, sharpness)
        along = tangents(inputs, direction)
        slopes = [dot(gradient(inputs, w, sharpness), along) for w in (TIME, MEMORY)]
        # rounding of a logarithm, about 1e-15, over the step of 1e-7; the curvature of a
        # relaxed tile grows with the square of the sharpness
        rtol = 1e-5 if sharpness == 64.0 else 1e-6
        np.testing.assert_allclose(slopes, by_differences, rtol=rtol, atol=1e-7)


def check_modes_agree(name, sharpness):
    inputs = off_lattice(job(name), 7)
    along = tangents(inputs, directions(inputs, 7))
    forward = derivative(inputs, along, sharpness)
    reverse = [dot(gradient(inputs, w, sharpness), along) for w in (TIME, MEMORY)]
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)


@pytest.mark.parametrize("name", ["mla-decode", "gqa-prefill"])
def test_forward_mode_equals_reverse_mode(name):
    check_modes_agree(name, None)


@pytest.mark.slow
@over_models
def test_forward_mode_equals_reverse_mode_everywhere(name, sharpness):
    check_modes_agree(name, sharpness)


@over_jobs
def test_theta_moves_the_log_of_a_leaf_and_the_logit_of_a_fraction(name):
    inputs = job(name)
    slopes = gradient(inputs, TIME)
    by_leaf, leaves = leaf_paths(slopes[0]), leaf_paths(inputs[0])
    for path, slope in slopes[4].shifts.items():
        leaf = leaves[path]
        moves = leaf * (1.0 - leaf) if is_fraction(path) else leaf
        np.testing.assert_allclose(slope, by_leaf[path] * moves, rtol=1e-12)


@pytest.mark.slow
@over_jobs
def test_theta_of_every_leaf_has_the_slope_of_the_leaf(name):
    system, *rest, theta = job(name)
    every = {path: jnp.zeros(()) for path in leaf_paths(system)}

    def log_time(shifts):
        m = metrics(system, *rest, theta.replace(shifts=shifts))
        return jnp.log(m.tpot_s if "decode" in name else m.ttft_s)

    slopes = jax.jit(jax.grad(log_time))(every)
    by_leaf = leaf_paths(gradient(job(name), TIME)[0])
    for path, leaf in leaf_paths(system).items():
        moves = leaf * (1.0 - leaf) if is_fraction(path) else leaf
        np.testing.assert_allclose(
            slopes[path], by_leaf[path] * moves, rtol=1e-9, atol=1e-14, err_msg=path
        )


def on_one_device(inputs):
    system, a, w, layout, theta = inputs
    none = jnp.zeros(())
    routing = layout.routing.replace(redundant_experts=none, shared_replicas=none)
    factor = jnp.ones_like(layout.factor)
    return system, a, w, layout.replace(factor=factor, routing=routing), theta


def without_expert_parallelism(inputs):
    """Every device holds all experts: ep = 1 and the ranks are expert-data-parallel."""
    system, a, w, layout, theta = inputs
    factor = layout.factor.at[6].multiply(layout.factor[5]).at[5].set(1.0)
    return system, a, w, layout.replace(factor=factor), theta


def without_drafts(inputs):
    system, a, w, layout, theta = inputs
    if w.kind == "decode":
        w = w.replace(draft_tokens=jnp.zeros(()))
    return system, a, w, layout, theta


def without_skew(inputs):
    system, *rest = inputs
    engines = {
        name: engine.replace(routing_skew=jnp.zeros(()))
        for name, engine in system.engines.items()
    }
    return (system.replace(engines=engines), *rest)


def with_nothing_cached(inputs):
    system, a, w, layout, theta = inputs
    if w.kind == "prefill":
        w = w.replace(cached_fraction=jnp.zeros(()))
    return system, a, w, layout, theta


def all_at_once(inputs):
    for change in CORNERS[:-1]:
        inputs = change(inputs)
    return inputs


CORNERS = [
    on_one_device,
    without_expert_parallelism,
    without_drafts,
    without_skew,
    with_nothing_cached,
    all_at_once,
]
over_corners = pytest.mark.parametrize("corner", CORNERS, ids=lambda f: f.__name__)


@over_corners
@over_models
def test_gradients_are_finite_where_terms_vanish(name, corner, sharpness):
    inputs = corner(job(name))
    assert np.isfinite(headline(inputs, sharpness)).all()
    for weights in (TIME, MEMORY):
        assert all_finite(gradient(inputs, weights, sharpness))


@pytest.mark.parametrize("name", PREFILL)
def test_a_cached_prefix_saves_time_from_its_first_token_on(name):
    inputs = with_nothing_cached(job(name))
    assert gradient(inputs, TIME)[2].cached_fraction < 0.0


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_metric_of_every_shipped_scenario_has_finite_gradients(name, sharpness):
    @jax.jit
    def pulled(inputs, weights, s):
        return jax.vjp(lambda x: evaluated(x, s), inputs)[1](weights)[0]

    s = None if sharpness is None else jnp.asarray(sharpness)
    for inputs in (job(name), all_at_once(job(name))):
        fields = predict(inputs, sharpness)
        zeros = jax.tree.map(jnp.zeros_like, fields)
        for field, value in vars(fields).items():
            if isinstance(value, jax.Array):
                weights = zeros.replace(**{field: jnp.ones(())})
                assert all_finite(pulled(inputs, weights, s)), field
