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

QUICK = [
    pytest.param(phase, marks=pytest.mark.slow if phase == "train" else ())
    for phase in JOBS
]

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


@pytest.mark.parametrize("phase", QUICK)
def test_values_as_wide_as_keys_are_what_is_meant_without_them(phase):
    whole = model(**PLAIN | {"attention": FULL | {"value_dim": 128}})
    plain = predicted(phase, model(**PLAIN | {"attention": FULL}))
    got, expected = (getattr(m, TIMES[phase]) for m in (predicted(phase, whole), plain))
    assert float(got) == float(expected)


@pytest.mark.parametrize("phase", QUICK)
def test_time_grows_smoothly_with_the_width_of_values(phase):
    a = model(**PLAIN | {"attention": NARROW})
    assert jnp.isfinite(total_parameters(a))
    falls_with_no_size(phase, a, "own_value_dim")


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


@pytest.mark.parametrize("phase", QUICK)
@pytest.mark.parametrize("attention", [SPARSE_SHARED, FULL | {"projects_values": False}])
def test_gradients_of_what_is_shared_are_finite(phase, attention):
    falls_with_no_size(phase, model(**PLAIN | {"attention": attention}), "heads")


BLOCKS = {
    "kind": "compressed",
    "heads": 64,
    "head_dim": 512,
    "query_rank": 1024,
    "output_groups": 8,
    "output_rank": 1024,
    "window": 128,
    "ratio": 128,
}
CHOSEN = BLOCKS | {
    "ratio": 4,
    "overlapping": True,
    "indexer": {"heads": 64, "head_dim": 128, "topk": 512},
}
ALONE = {key: value for key, value in BLOCKS.items() if key != "ratio"}


@pytest.mark.parametrize(
    ("attention", "met", "kept"),
    [
        (ALONE, 128.0, 128 * 512),
        (BLOCKS, 128.0 + 4096 / 128, (128 + 4096 / 128) * 512),
        (CHOSEN, 128.0 + 512.0, 128 * 512 + 4096 / 4 * (512 + 128)),
    ],
    ids=["window", "blocks", "chosen"],
)
def test_compressed_attention_meets_a_window_and_entries_of_blocks(attention, met, kept):
    """Of a context of 4096 tokens; keys are values, so an entry is cached once."""
    a = model(**PLAIN | {"attention": attention})
    mixer = a.mixers[0]
    assert float(mixer.seen(4096.0)) == met
    assert float(mixer.kept(4096.0) * mixer.kv_width) == kept
    held = float(predicted("decode", a).memory_kv_cache_bytes)
    assert held == pytest.approx(32 * 32 * kept * 2.0)  # each rank of two holds it all
    grown = float(mixer.kept(8192.0) - mixer.kept(4096.0)) * 512 / 4096
    assert float(mixer.grown) == pytest.approx(grown)


@pytest.mark.parametrize("attention", [ALONE, BLOCKS, CHOSEN], ids=len)
def test_flop_of_compressed_attention_by_hand(attention):
    """Both ranks of a group project all of its tokens down, and choose for their own."""
    a = model(**PLAIN | {"attention": attention})
    series = 0 if "ratio" not in attention else 2 if "indexer" in attention else 1
    down = 4096 * (1024 + 512 + 2 * series * 512)
    up, out = 1024 * 64 * 512, 64 * 512 * 1024 + 8 * 1024 * 4096
    met = 64 * 2 * 512 * float(a.mixers[0].seen(4096.0))
    index = scanned = 0
    if series == 2:
        index = 1024 * 64 * 128 + 4096 * (4 * 128 + 64)
        scanned = 64 * 128 * 4096 / 4
    assert float(a.mixers[0].parameters(4096.0)) == down + up + out + index
    expected = 2 * down + up + out + met + 2 * index + scanned
    assert flop(a, "decode", 16.0) == pytest.approx(2 * expected)


@pytest.mark.parametrize(("start", "end"), [(0, 50), (0, 300), (1000, 9000)])
def test_the_mean_of_chosen_entries_is_that_of_all_places(start, end):
    mixer = model(**PLAIN | {"attention": CHOSEN}).mixers[0]
    places = np.arange(start + 1, end + 1)
    seen = np.minimum(places, 128) + np.minimum(places / 4, 512)
    assert float(mixer.mean_seen(float(start), float(end))) == pytest.approx(seen.mean())


@pytest.mark.parametrize("phase", QUICK)
@pytest.mark.parametrize("path", ["heads", "share", "query_rank"])
def test_time_grows_smoothly_with_the_sizes_of_compressed_attention(phase, path):
    falls_with_no_size(phase, model(**PLAIN | {"attention": CHOSEN}), path)


@pytest.mark.parametrize("phase", QUICK)
def test_compressed_attention_takes_less_time_than_its_multi_query_twin(phase):
    full = {"kind": "grouped_query", "heads": 64, "kv_heads": 1, "head_dim": 512}
    p = problem(phase)  # as where matrix units take chosen entries as they are gathered
    chip = p.machine.chip.replace(gather_passes=jnp.zeros(()))
    machine, times = p.machine.replace(chip=chip), []
    for at in (ALONE, BLOCKS, CHOSEN, full):
        a = model(**PLAIN | {"attention": at})
        m = cmx.metrics(machine, a, p.workload, p.layout)
        times.append(float(getattr(m, TIMES[phase])))
    assert times == sorted(times)


@pytest.mark.parametrize("phase", QUICK)
def test_chosen_entries_take_longer_where_they_are_moved_again(phase):
    p, times = problem(phase), []
    for passes in (0.0, 2.0):
        chip = p.machine.chip.replace(gather_passes=jnp.asarray(passes))
        at = p.machine.replace(chip=chip), model(**PLAIN | {"attention": CHOSEN})
        times.append(float(getattr(cmx.metrics(*at, p.workload, p.layout), TIMES[phase])))
    assert times[1] > times[0]
