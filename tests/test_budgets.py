"""The size of the program: a warning light for compile time that needs no clock."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from jobs import JOBS, SHIPPED, evaluated, job

from cmxjax.specs.files import shipped

EQUATIONS = 2000


def inner(value):
    """The programs within a parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    if isinstance(value, list | tuple):
        return [program for item in value for program in inner(item)]
    return []


def equations(program) -> int:
    """Equations of a program, those of its loops and inner functions included."""
    return sum(
        1 + sum(equations(p) for value in eqn.params.values() for p in inner(value))
        for eqn in program.eqns
    )


def test_equations_of_inner_programs_are_counted():
    def inner_loop(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: jax.jit(jnp.sin)(y) * 2.0, x)

    flat = jax.make_jaxpr(lambda x: jnp.sin(x) * 2.0)(1.0).jaxpr
    assert equations(flat) == 2
    assert equations(jax.make_jaxpr(inner_loop)(1.0).jaxpr) > 3


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("name", [*JOBS, *SHIPPED])
def test_a_phase_is_a_small_program(name, sharpness):
    program = jax.make_jaxpr(evaluated)(job(name), sharpness).jaxpr
    # a relaxed maximum has more of them
    assert equations(program) < (1.0 if sharpness is None else 1.1) * EQUATIONS


SERVING = [name for name in shipped("scenarios") if "-serve-" in name]


@pytest.mark.parametrize("name", SERVING)
def test_serving_is_no_more_than_its_phases(name):
    """Prefill and decode once each; as much for their queue, at what is served and in the
    loops that find its capacity and percentiles; and half as much for images."""
    inputs = job(name, workload__request_rate=50)
    program = jax.make_jaxpr(evaluated)(inputs).jaxpr
    phases = 3.5 if inputs[2].images is not None else 3.0
    assert equations(program) < phases * EQUATIONS
