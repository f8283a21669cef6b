"""The model answers to each part of the machine as the machine would."""

import jax.numpy as jnp
import numpy as np
import pytest
from jobs import (
    DECODE,
    OVER,
    SHIPPED,
    elasticities,
    inputs_of,
    is_latency,
    is_rate,
    job,
    metrics,
    off_lattice,
    on_machine,
    predict,
    shares,
    time_s,
    with_engines,
)

from cmxjax.parameters import leaf_paths
from cmxjax.specs.build import build
from cmxjax.specs.scenario import validate_scenario

over_jobs = pytest.mark.parametrize("name", OVER)

UB = ("tiers.node.bytes_per_s", "tiers.supernode.bytes_per_s")
EP, DP = 5, 2  # rows of a layout


def with_batch(inputs, sequences, **more):
    system, a, w, layout, theta = inputs
    values = {"sequences_per_device": sequences} | more
    w = w.replace(**{key: jnp.asarray(value, float) for key, value in values.items()})
    return system, a, w, layout, theta


def with_expert_ranks(inputs, splits):
    """Attention data-parallel and experts spread over the given ways of each tier."""
    system, a, w, layout, theta = inputs
    ways = jnp.asarray(splits, float)
    factor = layout.factor.at[DP].set(ways).at[EP].set(ways)
    return system, a, w, layout.replace(factor=factor), theta


def exchange_s(inputs, kind, **factors):
    dotted = {key.replace("__", "."): value for key, value in factors.items()}
    return float(getattr(predict(on_machine(inputs, dotted)), f"{kind}_time_s"))


def slower_links(paths, factor):
    return {path.replace(".", "__"): factor for path in paths}


@pytest.mark.parametrize("kind", ["dispatch", "combine"])
@pytest.mark.parametrize("name", ["mla-decode", "mla-prefill"])
def test_half_the_bandwidth_of_the_unified_bus_slows_dispatch_and_combine(name, kind):
    inputs = job(name)
    before = exchange_s(inputs, kind)
    after = exchange_s(inputs, kind, **slower_links(UB, 0.5))
    assert 1.05 * before < after < 2.0 * before


def test_the_package_link_matters_to_combine_of_eight_ranks_and_not_of_one():
    """On eight ranks one of seven peers is the sibling, over a link of its own."""
    link = {"tiers__package__bytes_per_s": 0.05}
    eight = with_expert_ranks(job("mla-decode"), (2, 4, 1, 1))
    assert exchange_s(eight, "combine", **link) > 1.1 * exchange_s(eight, "combine")
    one = with_expert_ranks(job("mla-decode"), (1, 1, 1, 1))
    assert exchange_s(one, "combine", **link) == exchange_s(one, "combine") == 0.0


def test_a_pair_of_dies_needs_no_bus():
    pair = with_expert_ranks(job("mla-decode"), (2, 1, 1, 1))
    before = exchange_s(pair, "combine")
    assert exchange_s(pair, "combine", **slower_links(UB, 0.1)) == before
    assert exchange_s(pair, "combine", tiers__package__bytes_per_s=0.5) > before


def test_a_group_within_a_node_does_not_use_the_second_level():
    node = with_expert_ranks(job("mla-decode"), (2, 8, 1, 1))
    before = exchange_s(node, "combine")
    second = {
        "tiers__supernode__bytes_per_s": 0.1,
        "tiers__supernode__latency_s": 10.0,
    }
    assert exchange_s(node, "combine", **second) == before
    assert exchange_s(node, "combine", tiers__node__bytes_per_s=0.5) > before


def memory_gain(inputs, sequences, **more):
    """What twice the memory bandwidth takes off a step, as a share of it."""
    before = with_batch(inputs, sequences, **more)
    after = on_machine(before, {"chip.memory_bytes_per_s": 2.0})
    return 1.0 - time_s(after) / time_s(before)


def test_memory_bandwidth_helps_small_batches_of_short_contexts_most():
    """They are bound by reading weights; the arithmetic grows with the batch."""
    none = jnp.zeros(())
    inputs = with_engines(job("mla-decode"), decode_step_s=none, sequence_s=none)
    gains = [memory_gain(inputs, b, kv_tokens=128.0) for b in (1, 16, 64)]
    assert gains[0] > gains[1] > gains[2] > 0.0
    assert gains[0] > 1.5 * gains[2]


def test_memory_bandwidth_helps_large_batches_of_long_contexts_most():
    """With grouped queries the cache, which is read once per request, outgrows all but a
    scheduler that works on every request."""
    inputs = with_engines(job("gqa-decode"), sequence_s=jnp.zeros(()))
    gains = [memory_gain(inputs, b, kv_tokens=8192.0) for b in (1, 16, 64)]
    assert gains[0] < gains[1] < gains[2]


@pytest.mark.parametrize(
    "name",
    [*OVER, *(pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED[1:])],
)
def test_every_elasticity_has_the_right_sign(name):
    slopes = elasticities(off_lattice(job(name), 1))
    assert max(s for path, s in slopes.items() if is_rate(path)) <= 0.0
    assert min(s for path, s in slopes.items() if is_latency(path)) >= 0.0
    assert max(s for p, s in slopes.items() if p.endswith("efficiency")) <= 0.0


def touched(name):
    return {path for path, slope in elasticities(job(name)).items() if slope != 0.0}


def test_a_job_inside_a_supernode_does_not_feel_the_cluster_network():
    for name in ("mla-decode", "mla-prefill", "gqa-prefill"):
        assert not [path for path in touched(name) if path.startswith("tiers.cluster")]


def test_a_job_across_servers_feels_the_cluster_network():
    inputs = job("deepseek-r1-decode-hgx-h800")
    outer = inputs[0].tier_order[-1]
    slower = on_machine(inputs, {f"tiers.{outer}.bytes_per_s": 0.5})
    assert time_s(slower) > 1.2 * time_s(inputs)


@over_jobs
def test_software_that_does_not_run_has_no_effect(name):
    names = job(name)[4].choices
    mode = f"expert_parallel.{names.expert_library}.{names.expert_mode}."
    used = {
        "engines": f"engines.{names.engine}.",
        "collectives": f"collectives.{names.collective_library}.",
        "expert_parallel": mode,
    }
    for path in touched(name):
        family = path.split(".")[0]
        assert path.startswith(used.get(family, path))


def test_a_model_without_shared_experts_spends_no_time_on_them():
    """Qwen3-235B has none; all of its layers are mixtures."""
    inputs = job("every-axis-decode")
    assert inputs[1].experts.shared == 0.0
    seconds, _ = shares(inputs)
    assert sum(s for key, s in seconds.items() if key.startswith("shared.")) == 0.0


def test_a_dense_model_has_no_use_for_expert_parallelism():
    for name in ("gqa-decode", "gqa-prefill"):
        assert not [path for path in touched(name) if path.startswith("expert_parallel")]


def test_data_parallel_attention_has_no_use_for_a_collective_library():
    used = {p for p in touched("mla-decode") if p.startswith("collectives")}
    # but to share the output head
    names = ("start_s", "efficiency")
    assert used == {f"collectives.hccl-serving.{name}" for name in names}


def test_a_cached_prefix_feels_the_link_that_it_comes_over():
    links = {path for path in touched("mla-prefill") if path.startswith("links")}
    assert "links.cpu-pool.bytes_per_s" in links
    assert not [path for path in links if path.startswith("links.vpc")]


@over_jobs
def test_nothing_that_takes_no_time_has_an_effect_on_time(name):
    still = ("power.", "parts.", "endpoints.")
    for path in touched(name):
        assert not path.startswith(still)
        assert path not in ("chip.memory_bytes", "chip.memory_usable_bytes")


@over_jobs
def test_peaks_of_unused_dtypes_have_no_effect(name):
    activation, *others = job(name)[4].choices.dtypes
    used = {activation, *others, "bf16"}
    peaks = {p for p in touched(name) if p.startswith("chip.matrix_flop_per_s")}
    assert peaks <= {f"chip.matrix_flop_per_s.{dtype}" for dtype in used}
    assert f"chip.matrix_flop_per_s.{activation}" in peaks


@over_jobs
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_the_main_rates_all_matter(name, sharpness):
    inputs = job(name)
    tier = "supernode" if name.startswith("mla") or name == "gqa-decode" else "node"
    rates = ("chip.memory_bytes_per_s", "chip.vector_flop_per_s")
    rates += (f"tiers.{tier}.bytes_per_s",)
    dtype, *_ = inputs[4].choices.dtypes
    rates += (f"chip.matrix_flop_per_s.{dtype}",)
    before = time_s(inputs, sharpness)
    for path in rates:
        # a fifth faster in one part is less than a fifth faster in all
        after = time_s(on_machine(inputs, {path: 1.25}), sharpness)
        assert before / 1.25 < after < before * (1.0 - 1e-6), path


@pytest.mark.parametrize("name", DECODE)
@pytest.mark.parametrize("microbatches", ["1", "2", "auto"])
def test_latency_never_falls_when_the_batch_grows(name, microbatches):
    system, a, w, layout, theta = job(name)
    inputs = (system, a, w, layout.replace(microbatches=microbatches), theta)
    steps = [time_s(with_batch(inputs, size)) for size in range(1, 129)]
    assert np.all(np.diff(steps) > 0.0)


def payload_only(name):
    """Dispatch whose time is start-up and bytes: even load, no cost per copy."""
    inputs = job(name, routing__balance="uniform")
    free = {
        f"expert_parallel.cann-ep.low_latency.{kind}_copy_s": 0.0
        for kind in ("dispatch", "combine")
    }
    return on_machine(inputs, free)


@pytest.mark.parametrize("kind", ["dispatch", "combine"])
def test_a_few_tokens_over_many_ranks_are_not_rounded_up(kind):
    """4 tokens x 9 copies over 320 ranks: most peers get nothing from a rank."""
    inputs = payload_only("mla-decode")
    start_s = exchange_s(with_batch(inputs, 1e-9), kind)
    payload_s = [
        exchange_s(with_batch(inputs, tokens), kind) - start_s
        for tokens in (0.5, 1.0, 2.0, 4.0, 64.0)
    ]
    ratios = np.array(payload_s) / payload_s[-1]
    np.testing.assert_allclose(ratios, np.array([0.5, 1, 2, 4, 64]) / 64, rtol=1e-5)


def test_dispatch_sends_one_byte_and_combine_two():
    """7168 int8 and a slot of 512 bytes of scales against 7168 in bf16.

    On memory so fast that reading what combine adds up takes no time, and without the
    random part of a dispatch's sending.
    """
    inputs = payload_only("mla-decode")
    exact = {"expert_parallel.cann-ep.low_latency.spread": 0.0}
    inputs = on_machine(inputs, exact | {"chip.memory_bytes_per_s": 1e6})
    payload_s = {
        kind: exchange_s(with_batch(inputs, 64.0), kind)
        - exchange_s(with_batch(inputs, 1e-9), kind)
        for kind in ("dispatch", "combine")
    }
    ratio = payload_s["combine"] / payload_s["dispatch"]
    np.testing.assert_allclose(ratio, 2 * 7168 / (7168 + 512), rtol=1e-5)


def test_prefill_attention_is_half_a_square():
    """Doubling the prompts' length adds one more half square of attention for each."""
    system, a, w, layout, theta = job("gqa-prefill")
    limits = {"chip.attention_efficiency": 1e-6}  # attention is all that counts

    def batch_s(length):
        longer = w.replace(prompt_tokens=jnp.asarray(length))
        return time_s(on_machine((system, a, longer, layout, theta), limits))

    ratio = batch_s(4096.0) / batch_s(2048.0)
    assert ratio == pytest.approx((4096 + 1) / (2048 + 1), rel=1e-3)
    tokens, width = 1024 * 8, 64 * 128
    pairs = tokens * (2048 + 1) / 2
    flop = 4 * pairs * width / 8 * 80
    rate = 376e12 * float(system.chip.attention_efficiency) * 1e-6
    assert batch_s(2048.0) == pytest.approx(flop / rate, rel=1e-3)


KINDS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "p2p",
    "read",
    "write",
)


def collective_time(system, kind, payload, **factors):
    ranks = 2 if kind in ("p2p", "read", "write") else 32
    raw = {"system": system, "phase": "collective"}
    raw["collective"] = {"kind": kind, "ranks": ranks, "payload_bytes": payload}
    p = build(validate_scenario(raw, "test"), "none")
    rates = {path: factors["rate"] for path in leaf_paths(p.system) if is_rate(path)}
    inputs = on_machine(inputs_of(p), rates)
    return float(metrics(*inputs).time_s)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", ["cloudmatrix384", "gb200-nvl72"])
def test_collectives_answer_to_bandwidth_at_every_size(system, kind):
    """The larger the payload, the closer to in proportion."""
    gains = []
    for payload in (1e3, 1e5, 1e7, 1e11):
        times = [collective_time(system, kind, payload, rate=r) for r in (1.0, 2.0)]
        gains.append(times[0] / times[1])
    assert min(gains) > 1.0
    assert max(gains) <= 2.0 + 1e-9
    assert gains[-1] > 1.95
