"""Kinds of halves that few models have, by closed forms made by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_layers import (
    FULL,
    JOBS,
    MIXTURE,
    PLAIN,
    SPARSE,
    TIMES,
    flop,
    model,
    predicted,
    problem,
)

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


SPARSE_SHARED = SPARSE | {"indexer": {"topk": 512}}


def test_a_layer_that_shares_an_indexer_has_neither_its_weights_nor_its_work():
    own, shared = (model(**PLAIN | {"attention": at}) for at in (SPARSE, SPARSE_SHARED))
    index = 1024 * 16 * 128 + 4096 * (128 + 16)
    less = own.mixers[0].parameters(4096.0) - shared.mixers[0].parameters(4096.0)
    assert float(less) == index + 2 * 128
    assert float(own.mixers[0].kv_width - shared.mixers[0].kv_width) == 128
    scanned = 16 * 128 * 4096
    # both ranks of a group choose for their own tokens, and project all of them
    expected = 2 * (2 * index + scanned)
    assert flop(own, "decode", 16.0) - flop(shared, "decode", 16.0) == expected
    met = [float(a.mixers[0].seen(4096.0)) for a in (own, shared)]
    assert met == [512.0, 512.0]


def test_keys_that_are_values_save_a_projection_and_are_cached_twice():
    same = FULL | {"projects_values": False}
    own, less = (model(**PLAIN | {"attention": at}) for at in (FULL, same))
    values = 4096 * 8 * 128
    saved = own.mixers[0].parameters(4096.0) - less.mixers[0].parameters(4096.0)
    assert float(saved) == values
    assert flop(own, "decode", 16.0) - flop(less, "decode", 16.0) == 2 * values
    assert float(own.mixers[0].kv_width) == float(less.mixers[0].kv_width)


@pytest.mark.parametrize("phase", JOBS)
@pytest.mark.parametrize("attention", [SPARSE_SHARED, FULL | {"projects_values": False}])
def test_gradients_of_what_is_shared_are_finite(phase, attention):
    falls_with_no_size(phase, model(**PLAIN | {"attention": attention}), "heads")
