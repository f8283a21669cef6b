"""Kinds of halves that few models have, by closed forms made by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_layers import FULL, JOBS, MIXTURE, PLAIN, TIMES, flop, model, predicted, problem

import cmxjax as cmx
from cmxjax.model.architecture import total_parameters
from cmxjax.work.feed_forward import half_ops
from cmxjax.work.routing import expert_load

MIXED = {key: value for key, value in MIXTURE.items() if key != "kind"}
NARROW = FULL | {"value_dim": 64}


def falls_with_no_size(phase: str, a: Any, path: str) -> None:
    """The gradient of the time over a size of the first mixer is finite and no less than
    zero."""
    p = problem(phase)

    def time(size):
        mixers = (a.mixers[0].replace(**{path: size}), *a.mixers[1:])
        m = cmx.metrics(p.machine, a.replace(mixers=mixers), p.workload, p.layout)
        return getattr(m, TIMES[phase])

    slope = jax.grad(time)(getattr(a.mixers[0], path))
    assert np.isfinite(slope)
    assert slope >= 0.0


def test_values_narrower_than_keys_by_hand():
    """32 query and 8 key heads of 128, values of 64."""
    a = model(**PLAIN | {"attention": NARROW})
    weights = 4096 * (32 * 128 + 8 * (128 + 64) + 32 * 64)
    assert float(a.mixers[0].parameters(4096.0)) == weights
    met = 32 * (128 + 64) * 4096
    assert flop(a, "decode", 16.0) == pytest.approx(2 * (weights + met))
    caches = [
        float(predicted("decode", b).memory_kv_cache_bytes)
        for b in (a, model(**PLAIN | {"attention": FULL}))
    ]
    assert caches[0] / caches[1] == pytest.approx(0.75)


@pytest.mark.parametrize("phase", JOBS)
def test_values_as_wide_as_keys_are_what_is_meant_without_them(phase):
    whole = model(**PLAIN | {"attention": FULL | {"value_dim": 128}})
    plain = predicted(phase, model(**PLAIN | {"attention": FULL}))
    got, expected = (getattr(m, TIMES[phase]) for m in (predicted(phase, whole), plain))
    assert float(got) == float(expected)


@pytest.mark.parametrize("phase", JOBS)
def test_time_grows_smoothly_with_the_width_of_values(phase):
    a = model(**PLAIN | {"attention": NARROW})
    assert jnp.isfinite(total_parameters(a))
    falls_with_no_size(phase, a, "value_dim")


def test_rows_of_an_expert_shrink_by_the_share_of_those_that_compute():
    """Of 96 experts a router chooses 6, and 64 of them compute: 4 on average."""
    p = problem("decode", (), "qwen3-235b-a22b")
    loads = []
    for experts in (MIXED, MIXED | {"topk": 6, "zero": 32}):
        a = model(**PLAIN | {"dense_layers": 0, "experts": experts})
        uniform = p.workload.software.balance
        loads.append(expert_load(a, p.layout, uniform, jnp.zeros(()), jnp.asarray(256.0)))
        router = next(op for op in half_ops(a, 1, True) if op.name == "router")
        assert float(router.columns) == 64.0 + experts.get("zero", 0.0)
    for one, other in zip(*loads, strict=True):
        assert float(one) == pytest.approx(float(other))
