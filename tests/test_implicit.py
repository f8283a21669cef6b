"""Roots with derivatives of any order: closed forms, and a whole serving job."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmxjax.implicit import roots
from cmxjax.phases.metrics import metrics
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario

SECOND = {
    "forward over forward": lambda f: jax.jit(jax.jacfwd(jax.jacfwd(f))),
    "reverse over forward": lambda f: jax.jit(jax.jacrev(jax.jacfwd(f))),
    "forward over reverse": lambda f: jax.jit(jax.jacfwd(jax.jacrev(f))),
}


def _solved(p):
    """Roots of x^2 = p and x^3 = p, with the values p x at each."""

    def function(p, x):
        return jnp.stack([x**2 - p, x**3 - p]), p * x

    x, values = roots(function, p, 3.0 + p)
    return jnp.concatenate([x, values])


def test_roots_and_slopes_are_those_of_their_closed_forms():
    p, slopes = jnp.asarray(1.7), jax.jit(jax.value_and_grad(lambda p: _solved(p)[0]))
    np.testing.assert_allclose(slopes(p), (1.7**0.5, 0.5 / 1.7**0.5), rtol=1e-8)


@pytest.mark.parametrize("order", SECOND)
def test_second_derivatives_of_roots_are_those_of_their_closed_forms(order):
    powers, p = np.array([1 / 2, 1 / 3, 3 / 2, 4 / 3]), 1.7
    first = powers * p ** (powers - 1)
    second = first * (powers - 1) / p
    np.testing.assert_allclose(SECOND[order](_solved)(p), second, rtol=1e-7)


def test_mixed_second_derivatives_of_a_root():
    # a x^2 = b: x = sqrt(b / a), of which the derivative by a and b is -x / (4 a b)
    def root(p):
        return roots(lambda p, x: ((p[0] * x**2 - p[1])[None], ()), p, 10.0).x[0]

    a, b = 0.8, 2.9
    x = np.sqrt(b / a)
    expected = [[0.75 * x / a**2, -0.25 * x / (a * b)]]
    expected += [[-0.25 * x / (a * b), -0.25 * x / b**2]]
    found = jax.jit(jax.hessian(root))(jnp.asarray([a, b]))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_where_there_is_no_root_the_end_of_the_bracket_moves_in_its_place():
    def at_upper(p):
        x, values = roots(lambda p, x: ((x - 10.0 * p)[None], x**2), p, p**3)
        return jnp.stack([x[0], values[0]])

    found = jax.jit(jax.jacfwd(jax.grad(lambda p: at_upper(p) @ jnp.ones(2))))(1.5)
    assert float(found) == pytest.approx(6 * 1.5 + 30 * 1.5**4)


def test_a_root_stays_at_a_step_that_does_not_move():
    def root(p):
        return roots(lambda p, x: ((jnp.ceil(x) - p)[None], ()), p, 8.0).x[0]

    first = jax.grad(root)
    found = jax.jit(lambda p: (root(p), first(p), jax.grad(first)(p)))(2.5)
    np.testing.assert_allclose(found, (2.0, 0.0, 0.0), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("load", ["request_rate", "concurrency"])
def test_second_derivatives_of_a_serving_job_are_differences_of_the_first(load):
    """With the rate of requests open and closed, along the memory bandwidth."""
    changes: dict[str, object] = {
        f"workload.{load}": {"request_rate": 40.3, "concurrency": 1777.0}[load]
    }
    changes["workload.ttft_limit"] = "300 s"  # a closed loop begins with all at once
    scenario = load_scenario("deepseek-r1-serve-colocated-cloudmatrix384", changes)
    p = build(scenario, "none")

    def logs(shift):
        chip = p.machine["decode"].chip
        chip = chip.replace(memory_bytes_per_s=chip.memory_bytes_per_s * jnp.exp(shift))
        machine = {"decode": p.machine["decode"].replace(chip=chip)}
        m = metrics(machine, *p.inputs[1:])
        fields = m.tpot_s, m.capacity_requests_per_s, m.request_time_s
        return jnp.log(jnp.stack(fields)) @ jnp.asarray([1.0, 0.5, 2.0])

    first, at, step = jax.jit(jax.grad(logs)), 0.0137, 1e-4
    second = float(jax.jit(jax.jacfwd(jax.grad(logs)))(at))
    differences = float(first(at + step) - first(at - step)) / (2.0 * step)
    assert abs(second) > 0.05
    assert second == pytest.approx(differences, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "root", "most"),
    [("smooth", 2.0 ** (1 / 3), 18), ("pole", 0.9, 26), ("step", 0.3, 50)],
)
def test_roots_take_fewer_steps_than_halving_and_never_many_more(name, root, most):
    """48 halvings of the bracket; a queue's pole and a step are the hard ones."""
    tried = []

    def function(_, x):
        jax.debug.callback(lambda: tried.append(1))
        value = {
            "smooth": x**3 - 2.0,
            "pole": 1.0 / (1.0 - jnp.minimum(x, 0.999)) - 10.0,
            "step": jnp.where(x < 0.3, -1.0, 1e6),
        }[name]
        return value[None], ()

    x = roots(function, jnp.zeros(()), jnp.asarray(4.0)).x[0]
    jax.effects_barrier()
    assert float(x) == pytest.approx(root, abs=1e-12)
    assert len(tried) <= most


@pytest.mark.parametrize(("limit", "root"), [(0.95, 0.9), (1.9, 1.8)])
def test_no_root_above_a_place_where_another_search_shows_one_below(limit, root):
    """x = 0.9 t(x) with t = 1 below 1 and 2 above has the roots 0.9 and 1.8."""

    def function(p, x):
        return jnp.stack([x - 0.9 * jnp.where(x < 1.0, 1.0, 2.0), x - p]), x

    x, values = roots(function, jnp.asarray(limit), jnp.asarray(2.5))
    np.testing.assert_allclose(x, [root, limit], rtol=1e-12)
    np.testing.assert_allclose(values, x, rtol=1e-12)
