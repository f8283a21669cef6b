"""What serving engines do: host, launches, agreement, releases, limits, tensor groups."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import cmxjax as cmx
from cmxjax.machine.resolve import exchange_library, origins, release
from cmxjax.rates.algorithms import direct
from cmxjax.rates.collectives import algorithm_s
from cmxjax.rates.fabric import group_of
from cmxjax.specs.build import build
from cmxjax.specs.calibration_file import Calibration, ScaleSpec
from cmxjax.specs.discrepancy import (
    BEYOND,
    RELEASES,
    UNKNOWN,
    WIDER,
    level_of,
    model_error,
    nodes_of,
)
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.switch import switch
from cmxjax.work.routing import expert_load

DENSE = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "phase": "decode",
    "engine": "vllm",
    "engine_version": "0.11.0",
    "workload": {"sequences_per_device": 4, "kv_tokens": 1024},
    "layout": {"devices": 8, "tp": 8},
}
MIXED = {
    "system": "dgx-h100",
    "model": "qwen3-235b-a22b",
    "phase": "decode",
    "engine": "trtllm",
    "workload": {"sequences_per_device": 4, "kv_tokens": 1024},
    "layout": {"devices": 8, "tp": 8, "ep": 8},
}
LOOP = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "phase": "serve",
    "engine": "vllm",
    "workload": {"concurrency": 32, "prompt_tokens": 1024, "output_tokens": 256},
    "dtypes": {"weight": "fp8", "activation": "fp8", "kv": "fp8"},
    "pools": [{"role": "decode", "devices": 4, "layout": {"devices": 4, "tp": 4}}],
}


def problem(raw, **engine):
    """A job whose engine has some leaves of its own."""
    scenario = load_scenario(raw)
    p = build(scenario, "none")

    def own(machine):
        return machine.replace(runtime=machine.runtime.replace(**engine))

    machine = p.machine
    if isinstance(machine, dict):
        return {role: own(m) for role, m in machine.items()}, p.model, *p[3:5]
    return own(machine), p.model, p.workload, p.layout


def predicted(raw):
    return cmx.predict(load_scenario(raw), calibration="none")


def metrics(raw, **engine):
    return cmx.metrics(*problem(raw, **engine))


def launches(decode, prefill=0.0):
    return {"decode": jnp.asarray(decode), "prefill": jnp.asarray(prefill)}


QUIET = {"sequence_s": 0.0, "agreement_s": 0.0, "launch_s": launches(0.0)}


def step(raw=DENSE, **engine):
    return float(metrics(raw, **(QUIET | engine)).step_time_s)


def test_a_scheduler_adds_to_the_device_or_hides_behind_it():
    bare = step(decode_step_s=0.0)
    for host in (1e-3, 0.1):
        added = step(decode_step_s=host, host_exposed_fraction=1.0)
        assert added == pytest.approx(bare + host, rel=1e-9)
        hidden = step(decode_step_s=host, host_exposed_fraction=0.0)
        assert hidden == pytest.approx(max(bare, host), rel=1e-9)
        part = step(decode_step_s=host, host_exposed_fraction=0.25)
        assert part == pytest.approx(max(bare, host) + 0.25 * min(bare, host), rel=1e-9)


def test_the_host_launches_ahead_of_the_device():
    bare, layers = step(decode_step_s=0.0), 80
    few = step(decode_step_s=0.0, launch_s=launches(0.5 * bare / layers))
    many = step(decode_step_s=0.0, launch_s=launches(2.0 * bare / layers))
    assert few == pytest.approx(bare, rel=1e-9)
    assert many == pytest.approx(2.0 * bare, rel=1e-9)


def test_the_scheduler_works_on_each_sequence_of_a_group():
    sync = {"decode_step_s": 0.0, "host_exposed_fraction": 1.0}
    added = step(sequence_s=1e-4, **sync) - step(**sync)
    assert added == pytest.approx(4 * 8 * 1e-4, rel=1e-9)


@pytest.mark.parametrize(("raw", "doublings"), [(MIXED, True), (DENSE, False)])
def test_ranks_that_share_experts_agree_once_a_doubling(raw, doublings):
    sync = {"decode_step_s": 0.0, "host_exposed_fraction": 1.0}

    def added(ranks):
        layout = {"devices": ranks, "tp": 1, "dp": ranks}
        one = raw | {"layout": layout | ({"ep": ranks} if doublings else {})}
        return step(one, agreement_s=1e-3, **sync) - step(one, **sync)

    for ranks in (2, 8, 32):
        wanted = 1e-3 * math.log2(ranks) if doublings else 0.0
        assert added(ranks) == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_graphs_say_how_a_layer_is_launched():
    system = load_system(Reference("cloudmatrix384")).system
    known = system.engines["vllm-ascend"].launch_s
    raw = DENSE | {
        "system": "cloudmatrix384",
        "engine": "vllm-ascend",
        "layout": {"devices": 16, "tp": 16},
    }
    raw.pop("engine_version")
    for graphs in ("whole", "piecewise", "eager"):
        machine = build(load_scenario(raw | {"graphs": graphs}), "none").machine
        assert float(machine.runtime.launch_s["decode"]) == float(known[graphs])
    default = build(load_scenario(raw), "none").machine
    assert float(default.runtime.launch_s["decode"]) == float(known["piecewise"])


@pytest.mark.parametrize(
    ("model", "dtypes", "kind"),
    [
        ("gpt-oss-120b", {}, "floats"),
        ("kimi-k2.5-int4", {}, "integers"),
        ("kimi-k2.5-nvfp4", {"activation": "nvfp4"}, "plain"),
        ("deepseek-r1", {"weights": {"experts": "int4"}}, "integers"),
    ],
)
def test_kernels_for_experts_are_those_of_their_weights_format(model, dtypes, kind):
    raw = MIXED | {"system": "hgx-b200", "model": model, "dtypes": dtypes}
    choices = build(load_scenario(raw), "none").choices
    known = origins(load_system(Reference("hgx-b200")).system, choices)
    found = [path for path in known if "expert_format_factor" in path]
    assert found == [f"engines.trtllm.expert_format_factor.{kind}"]


def test_factors_of_kernels_for_experts_multiply():
    half = jnp.asarray(0.5)
    ways = {"expert_rate_factor": half}, {"expert_format_factor": {"experts": half}}
    one, other = (step(MIXED, **way) for way in ways)
    assert one == pytest.approx(other, rel=1e-12)
    assert one > step(MIXED)


def test_shares_sum_to_the_step_with_all_that_a_host_does():
    host = {"decode_step_s": 1e-3, "sequence_s": 1e-5, "launch_s": launches(1e-5)}
    m = cmx.explain(*problem(DENSE, host_exposed_fraction=0.3, **host))
    assert sum(m.breakdown.values()) == pytest.approx(float(m.step_time_s), rel=1e-9)


@pytest.mark.parametrize(
    ("version", "entry"),
    [
        ("0.8.5", "vllm"),
        ("0.12.0", "vllm"),
        ("0.14", "vllm-0_14"),
        ("v0.15.1", "vllm-0_14"),
        ("0.19.0rc1", "vllm-0_14"),
        ("nightly-5b8c30d6", "vllm-0_14"),
        ("", "vllm-0_14"),
    ],
)
def test_a_version_is_the_last_release_up_to_it(version, entry):
    system = load_system(Reference("dgx-h100")).system
    assert release(system.engines, "vllm", version) == entry


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine_version": "newest one"}, ["engine_version", "numbers"]),
        ({"engine": None, "engine_version": "0.12"}, ["engine_version", "Add engine"]),
        ({"graphs": "some"}, ["graphs", "piecewise"]),
        ({"limits": {"memory_fraction": 1.5}}, ["memory_fraction"]),
        ({"limits": {"max_batch": 4}}, ["limits.max_batch"]),
    ],
)
def test_what_an_engine_can_not_be_told_is_refused(changes, words):
    raw = {key: value for key, value in (DENSE | changes).items() if value is not None}
    with pytest.raises(SpecError) as caught:
        build(load_scenario(raw), "none")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("system", "engine", "version", "library"),
    [
        ("hgx-b200", "vllm", "", "gather"),  # no option for another
        ("hgx-b200", "sglang", "", "deepep"),
        ("hgx-b200", "trtllm", "1.2", "deepep"),  # has no such kernels here
        ("gb200-nvl72", "trtllm", "1.1", "trtllm"),
        ("gb200-nvl72", "trtllm", "1.2.0rc6", "trtllm-one-sided"),
        ("gb200-nvl72", "trtllm", "", "trtllm-one-sided"),
    ],
)
def test_an_engine_exchanges_tokens_by_its_release(system, engine, version, library):
    loaded = load_system(Reference(system)).system
    assert exchange_library(loaded, engine, version) == library


def test_the_own_library_of_a_system_is_there_before_and_after_another():
    loaded = load_system(Reference("hgx-b200")).system
    ways = (("0", "gather"), ("0.9", "deepep"))
    engine = loaded.engines["vllm"].replace(exchange=ways)
    other = loaded.replace(engines={**loaded.engines, "vllm": engine})
    said = [exchange_library(other, "vllm", version) for version in ("0.8", "0.9", "")]
    assert said == ["gather", "deepep", "deepep"]
    engine = engine.replace(exchange=ways[1:])
    other = loaded.replace(engines={**loaded.engines, "vllm": engine})
    assert exchange_library(other, "vllm", "0.8") == "deepep"


@pytest.mark.slow
def test_a_step_with_data_parallel_ranks_gathers_their_tokens():
    # two ranks: each sends its tokens once, where copies of 8 would go to half of them
    raw = MIXED | {"engine": "vllm", "layout": {"devices": 2, "tp": 1, "dp": 2, "ep": 2}}
    chosen = build(load_scenario(raw)).choices
    assert (chosen.expert_library, chosen.expert_mode) == ("gather", "normal")
    sent = [
        float(cmx.explain(*problem(raw | {"engine": engine})).busy["dispatch.transfer"])
        for engine in ("vllm", "sglang")
    ]
    assert sent[0] < 0.5 * sent[1]


def test_limits_are_refused_where_nothing_serves():
    raw = {
        "system": "dgx-h100",
        "phase": "op",
        "op": {"kind": "copy", "bytes": 1e6},
        "limits": {"max_sequences": 4},
        "graphs": "whole",
    }
    with pytest.raises(SpecError, match=r"limits\.max_sequences.*\n.*graphs"):
        build(load_scenario(raw), "none")


@pytest.mark.slow
def test_an_engine_decodes_no_more_at_once_than_its_limit():
    free = predicted(LOOP)
    held = predicted(LOOP | {"limits": {"max_sequences": 8}})
    assert float(free.sequences_per_device) * 4 > 20
    assert float(held.sequences_per_device) * 4 == pytest.approx(8.0, rel=1e-6)
    assert float(held.tpot_s) < float(free.tpot_s)
    flight = held.served_requests_per_s * held.request_time_s
    assert float(flight) == pytest.approx(32.0, rel=1e-6)  # the others wait


@pytest.mark.slow
def test_an_engine_fills_only_its_share_of_the_memory():
    load = {"concurrency": 5000, "output_tokens": 8192}
    many = LOOP | {"workload": LOOP["workload"] | load}

    def batch(share):
        raw = many | {"limits": {"memory_fraction": share, "max_sequences": 4096}}
        found = predicted(raw)
        return float(found.sequences_per_device), float(found.memory_bytes)

    (few, held), (more, all_of) = batch(0.5), batch(0.9)
    assert few < more
    reported = 1.06901 * 80e9  # by the driver
    assert held == pytest.approx(0.5 * reported, rel=1e-3)
    assert all_of == pytest.approx(0.9 * reported, rel=1e-3)


@pytest.mark.slow
def test_a_chunk_alone_takes_what_riding_along_saves():
    rides = metrics(LOOP, chunk_exposed_fraction=0.0)
    first = metrics(LOOP, chunk_exposed_fraction=1.0)
    assert float(first.tpot_s) > float(rides.tpot_s)
    # the first token comes with the chunk, before the others are decoded
    assert float(first.prefill_time_s) < float(rides.prefill_time_s)


@pytest.mark.slow
def test_ranks_that_share_experts_wait_for_the_chunks_of_others():
    pools = [{"role": "decode", "devices": 8, "layout": {"devices": 8, "dp": 8, "ep": 8}}]
    load = {"prompt_tokens": 2048, "output_tokens": 512, "concurrency": 64}
    job = LOOP | {"model": "qwen3-30b-a3b-fp8", "pools": pools}
    job |= {"workload": LOOP["workload"] | load}
    apart = metrics(job, rank_wait_fraction=0.0)
    waits = metrics(job, rank_wait_fraction=1.0)
    assert float(waits.tpot_s) > 1.2 * float(apart.tpot_s)
    # copies of a dense model wait for nobody
    dense = job | {"model": LOOP["model"]}
    dense |= {"pools": [pools[0] | {"layout": {"devices": 8, "dp": 8}}]}
    one, other = (metrics(dense, rank_wait_fraction=x) for x in (0.0, 1.0))
    assert float(one.tpot_s) == float(other.tpot_s)


@pytest.mark.slow
def test_prompts_come_one_by_one_where_they_are_few():
    """A chunk has the tokens of one prompt, not all that the engine would take."""
    small = LOOP | {"limits": {"max_tokens_per_step": 1024}}
    large = LOOP | {"limits": {"max_tokens_per_step": 65536}}
    one, other = metrics(small), metrics(large)
    # but for those that wait longer, where steps take fewer
    assert float(one.tpot_s) == pytest.approx(float(other.tpot_s), rel=0.01)


# one shot and two, links of a mesh


def nvlink(ranks):
    p = build(load_scenario(DENSE), "none")
    splits = jnp.ones(p.machine.tiers.size.shape).at[0].set(float(ranks))
    return group_of(p.machine.fabric, splits), p.machine.library


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_one_shot_is_a_latency_and_the_whole_buffer_to_each(ranks):
    group, library = nvlink(ranks)
    size, rate = 65536.0, float(group.fabric.rate[0]) * float(library.efficiency)
    only = {name: switch(name == "one_shot") for name in ("direct", "one_shot")}
    library = library.replace(algorithms=only, reduce_efficiency=jnp.asarray(1.0))
    found = float(algorithm_s("all_reduce", group, library, jnp.asarray(size), None))
    latency, step = float(group.fabric.latency_s[0]), float(library.step_s)
    one = latency + (ranks - 1) * size / rate
    two = 2 * latency + step + 2 * (ranks - 1) * size / ranks / rate
    assert found == pytest.approx(min(one, two), rel=1e-12)


def test_small_sums_take_one_shot_and_large_ones_two():
    group, library = nvlink(8)
    library = library.replace(
        algorithms={name: switch(name != "in_switch") for name in library.algorithms}
    )

    def both(size):
        rate = library.reduce_efficiency
        single = direct(group, library, jnp.asarray(size), None).at(rate)
        half = direct(group, library, jnp.asarray(size / 8), None)
        halves = [half.at(rate), half]
        two = sum(c.latency_s + c.wire_s for c in halves) + library.step_s
        found = algorithm_s("all_reduce", group, library, jnp.asarray(size), None)
        return float(single.latency_s + single.wire_s), float(two), float(found)

    one, two, found = both(16e3)
    assert found == pytest.approx(one)
    assert one < two
    one, two, found = both(64e6)
    assert found == pytest.approx(two)
    assert two < one


def test_a_group_smaller_than_a_mesh_has_only_its_own_links():
    """84 of 196 GB/s for four of eight NPUs of an Atlas A2 node, 28 for two."""
    raw = {
        "system": "atlas-800-a2",
        "phase": "collective",
        "collective": {"kind": "all_gather", "ranks": 8, "payload_bytes": "1 GiB"},
    }

    def rate(ranks):
        one = raw | {"collective": raw["collective"] | {"ranks": ranks}}
        fabric = build(load_scenario(one), "none").machine.fabric
        splits = jnp.ones(fabric.rate.shape).at[0].set(float(ranks))
        return float(group_of(fabric, splits).fabric.rate[0] / fabric.rate[0])

    assert rate(8) == pytest.approx(1.0)
    assert rate(4) == pytest.approx(3.0 / 7.0)
    assert rate(2) == pytest.approx(1.0 / 7.0)


# experts on one tensor-parallel group


def test_experts_on_one_tp_group_dispatch_nothing():
    m = cmx.explain(*problem(MIXED))
    assert sum(v for k, v in m.breakdown.items() if k.startswith("dispatch.")) == 0.0
    assert sum(v for k, v in m.busy.items() if k.startswith("combine.")) == 0.0
    apart = MIXED | {"layout": {"devices": 8, "tp": 4, "dp": 2, "ep": 8}}
    m = cmx.explain(*problem(apart))
    assert sum(v for k, v in m.breakdown.items() if k.startswith("dispatch.")) > 0.0


def test_each_layer_of_experts_on_a_tp_group_sums_up_twice():
    """Once for the mixer and once for the experts, as a dense layer does."""
    m = cmx.explain(*problem(MIXED))
    one = cmx.explain(*problem(MIXED | {"layout": {"devices": 8, "tp": 8, "etp": 8}}))
    layers, start = 94, float(build(load_scenario(MIXED), "none").machine.library.start_s)
    for found in (m, one):
        started = float(found.busy["tensor_parallel.start"])
        assert started == pytest.approx(2 * layers * start, rel=1e-9)


def test_copies_are_sorted_and_added_up_where_no_exchange_does_it():
    """Three kernels a layer more than with tp = 1, whose exchanges do their work."""
    chip = build(load_scenario(MIXED), "none").machine.chip
    busy = cmx.explain(*problem(MIXED)).busy
    apart = MIXED | {"layout": {"devices": 8, "tp": 4, "dp": 2, "ep": 8}}
    elsewhere = cmx.explain(*problem(apart)).busy
    more = float(busy["router.launch"] - elsewhere["router.launch"])
    assert more == pytest.approx(94 * 3 * float(chip.vector_launch_s), rel=1e-6)
    # 8 copies of 32 tokens on 8 devices are moved once
    added = (
        94 * 4 * 8 * 4096 * 2.0 / float(chip.memory_bytes_per_s * chip.memory_efficiency)
    )
    assert float(busy["router.memory"] - elsewhere["router.memory"]) > added


def test_shared_experts_beside_the_routed_take_no_launches():
    raw = MIXED | {"model": "deepseek-r1", "system": "hgx-h200"}
    apart, beside = (
        cmx.explain(*problem(raw, shared_launch_fraction=share)) for share in (1.0, 0.0)
    )
    assert float(apart.busy["shared.launch"]) > 0.0
    assert float(beside.busy["shared.launch"]) == 0.0
    for name in apart.busy:
        if name != "shared.launch":
            assert float(apart.busy[name]) == pytest.approx(float(beside.busy[name]))
    saved = float(apart.step_time_s - beside.step_time_s)
    assert 0.0 < saved < float(apart.busy["shared.launch"])


def test_experts_split_or_spread_on_a_tp_group_read_the_same_weights():
    spread = metrics(MIXED | {"routing": {"balance": "uniform"}})
    split = MIXED | {"layout": {"devices": 8, "tp": 8, "etp": 8}}
    split = metrics(split | {"routing": {"balance": "uniform"}})
    assert float(spread.memory_weights_bytes) == pytest.approx(
        float(split.memory_weights_bytes), rel=1e-9
    )
    assert float(spread.step_time_s) == pytest.approx(float(split.step_time_s), rel=0.02)


def load(spread, tokens=8.0):
    p = build(load_scenario(MIXED), "none")
    args = p.model, p.layout, p.workload.software.balance, jnp.asarray(0.0)
    return expert_load(*args, jnp.asarray(tokens), jnp.asarray(spread))


def test_popular_experts_leave_others_without_tokens():
    """8 tokens of each of 8 ranks to 8 of 128 experts: r = 4 a slot."""
    slots, r = 16.0, 4.0
    assert float(load(0.0).active) == pytest.approx(slots * -np.expm1(-r), rel=1e-5)
    assert float(load(1.0).active) == pytest.approx(slots * r / (1.0 + r), rel=1e-5)
    assert float(load(0.5).active) == pytest.approx(
        slots * (1 - (1 + r / 2) ** -2.0), rel=1e-5
    )


def test_a_single_rank_has_no_busiest_one():
    raw = MIXED | {"layout": {"devices": 8, "tp": 8, "etp": 8}}
    typical = metrics(
        raw | {"routing": {"balance": "typical", "skew": 2.0}}, routing_spread=0.0
    )
    random = metrics(raw | {"routing": {"balance": "random"}}, routing_spread=0.0)
    assert float(typical.step_time_s) == pytest.approx(
        float(random.step_time_s), rel=1e-5
    )


# derivatives


def test_gradients_of_a_step_agree_with_differences():
    machine, *job = problem(DENSE, host_exposed_fraction=0.3)

    def seconds(log_host):
        engine = machine.runtime
        moved = engine.replace(
            decode_step_s=engine.decode_step_s * jnp.exp(log_host[0]),
            sequence_s=engine.sequence_s * jnp.exp(log_host[1]),
            host_exposed_fraction=engine.host_exposed_fraction * jnp.exp(log_host[2]),
        )
        return cmx.metrics(machine.replace(runtime=moved), *job).step_time_s

    check_grads(seconds, (jnp.zeros(3),), order=1, modes=["rev"], rtol=1e-4)


# widths


def fitted(**discrepancy):
    levels = {key.replace("__", "/"): value for key, value in discrepancy.items()}
    return Calibration(name="test", system="dgx-h100", discrepancy=levels)


def test_ranks_that_share_the_head_read_a_part_of_it_and_exchange_logits():
    def decode(head):
        few = {"workload.draft_tokens": 0, "workload.sequences_per_device": 2}
        changes = {"layout.head": head, **few}
        name = "deepseek-r1-decode-cloudmatrix384"
        p = build(load_scenario(name, changes), "none")
        return p, cmx.explain(p.machine, p.model, p.workload, p.layout)

    (p, whole), (_, shared) = decode(1), decode(8)
    table = float(p.model.vocabulary * p.model.hidden) * 2.0
    saved = float(whole.memory_weights_bytes - shared.memory_weights_bytes)
    assert saved == pytest.approx(table * 7 / 8)
    # few rows: what is read, an eighth of the columns, decides
    read, part = (m.breakdown["head.memory"] for m in (whole, shared))
    assert 0.1 * read < part < 0.3 * read
    assert "logits.start" not in whole.breakdown
    tokens, library = float(p.workload.sequences_per_device), p.machine.library
    each = tokens * 2.0 * float(p.model.hidden + p.model.vocabulary / 8)
    fabric = p.machine.fabric
    wire = [each / float(fabric.rate[i] * library.efficiency) for i in (0, 1)]
    sent = shared.breakdown["logits.transfer"]
    assert sent >= max(1 * wire[0], 6 * wire[1])
    assert shared.breakdown["logits.start"] == pytest.approx(float(library.start_s))
    tensor = {"layout.head": 2, "layout.tp": 2, "layout.attention": "tp"}
    job = load_scenario("llama-3.1-70b-decode-gb200-nvl72", tensor)
    with pytest.raises(SpecError, match="layout.head = 2: only for decode with whole"):
        build(job, "none")


def test_levels_name_phase_and_engine():
    assert level_of(load_scenario(DENSE), "tpot") == "decode/vllm"
    assert level_of(load_scenario(LOOP), "tpot") == "serve/vllm-0_14"
    assert level_of(load_scenario(LOOP), "ttft") == "first token/vllm-0_14"
    unsaid = {k: v for k, v in DENSE.items() if not k.startswith("engine")}
    assert level_of(load_scenario(unsaid), "tpot") == "decode/sglang"


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({"decode__vllm": 0.1, "serve__vllm": 0.2}, 0.1),
        ({"decode__vllm-0_14": 0.1, "operator": 0.5}, WIDER * 0.1),
        ({"serve__vllm": 0.2, "decode__sglang": 0.1}, WIDER * 0.2),
        ({"decode__sglang": 0.1, "decode__trtllm": 0.15}, WIDER * 0.15),
        ({"phase": 0.07}, 0.07),
        ({"operator": 0.03}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_what_was_never_measured_is_wider_than_what_is_most_alike(known, wanted):
    found = model_error(fitted(**known), load_scenario(DENSE), "tpot")
    assert found == pytest.approx(wanted)


def test_a_release_is_alike_whatever_it_is_called(tmp_path):
    """`turbo` is vLLM's, so vLLM's error stands for it before that of another engine."""
    base = Path(cmx.__file__ or "").parent / "specs/data/systems/dgx-h100.toml"
    text = base.read_text("utf-8")
    own = '[engines.turbo]\nrelease_of = "vllm"\nsince = "99"\n'
    (tmp_path / "own.toml").write_text(f"{text}\n{own}", "utf-8")
    job = DENSE | {"system": str(tmp_path / "own.toml"), "engine_version": "99.1"}
    assert level_of(load_scenario(job), "tpot") == "decode/turbo"
    known = fitted(decode__vllm=0.1, decode__sglang=0.2)
    found = model_error(known, load_scenario(job), "tpot")
    assert found == pytest.approx(WIDER * 0.1)


def test_what_relatives_say_is_not_widened_twice():
    """Of a chip without a calibration their error is wider already."""
    known = fitted(decode__sglang=0.4).model_copy(update={"name": "relatives"})
    assert model_error(known, load_scenario(DENSE), "tpot") == pytest.approx(0.4)


def test_errors_grow_with_the_nodes_of_a_job():
    """As rows left out say up to the largest job among them, and beyond at least so."""
    scale = ScaleSpec(nodes=4.0, most=16.0, growth=0.2)
    known = fitted(train__megatron=0.1).model_copy(
        update={"scales": {"train/megatron": scale}, "system": "dgx-h100"}
    )

    def at(nodes: int, quantity: str = "step_time") -> float:
        job = load_scenario(
            "gpt-3-175b-train-dgx-a100",
            {
                "system": "dgx-h100",
                "engine": "megatron",
                "layout": {"devices": 8 * nodes},
            },
        )
        return model_error(known, job, quantity)

    assert at(4) == pytest.approx(0.1)
    assert at(16) == pytest.approx(0.1 * 4.0**0.2)
    assert at(64) == pytest.approx(0.1 * 4.0**0.2 * 4.0**BEYOND)
    assert at(1) == pytest.approx(0.1 * 4.0**-0.2)
    assert at(64, "memory") == pytest.approx(0.1)


def test_a_job_spans_the_systems_that_its_devices_fill():
    rack = {"phase": "collective", "system": "gb200-nvl72"}
    made = {"kind": "all_reduce", "ranks": 144, "payload_bytes": 1e6}
    assert nodes_of(load_scenario(rack | {"collective": made})) == 2.0
    assert nodes_of(load_scenario(DENSE)) == 1.0
    many = {"layout.devices": 320, "system": "hgx-h800"}
    assert nodes_of(load_scenario("deepseek-r1-decode-cloudmatrix384", many)) == 40.0


def test_a_release_that_is_not_said_is_wider():
    unsaid = {k: v for k, v in DENSE.items() if k != "engine_version"}
    known = fitted(**{"decode__vllm-0_14": 0.1})
    found = model_error(known, load_scenario(unsaid), "tpot")
    assert found == pytest.approx(math.hypot(0.1, RELEASES))


MIXTURE = {
    "system": "gb200-nvl72",
    "model": "qwen3-30b-a3b-fp8",
    "phase": "train",
    "engine": "nemo",
    "layout": {"devices": 8, "ep": 8},
    "workload": {"global_batch": 64, "sequence_tokens": 4096, "precision": "mxfp8"},
}


@pytest.mark.parametrize(
    ("version", "entry"),
    [
        ("25.11", "nemo"),
        ("26.04.01", "nemo"),
        ("26.06", "nemo-26-06"),
        ("26.08", "nemo-26-06"),
        ("main", "nemo-26-06"),
        (None, "nemo"),
    ],
)
def test_a_framework_of_some_version_is_its_release(version, entry):
    job = load_scenario(MIXTURE | ({"engine_version": version} if version else {}))
    assert build(job).choices.trainer == entry
    assert level_of(job, "step_time") == f"train/{entry}"


def test_a_version_of_a_framework_that_is_no_number_is_refused():
    with pytest.raises(
        SpecError, match="engine_version = 'new': must begin with numbers"
    ):
        build(load_scenario(MIXTURE | {"engine_version": "new"}))


def test_a_release_is_of_an_entry_that_is_there(tmp_path):
    own = '[trainers.mine]\nrelease_of = "nemmo"\nsince = "9"\n'
    file = tmp_path / "own.toml"
    file.write_text(f'base = "gb200-nvl72"\n{own}')
    with pytest.raises(SpecError, match="release_of = 'nemmo': not in trainers"):
        load_system(Reference(str(file)))
    file.write_text(
        f'base = "gb200-nvl72"\n{own}'.replace("nemmo", "nemo").replace("9", "x")
    )
    with pytest.raises(SpecError, match="since = 'x': must begin with numbers"):
        load_system(Reference(str(file)))


def test_no_calibration_has_the_priors_alone():
    none = Calibration(name="none", system="dgx-h100")
    assert model_error(none, load_scenario(DENSE), "tpot") == 0.0
