"""Goodput with failures: the best interval between checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import DENSE, made

from cmxjax.goodput import best_interval_s, goodput_of, inflation

RESTART = 600.0


@pytest.mark.parametrize("mtbf", [3e3, 1e5, 1e7])
@pytest.mark.parametrize("write", [1.0, 60.0, 900.0])
def test_the_gradient_of_the_wall_clock_vanishes_at_the_best_interval(write, mtbf):
    best = best_interval_s(write, mtbf)
    slope = jax.grad(lambda t: jnp.log(inflation(t, write, RESTART, mtbf)))(best)
    assert abs(float(slope * best)) < 1e-9


def test_the_best_interval_is_a_minimum_found_by_search():
    grid = np.geomspace(1e2, 1e6, 200_001)
    wall = jax.vmap(lambda t: inflation(t, 60.0, RESTART, 1e5))(grid)
    assert float(best_interval_s(60.0, 1e5)) == pytest.approx(
        grid[int(wall.argmin())], rel=1e-3
    )


def test_the_best_interval_tends_to_young_and_daly():
    for ratio, close in ((1e-4, 0.01), (1e-6, 1e-3), (1e-8, 1e-4)):
        young = np.sqrt(2.0 * ratio)
        assert float(best_interval_s(ratio, 1.0)) == pytest.approx(young, rel=close)
    # Daly, equation 37, to higher order
    x = 1e-2
    daly = np.sqrt(2.0 * x) * (1.0 + np.sqrt(x / 2.0) / 3.0 + x / 18.0) - x
    assert float(best_interval_s(x, 1.0)) == pytest.approx(daly, rel=1e-4)


def test_without_failures_only_checkpoints_cost():
    assert float(inflation(1e3, 10.0, 0.0, 1e12)) == pytest.approx(1.01, rel=1e-6)


def test_more_devices_fail_more_often_and_do_less():
    p = made(DENSE, system="dgx-h100")
    machine = p.machine
    runs = [goodput_of(machine, 175e9, d) for d in (64.0, 1024.0, 16384.0)]
    assert float(runs[1].mtbf_s) == pytest.approx(float(runs[0].mtbf_s) / 16.0)
    assert float(runs[2].fraction) < float(runs[1].fraction) < 1.0
    assert float(runs[1].checkpoint_s) < float(runs[0].checkpoint_s)


def test_the_wall_clock_has_gradients_for_everything():
    slopes = jax.grad(
        lambda x: inflation(best_interval_s(x[0], x[2]), *x), allow_int=False
    )(jnp.array([60.0, 600.0, 1e5]))
    assert np.isfinite(slopes).all()
    assert slopes[0] > 0.0
    assert slopes[1] > 0.0
    assert slopes[2] < 0.0
