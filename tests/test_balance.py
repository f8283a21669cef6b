"""Shares of a chain in balance, against NumPy's solver, in batches and by derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_queue import SHAPES, affine

from cmxjax.serve.arrivals import gaps_of
from cmxjax.serve.balance import balance, inverse
from cmxjax.serve.bulk import bulk_queue, line_of


def solved(chances):
    """By LAPACK, with pivots."""
    count = len(chances)
    balances = chances.T - np.eye(count)
    balances[0] = 1.0
    return np.linalg.solve(balances, np.eye(count)[0])


@jax.jit
def chances_of(load, variance, service):
    """The chain of a queue of prompts."""
    queue = bulk_queue(line_of(gaps_of(variance), service), load * service.full_per_s)
    count = queue.share.size
    return queue.moves.transpose(0, 2, 1, 3).reshape(count, count)


@pytest.mark.parametrize("shape", [*SHAPES, (64, 1.0, 1.0), (1000, 1.0, 2.0)])
@pytest.mark.parametrize("load", [1e-6, 0.1, 0.9, 0.99])
def test_shares_of_the_queue_are_those_of_a_solver_with_pivots(shape, load):
    for variance in (0.01, 1.0, 16.0):
        load, variance = jnp.asarray(load), jnp.asarray(variance)
        chances = np.array(chances_of(load, variance, affine(*shape)))
        found, expected = np.asarray(balance(jnp.asarray(chances))), solved(chances)
        assert abs(found - expected).max() < 1e-11 * expected.max()


def some(seed, count=42):
    chances = np.random.default_rng(seed).random((count, count)) ** 8
    return chances / chances.sum(axis=1, keepdims=True)


def test_a_batch_has_the_shares_of_each():
    many = np.stack([some(seed) for seed in range(5)])
    found = jax.vmap(balance)(jnp.asarray(many))
    assert np.allclose(found, [solved(each) for each in many], rtol=1e-10, atol=0.0)


def test_derivatives_up_to_the_second_are_those_of_differences():
    a, b = map(jnp.asarray, (some(7), some(8)))

    def cost(x):
        return jnp.sum(balance(a + x * (b - a)) ** 2)

    slope, bend, step = jax.grad(cost), jax.grad(jax.grad(cost)), 1e-4
    for x in (0.2, 0.7):
        near, far = x - step, x + step
        expected = float(cost(far) - cost(near)) / (2 * step)
        assert float(slope(x)) == pytest.approx(expected, rel=1e-6)
        expected = float(slope(far) - slope(near)) / (2 * step)
        assert float(bend(x)) == pytest.approx(expected, rel=1e-6)
        mixed = float(jax.jacfwd(jax.jacrev(cost))(x))
        assert float(bend(x)) == pytest.approx(mixed, rel=1e-9)


@pytest.mark.parametrize("block", [1, 3, 21])
def test_an_inverse_is_the_same_in_any_blocks(block):
    matrix = np.eye(42) - 0.9 * some(3)
    assert np.allclose(inverse(jnp.asarray(matrix), block), np.linalg.inv(matrix))
