"""Bad input: every mistake is one line with file, key, value and remedy."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.answers.validate import validate
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.model_load import load_model
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.specs.system_load import Reference, load_system

DECODE = "deepseek-r1-decode-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
DENSE = "llama-3.1-70b-decode-gb200-nvl72"
SERVE = "deepseek-r1-serve-cloudmatrix384"


def complaint(action) -> list[str]:
    """Lines of the SpecError that `action` raises; any other exception fails."""
    with pytest.raises(SpecError) as caught:
        action()
    assert isinstance(caught.value, ValueError)
    lines = str(caught.value).split("\n")
    assert len(set(lines)) == len(lines)
    for line in lines:
        assert line.strip()
        assert not re.search(r"Traceback|pydantic|KeyError|Input should|<class", line), (
            line
        )
        assert len(line) < 1200, line
    return lines


def refuse(action, *parts: str, mistakes: int = 1) -> None:
    """The complaint has so many lines, and holds all the parts."""
    lines = complaint(action)
    for part in parts:
        assert any(part in line for line in lines), (part, lines)
    assert len(lines) == mistakes, lines


def run(scenario: str, changes: dict | None = None):
    return build(load_scenario(scenario, changes), "none", scenario)


@pytest.fixture
def write(tmp_path):
    """Write a file and give its path."""

    def make(content: str | bytes, name: str = "mine.toml") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    """The text with the first place of each old part replaced by its new part."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


# --- Keys set on a shipped scenario

UNKNOWN, NUMBER = "unknown key", "must be a number"

CHANGES = {
    "an unknown key at the top": ({"foo": 1}, ["foo = 1", UNKNOWN]),
    "an unknown workload key": (
        {"workload.kv_token": 5},
        ["workload.kv_token = 5", UNKNOWN],
    ),
    "an unknown layout key": ({"layout.tpp": 2}, ["layout.tpp = 2", UNKNOWN]),
    "an unknown dtypes key": (
        {"dtypes.weigths": "int8"},
        ["dtypes.weigths = 'int8'", UNKNOWN],
    ),
    "an unknown routing key": ({"routing.skw": 1}, ["routing.skw = 1", UNKNOWN]),
    "a key of another phase": (
        {"workload.prompt_tokens": 5},
        ["workload.prompt_tokens = 5", UNKNOWN],
    ),
    "zero": ({"workload.kv_tokens": 0}, ["workload.kv_tokens = 0", "greater than 0"]),
    "a negative number": (
        {"workload.sequences_per_device": -3},
        ["workload.sequences_per_device = -3", "greater than 0"],
    ),
    "NaN": (
        {"workload.kv_tokens": float("nan")},
        ["workload.kv_tokens = nan", "finite number"],
    ),
    "infinity": (
        {"workload.kv_tokens": float("-inf")},
        ["workload.kv_tokens = -inf", "finite number"],
    ),
    "a number beyond float64": (
        {"workload.kv_tokens": 10**400},
        ["workload.kv_tokens = 1000", "at most 1e+30"],
    ),
    "a number too long to print": (
        {"workload.kv_tokens": 10**5000},
        ["workload.kv_tokens", "at most 1e+30"],
    ),
    "text for a number": (
        {"workload.kv_tokens": "many"},
        ["workload.kv_tokens = 'many'", NUMBER],
    ),
    "a truth value for a number": (
        {"workload.kv_tokens": True},
        ["workload.kv_tokens = True", NUMBER],
    ),
    "a list for a number": ({"workload.kv_tokens": [1]}, ["workload.kv_tokens", NUMBER]),
    "a fraction of a device": (
        {"layout.devices": 320.5},
        ["layout.devices = 320.5", "whole number"],
    ),
    "a truth value for a degree": (
        {"layout.pp": True},
        ["layout.pp = True", "whole number"],
    ),
    "no devices": ({"layout.devices": 0}, ["layout.devices = 0", "equal to 1"]),
    "a googol of devices": (
        {"layout.devices": 10**100},
        ["layout.devices", "1000000000"],
    ),
    "a number for a table": ({"layout": 5}, ["layout = 5", "must be a table"]),
    "a number for a name": ({"engine": 5}, ["engine = 5", "must be a string"]),
    "text for a truth value": (
        {"layout.sequence_parallel": "yes"},
        ["layout.sequence_parallel = 'yes'", "true or false"],
    ),
    "an unknown phase": ({"phase": "decoding"}, ["phase = 'decoding'", "decode"]),
    "a list for a phase": ({"phase": ["decode"]}, ["phase", "use one of"]),
    "an unknown system": (
        {"system": "cloudmatrix"},
        ["system = 'cloudmatrix'", "cloudmatrix384", ".toml"],
    ),
    "an unknown model": (
        {"model": "deepseek"},
        ["model = 'deepseek'", "deepseek-r1", ".json"],
    ),
    "an unknown base": ({"system": {"base": "cm"}}, ["system", "cloudmatrix384"]),
    "no base": ({"system": 5}, ["system = 5", "base = NAME"]),
    "no system": ({"system": ""}, ["system = ''", "base = NAME"]),
    "an empty name": ({"engine": ""}, ["engine = ''", "must not be empty"]),
    "an empty table for a number": ({"workload.kv_tokens": {}}, ["kv_tokens", NUMBER]),
    "an empty table for an unknown leaf": (
        {"system": {"base": "cloudmatrix384", "chip": {"foo": {}}}},
        ["system.chip.foo", "no such leaf"],
    ),
    "a number too small to divide by": (
        {"workload.kv_tokens": 1e-300},
        ["workload.kv_tokens = 1e-300", "at least 1e-30"],
    ),
    "an unknown engine": ({"engine": "trtllm"}, ["engine = 'trtllm'", "xdeepserve"]),
    "an unknown alternative": (
        {"system.alternatives": "press"},
        ["system.alternatives = 'press'", "semianalysis"],
    ),
    "a list of alternatives": (
        {"system.alternatives": ["semianalysis"]},
        ["system.alternatives", "use one of", "keynote"],
    ),
    "an unknown dtype": ({"dtypes.kv": "bf17"}, ["dtypes.kv = 'bf17'", "'bf16'"]),
    "a dtype without a peak": (
        {"dtypes.activation": "fp8"},
        ["dtypes.activation = 'fp8'", "no matrix peak", "int8"],
    ),
    "an unknown balance": (
        {"routing.balance": "perfect"},
        ["routing.balance = 'perfect'", "'uniform'"],
    ),
    "an acceptance above 1": (
        {"workload.acceptance": 1.2},
        ["workload.acceptance = 1.2", "from 0 to 1"],
    ),
    "an acceptance of NaN": (
        {"workload.acceptance": float("nan")},
        ["workload.acceptance = nan", "from 0 to 1"],
    ),
    "a wrong acceptance in a list": (
        {"workload.acceptance": [0.5, -0.1]},
        ["workload.acceptance", "from 0 to 1"],
    ),
    "no acceptance": ({"workload.acceptance": []}, ["workload.acceptance", "empty"]),
    "too few acceptances": (
        {"workload.draft_tokens": 3, "workload.acceptance": [0.5, 0.5]},
        ["acceptance: 2 values", "draft_tokens = 3"],
    ),
    "too many drafts": (
        {"workload.draft_tokens": 17},
        ["workload.draft_tokens = 17", "16"],
    ),
    "three micro-batches": (
        {"layout.overlapped_microbatches": 3},
        ["layout.overlapped_microbatches = 3", "'auto'"],
    ),
    "a truth value for micro-batches": (
        {"layout.overlapped_microbatches": True},
        ["layout.overlapped_microbatches = True", "true or false"],
    ),
    "degrees that don't multiply": (
        {"layout.dp": 160},
        ["dp 160", "not devices = 320", "leave one of them out"],
    ),
    "degrees that don't divide": (
        {"layout": {"devices": 320, "tp": 3, "dp": 1}},
        ["tp 3", "devices = 320"],
    ),
    "expert ranks that don't divide": (
        {"layout.ep": 300},
        ["devices = 320", "ep = 300", "change one of them"],
    ),
    "experts that don't divide over the devices": (
        {
            "layout": {"devices": 96, "dp": 96, "ep": None},
            "routing": {
                "redundant_experts": 0,
                "shared_replicas": 0,
                "experts_per_device": None,
            },
        },
        ["256 experts", "ep = 96", "layout.ep = 64 or 128", "redundant_experts = 32"],
    ),
    "experts that don't fill their slots": (
        {"routing.redundant_experts": 16},
        ["256 routed + 16 redundant + 32 shared = 304", "320 slots", "redundant_experts"],
    ),
    "too many slots": (
        {"routing.experts_per_device": 2},
        ["= 320 experts", "640 slots"],
    ),
    "an order that lacks an axis": (
        {"layout.order": "tp-cp-ep-dp"},
        ["layout.order = 'tp-cp-ep-dp'", "tp-cp-ep-dp-pp"],
    ),
    "an order with an unknown axis": (
        {"layout.order": "tp-cp-sp-dp-pp"},
        ["layout.order = 'tp-cp-sp-dp-pp'", "once"],
    ),
    "sp_tp_sp while decoding": (
        {"layout.attention": "sp_tp_sp"},
        ["layout.attention = 'sp_tp_sp'", "prefill", "'tp'"],
    ),
    "an unknown leaf of the system": (
        {"system.chip.hbm_bytes": 1},
        ["system.chip.hbm_bytes = 1", "no such leaf", "cmxjax show"],
    ),
    "a leaf in a wrong unit": (
        {"system.chip.memory_bytes": "128 GB/s"},
        ["system.chip.memory_bytes = '128 GB/s'", "unit of bytes", "GiB"],
    ),
    "a leaf in an unknown unit": (
        {"system.tiers.node.latency_s": "2 usec"},
        ["system.tiers.node.latency_s = '2 usec'", "unit of time", "us"],
    ),
    "a leaf without a number": (
        {"system.tiers.node.latency_s": "us"},
        ["system.tiers.node.latency_s = 'us'", "number"],
    ),
    "a negative leaf": (
        {"system.chip.memory_bytes": -1},
        ["system.chip.memory_bytes = -1", "negative"],
    ),
    "a leaf of NaN": (
        {"system.chip.memory_bytes": float("nan")},
        ["system.chip.memory_bytes = nan", "finite"],
    ),
    "a truth value for a leaf": (
        {"system.chip.memory_bytes": True},
        ["system.chip.memory_bytes = True", NUMBER],
    ),
    "a bandwidth of zero": (
        {"system.tiers.node.bytes_per_s": 0},
        ["system.tiers.node.bytes_per_s = 0", "greater than 0"],
    ),
    "an efficiency of zero": (
        {"system.chip.gemm_efficiency": 0},
        ["system.chip.gemm_efficiency = 0", "greater than 0"],
    ),
    "an efficiency above 1": (
        {"system.chip.gemm_efficiency": "120 %"},
        ["system.chip.gemm_efficiency = '120 %'", "exceed 1"],
    ),
    "a tier of half a device": (
        {"system.tiers.package.size": 0.5},
        ["system.tiers.package.size = 0.5", "at least 1"],
    ),
    "a stream without cores": (
        {"system.expert_parallel.cann-ep.normal.core_share": 1},
        ["core_share = 1", "below 1"],
    ),
    "an unknown leaf of the model": (
        {"model.head": 1},
        ["model.head = 1", "no such leaf", "attention.heads"],
    ),
    "text for a leaf of the model": (
        {"model.layers": "61"},
        ["model.layers = '61'", NUMBER],
    ),
    "more active experts than there are": (
        {"model.experts.topk": 300},
        ["model.experts.topk = 300", "256 routed"],
    ),
    "more dense layers than layers": (
        {"model.dense_layers": 62},
        ["model.dense_layers = 62", "61 layers"],
    ),
    "a key below a number": (
        {"workload.kv_tokens.mean": 1},
        ["workload.kv_tokens.mean = 1", "not a table"],
    ),
    "an assumed key that there is not": (
        {"assumed": ["workload.kv_tokens", "layout.microbatches"]},
        ["assumed", "'layout.microbatches'", "nearest is layout.overlapped_microbatches"],
    ),
    "an endless assumed key": ({"assumed": ["a" * 10**6]}, ["assumed", "no key"]),
    "an empty key": ({"": 1}, [" = 1", UNKNOWN]),
    "a key that ends in a dot": ({"workload.": 1}, ["workload. = 1", UNKNOWN]),
}


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_a_wrong_setting_is_refused(case):
    changes, parts = CHANGES[case]
    refuse(lambda: run(DECODE, changes), DECODE, *parts)


PATHS = {
    "a path with a zero byte": ("a\0/b.toml", ["null byte", "check the path"]),
    "a name that is too long": (f"./{'b' * 900}.toml", ["too long", "check the path"]),
    "a folder": ("./", ["not a file", "name a TOML file"]),
    "a missing file": ("no/such.toml", ["no/such.toml", "no such file", "check"]),
}


@pytest.mark.parametrize("key", ["system", "model"])
@pytest.mark.parametrize("case", PATHS, ids=str)
def test_a_reference_to_no_file_is_refused(case, key):
    path, parts = PATHS[case]
    refuse(lambda: run(DECODE, {key: path}), *parts)


@pytest.mark.parametrize("case", PATHS, ids=str)
def test_a_scenario_that_is_no_file_is_refused(case):
    path, parts = PATHS[case]
    refuse(lambda: run(path), *parts)


def test_keys_of_one_phase_are_unknown_to_another():
    work = {"tokens_per_device": 8, "prompt_tokens": 8}
    changes = {"phase": "prefill", "workload": work}
    keys = ["sequences_per_device", "kv_tokens", "draft_tokens", "acceptance"]
    refuse(lambda: run(DECODE, changes), *keys, UNKNOWN, mistakes=4)


PREFILL_CHANGES = {
    "everything cached": (
        {"workload.cached_fraction": 1.0},
        ["cached_fraction = 1", "nothing is left", "use < 1"],
    ),
    "more than everything cached": (
        {"workload.cached_fraction": 1.5},
        ["workload.cached_fraction = 1.5", "equal to 1"],
    ),
    "an unknown plane": (
        {"workload.cache_plane": "rdma"},
        ["workload.cache_plane = 'rdma'", "'ub'"],
    ),
    "whole requests with tensor parallelism": (
        {"layout.attention": "dp"},
        ["layout.attention = 'dp'", "tp = 1, not 32", "'sp_tp_sp'"],
    ),
    "a decode key": (
        {"workload.kv_tokens": 5},
        ["workload.kv_tokens = 5", UNKNOWN],
    ),
}


@pytest.mark.parametrize("case", PREFILL_CHANGES, ids=str)
def test_a_wrong_prefill_setting_is_refused(case):
    changes, parts = PREFILL_CHANGES[case]
    refuse(lambda: run(PREFILL, changes), PREFILL, *parts)


def test_more_devices_than_the_machine_holds_are_refused():
    changes = {"layout": {"devices": 72 * 910 * 8, "tp": 8}}
    refuse(lambda: run(DENSE, changes), DENSE, "does not fit", "65520 devices in all")


def test_tensor_parallel_beyond_the_machine_names_the_axis():
    changes = {"layout": {"devices": 100_000, "tp": 8, "order": "dp-tp-cp-pp"}}
    refuse(lambda: run(DENSE, changes), DENSE, "does not fit")


# --- Scenario files


def collective(keys: str, system: str = "cloudmatrix384") -> str:
    return f'system = "{system}"\nphase = "collective"\ncollective = {{ {keys} }}\n'


def operator(keys: str) -> str:
    return f'system = "cloudmatrix384"\nphase = "op"\nop = {{ {keys} }}\n'


JOB = """
system = "cloudmatrix384"
model = "llama-3.1-8b"
phase = "decode"
workload = { sequences_per_device = 8, kv_tokens = 1024 }
"""
TOKENS = "tokens_per_rank = 8, hidden = 8, topk = 2"
SCENARIOS = {
    "no phase": ('system = "cloudmatrix384"', ["phase", "missing", "decode"]),
    "no system": ('phase = "system"', ["system", "required key is missing"]),
    "no model": (swapped(JOB, ('model = "llama-3.1-8b"\n', "")), ["model", "missing"]),
    "no workload": (JOB.split("workload")[0], ["workload", "missing"]),
    "no context": (swapped(JOB, (", kv_tokens = 1024", "")), ["workload.kv_tokens"]),
    "a date": (swapped(JOB, ("1024", "2025-06-15")), ["workload.kv_tokens", NUMBER]),
    "a model of an operator": (
        'model = "gpt-3-175b"\n' + operator('kind = "copy", bytes = 8'),
        ["model = 'gpt-3-175b'", UNKNOWN],
    ),
    "devices of a machine without tiers for them": (
        JOB + "layout = { devices = 1000000 }",
        ["layout", "329472 devices in all"],
    ),
    "an unknown collective": (
        collective('kind = "allreduce", ranks = 8'),
        ["collective.kind = 'allreduce'", "'all_reduce'"],
    ),
    "an unknown key of a collective": (
        collective('kind = "all_reduce", ranks = 8, size = 3'),
        ["collective.size = 3", UNKNOWN],
    ),
    "no ranks": (collective('kind = "all_reduce"'), ["collective", "needs ranks"]),
    "half a rank": (
        collective('kind = "all_reduce", ranks = 0.5'),
        ["collective.ranks = 0.5", "whole number"],
    ),
    "both payloads": (
        collective(f'kind = "all_gather", ranks = 8, payload_bytes = 8, {TOKENS}'),
        ["payload_bytes or tokens_per_rank, not both"],
    ),
    "tokens of no size": (
        collective('kind = "all_gather", ranks = 8, tokens_per_rank = 8'),
        ["tokens_per_rank needs hidden"],
    ),
    "a dispatch of nothing": (
        collective('kind = "dispatch", ranks = 8'),
        ["kind = 'dispatch' needs tokens_per_rank, hidden, topk"],
    ),
    "a payload in a wrong unit": (
        collective('kind = "all_gather", ranks = 8, payload_bytes = "8 GB/s"'),
        ["collective.payload_bytes = '8 GB/s'", "unit of bytes", "MiB"],
    ),
    "a payload in an unknown unit": (
        collective('kind = "all_gather", ranks = 8, payload_bytes = "8 Gigs"'),
        ["collective.payload_bytes = '8 Gigs'", "GB"],
    ),
    "a negative payload": (
        collective('kind = "all_gather", ranks = 8, payload_bytes = "-8 GB"'),
        ["collective.payload_bytes = '-8 GB'", "greater than 0"],
    ),
    "a payload of NaN": (
        collective('kind = "all_gather", ranks = 8, payload_bytes = "nan GB"'),
        ["collective.payload_bytes = 'nan GB'"],
    ),
    "an endless payload": (
        collective(f'kind = "all_gather", ranks = 8, payload_bytes = "{"9 " * 50_000}"'),
        ["collective.payload_bytes = '9 9 9", "..."],
    ),
    "an unknown library": (
        collective('kind = "all_gather", ranks = 8, library = "nccl"'),
        ["collective.library = 'nccl'", "hccl"],
    ),
    "a library that does not exchange experts": (
        collective(f'kind = "combine", ranks = 8, {TOKENS}, library = "nccl"'),
        ["collective.library = 'nccl'", "cann-ep"],
    ),
    "an unknown mode": (
        collective(f'kind = "combine", ranks = 8, {TOKENS}, mode = "fast"'),
        ["collective.mode = 'fast'", "'low_latency'"],
    ),
    "cores of a collective that is no exchange": (
        collective('kind = "all_gather", ranks = 8, cores = 8'),
        ["cores: of dispatch and combine, not of 'all_gather'", "leave out"],
    ),
    "fewer experts than a token goes to": (
        collective(f'kind = "combine", ranks = 8, {TOKENS}, experts = 1'),
        ["experts = 1 are fewer than topk = 2", "mend"],
    ),
    "an unknown way to drive a collective": (
        collective('kind = "all_gather", ranks = 8, engine = "dma"'),
        ["collective.engine = 'dma'", "'sdma'"],
    ),
    "an algorithm that the library lacks": (
        collective('kind = "all_reduce", ranks = 8, algorithm = "in_switch"'),
        ["collective.algorithm = 'in_switch'", "direct, ring"],
    ),
    "a tree of a gather": (
        collective('kind = "all_gather", ranks = 8, algorithm = "tree"'),
        ["algorithm = 'tree'", "'all_gather'", "direct, ring, staged"],
    ),
    "an algorithm of a message": (
        collective('kind = "p2p", algorithm = "ring"'),
        ["algorithm", "'p2p'", "leave it out"],
    ),
    "a network that adds up what is gathered": (
        collective('kind = "all_gather", ranks = 8, network_reduces = true'),
        ["network_reduces", "'all_gather'", "leave it out"],
    ),
    "an unknown path": (
        collective('kind = "read", path = "npu-gpu"'),
        ["collective.path = 'npu-gpu'", "'npu-cpu'"],
    ),
    "host memory in a collective of devices": (
        collective('kind = "all_reduce", ranks = 8, path = "npu-cpu"'),
        ["collective: path = 'npu-cpu'", "'all_reduce'", "use 'npu-npu'"],
    ),
    "expert ranks of a dense model": (
        JOB + "layout = { devices = 8, ep = 8 }",
        ["layout.ep = 8", "llama-3.1-8b has no experts", "leave it out"],
    ),
    "split experts of a dense model": (
        JOB + "layout = { devices = 8, etp = 8 }",
        ["layout.etp = 8", "has no experts"],
    ),
    "redundant experts of a dense model": (
        JOB + "routing = { redundant_experts = 8 }",
        ["routing.redundant_experts = 8", "has no experts"],
    ),
    "experts on the devices of a dense model": (
        JOB + "routing = { experts_per_device = 8 }",
        ["routing.experts_per_device = 8", "has no experts"],
    ),
    "uneven stages in serving": (
        JOB + "layout = { devices = 2, pp = 2, stages = [20, 12] }",
        ["layout.stages = '[20, 12]'", "32 layers evenly", "pp = 2", "leave it out"],
    ),
    "interleaved stages in serving": (
        JOB + "layout = { devices = 2, pp = 2, vpp = 4 }",
        ["layout.vpp = 4", "only for phase train", "use 1"],
    ),
    "a scope that the system lacks": (
        collective('kind = "all_gather", ranks = 2, scope = "package"', "gb200-nvl72"),
        ["collective.scope = 'package'", "gb200-nvl72", "supernode"],
    ),
    "an unknown scope": (
        collective('kind = "all_gather", ranks = 2, scope = "rack"'),
        ["collective.scope = 'rack'", "'node'"],
    ),
    "more ranks than a scope joins": (
        collective('kind = "all_gather", ranks = 20, scope = "node"'),
        ["collective.ranks = 20", "node of cloudmatrix384 holds 16", "use fewer"],
    ),
    "more ranks than the machine has": (
        collective('kind = "all_gather", ranks = 10000000'),
        ["collective.ranks = 1e+07", "329472 devices in all", "use fewer"],
    ),
    "a read by many ranks": (
        collective('kind = "read", ranks = 8'),
        ["collective.ranks = 8", "read takes 2"],
    ),
    "an unknown operator": (
        operator('kind = "matmul", m = 8, n = 8, k = 8'),
        ["op.kind = 'matmul'", "'gemm'"],
    ),
    "a GEMM without a shape": (operator('kind = "gemm", m = 8'), ["needs n, k", "add"]),
    "attention without a shape": (
        operator('kind = "attention_decode", heads = 8'),
        ["needs sequences, kv_tokens, head_dim (or latent_dim for MLA)"],
    ),
    "more queries than keys": (
        operator(
            'kind = "attention_prefill", heads = 8, head_dim = 8, sequences = 1,'
            " query_tokens = 80, kv_tokens = 8"
        ),
        ["query_tokens = 80", "kv_tokens = 8"],
    ),
    "more key-value heads than heads": (
        operator(
            'kind = "attention_decode", heads = 8, kv_heads = 9, head_dim = 8,'
            " sequences = 1, kv_tokens = 8"
        ),
        ["kv_heads = 9", "8 heads"],
    ),
    "a vector operator without a size": (
        operator('kind = "vector"'),
        ["needs bytes (or tokens and hidden)"],
    ),
    "a vector operator without a width": (
        operator('kind = "vector", tokens = 8'),
        ["needs hidden"],
    ),
    "a copy of nothing": (operator('kind = "copy"'), ["needs bytes"]),
    "fp8 on a chip without it": (
        operator('kind = "gemm", m = 8, n = 8, k = 8, dtype = "fp8"'),
        ["op.dtype = 'fp8'", "cloudmatrix384 has no matrix peak", "int8"],
    ),
    "fp8 totals of a system without it": (
        'system = "cloudmatrix384"\nphase = "system"\ndtypes = { activation = "fp8" }',
        ["dtypes.activation = 'fp8'", "no matrix peak"],
    ),
    "a line break in a key": (
        '"a\\nb" = 1\nsystem = "cloudmatrix384"\nphase = "system"',
        ["a b = 1", UNKNOWN],
    ),
    "a syntax error": ("system = = 3", ["not valid TOML", "line 1", "column 10"]),
    "a repeated key": (JOB + 'phase = "decode"', ["not valid TOML", "overwrite"]),
    "a number of thousands of digits": ("a = " + "9" * 5000, ["digits"]),
    "lists within lists": ("a = " + "[" * 5000 + "]" * 5000, ["nested too deeply"]),
    "tables within tables": (f"[{'.'.join('a' * 5000)}]\nb = 1", ["nested too deeply"]),
    "an empty file": ("", ["empty", "cmxjax show"]),
    "an empty file with a line break": (" \n", ["empty"]),
    "a binary file": (bytes(range(256)), ["not UTF-8 text", "TOML"]),
    "a file of 17 MiB": (b"#" * (17 * 2**20), ["17825792 bytes", "16777216"]),
}


@pytest.mark.parametrize("case", SCENARIOS, ids=str)
def test_a_wrong_scenario_file_is_refused(write, case):
    content, parts = SCENARIOS[case]
    path = write(content)
    refuse(lambda: run(path), "mine.toml: ", *parts)


@pytest.mark.parametrize("case", SCENARIOS, ids=str)
def test_every_line_about_a_file_starts_with_its_name(write, case):
    path = write(SCENARIOS[case][0])
    assert all(line.startswith(f"{path}: ") for line in complaint(lambda: run(path)))


def test_a_file_that_may_not_be_read_is_refused(write):
    path = write(JOB)
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    refuse(lambda: run(path), "mine.toml", "denied")


def test_a_scenario_that_does_not_ship_is_refused():
    refuse(lambda: run("decode"), "scenario = 'decode'", DECODE, ".toml")


def test_a_byte_order_mark_is_no_mistake(write):
    assert load_scenario(write(b"\xef\xbb\xbf" + JOB.encode())).phase == "decode"


def test_an_unknown_calibration_is_refused():
    scenario = load_scenario(DECODE)
    refuse(lambda: build(scenario, "best"), "calibration = 'best'", "use one of", "none")


@pytest.mark.parametrize(
    ("theta", "parts"),
    [
        ({"chip.foo": 1.0}, ["chip.foo", "no such leaf", "calibrate again"]),
        ({"chip.gemm_efficiency": float("nan")}, ["theta = nan", "finite"]),
        ({"chip.gemm_efficiency": "much"}, ["theta = 'much'", NUMBER]),
    ],
)
def test_a_wrong_calibration_file_is_refused(write, theta, parts):
    leaf, shift = next(iter(theta.items()))
    parameter = {"leaves": [leaf], "theta": shift, "sigma": 0.1, "prior_sigma": 0.4}
    parameter |= {"identified": True, "bic_gain": 0.0, "reason": "known"}
    content = {"name": "fit", "system": "cloudmatrix384", "covariance": [[0.01]]}
    content["parameters"] = {"p": parameter}
    path = write(json.dumps(content), "fit.json")
    refuse(lambda: build(load_scenario(DECODE), path), "fit", *parts)


# --- System files


def figure(value: object, unit: str, source: str = "sheet") -> str:
    return (
        f'{{ value = {value}, unit = "{unit}", source = "{source}", locator = "page 1",'
        ' kind = "published" }'
    )


SYSTEM = f"""
name = "mine"
title = "My machine"
scale_up_tier = "node"

[sources.sheet]
title = "My datasheet"

[chip]
vector_flop_per_s = {figure(10, "TFLOP/s")}
memory_bytes = {figure(64, "GB")}
memory_bytes_per_s = {figure(2, "TB/s")}
matrix_cores = {figure(24, "1")}

[chip.matrix_flop_per_s]
bf16 = {figure(300, "TFLOP/s")}

[[tiers]]
name = "node"
plane = "fabric"
size = {figure(8, "1")}
bytes_per_s = {figure(100, "GB/s")}

[power]
all_in_w = {figure(10, "kW")}
"""


def beside(text: str) -> tuple[str, str]:
    """Put a section in front of the power."""
    return "[power]", f"{text}\n\n[power]"


def alternative(path: str, value: str) -> tuple[str, str]:
    head = '[alternatives.other]\nnote = "x"\nself_consistent = true\n'
    return beside(f'{head}[alternatives.other.set]\n"{path}" = {value}')


MEMORY = figure(64, "GB")
SYSTEMS = {
    "an unknown key": (("[power]", "[power]\nfan_w = 3"), ["power.fan_w = 3", UNKNOWN]),
    "an unknown key at the top": (
        ('name = "mine"', 'name = "mine"\nchips = 8'),
        ["chips = 8", UNKNOWN],
    ),
    "an unknown key of a figure": (
        (MEMORY, MEMORY.replace("unit", 'was = "32 GB", unit')),
        ["chip.memory_bytes.was = '32 GB'", UNKNOWN],
    ),
    "a wrong unit": (
        (MEMORY, figure(64, "GB/s")),
        ["chip.memory_bytes", "'GB/s'", "no unit of bytes", "GiB"],
    ),
    "an unknown unit": (
        (MEMORY, figure(64, "gigabytes")),
        ["chip.memory_bytes.unit = 'gigabytes'", "unknown unit", "GB"],
    ),
    "a peak in bytes": (
        (figure(300, "TFLOP/s"), figure(300, "TB/s")),
        ["chip.matrix_flop_per_s", "bf16.unit = 'TB/s'", "TFLOP/s"],
    ),
    "a negative figure": (
        (MEMORY, figure(-64, "GB")),
        ["chip.memory_bytes.value = -64", "equal to 0"],
    ),
    "no memory": (
        (MEMORY, figure(0, "GB")),
        ["chip.memory_bytes", "value = 0", "greater than 0"],
    ),
    "no bandwidth": (
        (figure(100, "GB/s"), figure(0, "GB/s")),
        ["tiers.0.bytes_per_s", "value = 0", "greater than 0"],
    ),
    "NaN": (
        (MEMORY, figure("nan", "GB")),
        ["chip.memory_bytes.value = nan", "finite number"],
    ),
    "infinity": (
        (MEMORY, figure("inf", "GB")),
        ["chip.memory_bytes.value = inf", "finite number"],
    ),
    "a number beyond all machines": (
        (MEMORY, figure("1e308", "TB")),
        ["chip.memory_bytes.value = 1e+308", "at most"],
    ),
    "text for a number": (
        (MEMORY, figure('"64"', "GB")),
        ["chip.memory_bytes.value = '64'", NUMBER],
    ),
    "a truth value for a number": (
        (MEMORY, figure("true", "GB")),
        ["chip.memory_bytes.value = True", NUMBER],
    ),
    "a bare number for a figure": (
        (MEMORY, "64e9"),
        ["chip.memory_bytes = 64000000000.0", "must be a table"],
    ),
    "no source": (
        (MEMORY, MEMORY.replace('source = "sheet", ', "")),
        ["chip.memory_bytes.source", "required key is missing"],
    ),
    "an unlisted source": (
        (MEMORY, figure(64, "GB", "blog")),
        ["chip.memory_bytes.source = 'blog'", "[sources]", "add it there"],
    ),
    "an empty locator": (
        (MEMORY, MEMORY.replace("page 1", "")),
        ["chip.memory_bytes.locator = ''", "must not be empty"],
    ),
    "an unknown kind": (
        (MEMORY, MEMORY.replace("published", "guessed")),
        ["chip.memory_bytes.kind = 'guessed'", "'assumed'"],
    ),
    "an efficiency above 1": (
        ("[chip]", f"[chip]\ngemm_efficiency = {figure(1.1, '1')}"),
        ["chip.gemm_efficiency", "value = 1.1", "exceed 1"],
    ),
    "a share of 130 percent": (
        beside(f"[collectives.mine]\nefficiency = {figure(130, '%')}"),
        ["collectives.mine.efficiency", "exceed 1"],
    ),
    "an unknown dtype": (("bf16 =", "bf17 ="), ["matrix_flop_per_s.bf17", "'bf16'"]),
    "a missing figure": (
        (f"memory_bytes = {MEMORY}\n", ""),
        ["chip.memory_bytes", "required key is missing"],
    ),
    "a missing name": (('name = "mine"\n', ""), ["name", "required key is missing"]),
    "a tier that is not there": (
        ('scale_up_tier = "node"', 'scale_up_tier = "rack"'),
        ["scale_up_tier = 'rack'", "use one of node"],
    ),
    "a package tier that is not there": (
        ('scale_up_tier = "node"', 'scale_up_tier = "node"\npackage_tier = "die"'),
        ["package_tier = 'die'", "use one of node"],
    ),
    "a default library that is not there": (
        ('scale_up_tier = "node"', 'scale_up_tier = "node"\ndefault_collective = "nccl"'),
        ["default_collective = 'nccl'", "use one of default"],
    ),
    "a default engine that is not there": (
        ('scale_up_tier = "node"', 'scale_up_tier = "node"\ndefault_engine = "vllm"'),
        ["default_engine = 'vllm'", "use one of default"],
    ),
    "tiers of one name": (
        beside(
            f'[[tiers]]\nname = "node"\nplane = "fabric"\nsize = {figure(8, "1")}\n'
            f"bytes_per_s = {figure(100, 'GB/s')}"
        ),
        ["tiers", "names repeat", "node, node"],
    ),
    "an engine name with a dot": (
        beside('[engines."vllm-0.8"]'),
        ["engines.vllm-0.8", "letters, digits"],
    ),
    "a library without modes": (
        beside("[expert_parallel.mine]"),
        ["expert_parallel.mine", "must not be empty"],
    ),
    "an unknown mode": (
        beside("[expert_parallel.mine.fast]"),
        ["expert_parallel.mine.fast", "'low_latency'"],
    ),
    "an engine that exchanges by no library": (
        beside('[engines.vllm]\nexchange = { "0" = "mine" }'),
        ["engines", "vllm.exchange['0'] = 'mine': not in expert_parallel"],
    ),
    "a mode that gathers once for each node": (
        beside('[expert_parallel.mine.normal]\ngathers = true\nplane = "fabric"'),
        ["mine.normal.gathers", "leave it or plane and deduplicates out"],
    ),
    "a mode on no plane": (
        beside('[expert_parallel.mine.normal]\nplane = "rdma"'),
        ["expert_parallel", "mine.normal.plane = 'rdma'", "use one of fabric"],
    ),
    "deduplicated copies on one tier": (
        beside("[expert_parallel.mine.normal]\ndeduplicates = true"),
        ["expert_parallel", "mine.normal.deduplicates", "needs two tiers"],
    ),
    "an unknown endpoint": (beside("[endpoints.gpu]"), ["endpoints.gpu", "'npu'"]),
    "an unknown algorithm": (
        beside('[collectives.mine]\nalgorithms = ["rings"]'),
        ["collectives.mine.algorithms.0 = 'rings'", "'ring'"],
    ),
    "no algorithm": (
        beside("[collectives.mine]\nalgorithms = []"),
        ["collectives.mine.algorithms", "must not be empty"],
    ),
    "an alternative of no leaf": (
        alternative("chip.hbm_bytes", MEMORY),
        ["other.set.chip.hbm_bytes", "no such leaf"],
    ),
    "an alternative in a wrong unit": (
        alternative("chip.memory_bytes", figure(64, "GB/s")),
        ["alternatives.other.set", "chip.memory_bytes.unit = 'GB/s'", "no unit of bytes"],
    ),
    "an alternative from an unlisted source": (
        alternative("chip.memory_bytes", figure(64, "GB", "blog")),
        ["alternatives.other.set.chip.memory_bytes.source = 'blog'", "[sources]"],
    ),
    "a source without a title": (
        ('title = "My datasheet"', 'url = "https://example.com"'),
        ["sources.sheet.title", "required key is missing"],
    ),
    "text for the sources": (
        ('[sources.sheet]\ntitle = "My datasheet"', 'sources = "sheet"'),
        ["sources = 'sheet'", "must be a table"],
    ),
    "a number for the tiers": (
        (SYSTEM[SYSTEM.index("[[tiers]]") : SYSTEM.index("[power]")], "[tiers]\n"),
        ["tiers", "must be a list"],
    ),
}


@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_a_wrong_system_file_is_refused(write, case):
    pair, parts = SYSTEMS[case]
    path = write(swapped(SYSTEM, pair))
    refuse(lambda: load_system(Reference(path)), "mine.toml: ", *parts)


def test_a_tier_name_with_a_dot_is_refused(write):
    path = write(SYSTEM.replace('"node"', '"node.1"'))
    parts = ("tiers.0.name = 'node.1'", "letters, digits")
    refuse(lambda: load_system(Reference(path)), *parts)


def test_the_system_file_of_these_tests_is_right(write):
    assert load_system(Reference(write(SYSTEM))).system.name == "mine"


@pytest.mark.parametrize("section", ["chip", "tiers", "links", "engines", "endpoints"])
@pytest.mark.parametrize("value", ["3", '"a"', "[]", "[3]", "true"])
def test_nonsense_for_a_section_of_a_system_is_refused(write, section, value):
    path = write(f'name = "x"\ntitle = "x"\nscale_up_tier = "x"\n{section} = {value}\n')
    lines = complaint(lambda: load_system(Reference(path)))
    assert any(line.startswith(f"{path}: {section}") for line in lines)


def test_a_tier_that_the_machine_lacks_can_not_be_used(write):
    path = write(SYSTEM)
    job = collective('kind = "read", scope = "supernode"', path)
    parts = ("collective.scope = 'supernode'", "mine has no such tier", "node")
    refuse(lambda: run(write(job, "job.toml")), "job.toml", *parts)


def test_a_link_that_the_machine_lacks_can_not_hold_the_cache(write):
    system = write(SYSTEM)
    job = swapped(
        JOB,
        ('"cloudmatrix384"', f'"{system}"'),
        ('"decode"', '"prefill"'),
        (
            "sequences_per_device = 8, kv_tokens",
            "tokens_per_device = 8192, prompt_tokens",
        ),
        ("1024 }", '1024, cache_plane = "ub" }'),
    )
    parts = ("workload.cache_plane = 'ub'", "mine has no link 'cpu-pool'", "'none'")
    refuse(lambda: run(write(job, "job.toml")), "job.toml", *parts)


# --- Model files

MODEL = """
name = "mine"
title = "My model"
kind = "published"
source = "paper"
locator = "Table 1"
hidden = 512
layers = 8
dense_layers = 1
intermediate = 2048
vocabulary = 32000

[attention]
kind = "grouped_query"
heads = 8
kv_heads = 2
head_dim = 64

[experts]
routed = 16
topk = 2
shared = 1
intermediate = 256

[sources.paper]
title = "A paper"
"""
EXPERTS = MODEL[MODEL.index("[experts]") : MODEL.index("[sources")]
MODELS = {
    "an unknown key": (("layers = 8", "layers = 8\nlayer = 8"), ["layer = 8", UNKNOWN]),
    "a missing key": (("hidden = 512\n", ""), ["hidden", "required key is missing"]),
    "zero": (("hidden = 512", "hidden = 0"), ["hidden = 0", "greater than 0"]),
    "a negative number": (("hidden = 512", "hidden = -1"), ["hidden = -1"]),
    "NaN": (("hidden = 512", "hidden = nan"), ["hidden = nan", "finite number"]),
    "text": (("hidden = 512", 'hidden = "512"'), ["hidden = '512'", NUMBER]),
    "a truth value": (("hidden = 512", "hidden = true"), ["hidden = True", NUMBER]),
    "an unlisted source": (
        ('source = "paper"', 'source = "blog"'),
        ["source = 'blog'", "[sources]"],
    ),
    "an empty locator": (('"Table 1"', '""'), ["locator = ''", "must not be empty"]),
    "more active experts than there are": (
        ("topk = 2", "topk = 17"),
        ["experts.topk = 17", "16 routed experts", "use no more"],
    ),
    "groups that do not divide the experts": (
        ("topk = 2", "topk = 2\ngroups = 5"),
        ["experts.groups = 5", "does not divide 16 routed experts"],
    ),
    "half a group of experts": (
        ("topk = 2", "topk = 2\ngroups = 0.5"),
        ["experts.groups = 0.5", "must be a whole number"],
    ),
    "more groups in use than there are": (
        ("topk = 2", "topk = 2\ngroups = 4\ntopk_groups = 5"),
        ["experts.topk_groups = 5", "there are 4 groups", "use no more"],
    ),
    "more dense layers than layers": (
        ("dense_layers = 1", "dense_layers = 9"),
        ["dense_layers = 9", "8 layers", "use no more"],
    ),
    "more key-value heads than heads": (
        ("kv_heads = 2", "kv_heads = 16"),
        ["attention.kv_heads = 16", "8 heads", "use no more"],
    ),
    "sparse layers without experts": (
        (EXPERTS, ""),
        ["experts", "missing", "dense_layers = layers"],
    ),
    "an unknown attention": (
        ('kind = "grouped_query"', 'kind = "mqa"'),
        ["attention", "kind must be one of", "'latent'"],
    ),
    "attention of no kind": (
        ('kind = "grouped_query"\n', ""),
        ["attention", "kind is missing"],
    ),
}


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_a_wrong_model_file_is_refused(write, case):
    pair, parts = MODELS[case]
    path = write(swapped(MODEL, pair))
    refuse(lambda: load_model(Reference(path)), "mine.toml: ", *parts)


def test_a_number_for_the_attention_of_a_model_is_refused(write):
    table = MODEL[MODEL.index("[attention]") : MODEL.index("[experts]")]
    text = swapped(MODEL, (table, ""), ("hidden", "attention = 3\nhidden"))
    path = write(text)
    refuse(lambda: load_model(Reference(path)), "attention = 3", "must be a table")


def test_the_model_file_of_these_tests_is_right(write):
    assert load_model(Reference(write(MODEL))).file.name == "mine"


# --- Measurement files

ROWS = """
[sources.me]
title = "Mine"

[scenarios.totals]
system = "cloudmatrix384"
phase = "system"

[scenarios.decode]
system = "cloudmatrix384"
model = "deepseek-r1"
phase = "decode"
workload = { sequences_per_device = 48, kv_tokens = 4224 }
layout = { devices = 320 }
routing = { redundant_experts = 32, shared_replicas = 32 }

[[measurements]]
id = "a"
scenario = "totals"
quantity = "memory"
value = 49
unit = "TB"
source = "me"
locator = "page 1"

[[measurements]]
id = "b"
scenario = "decode"
quantity = "tpot"
value = 50
unit = "ms"
source = "me"
locator = "page 2"
"""
A, B = ('scenario = "totals"\nquantity', 'scenario = "decode"\nquantity')
FIRST, SECOND = "measurements[a]", "measurements[b]"


def with_a(text: str) -> tuple[str, str]:
    return A, A.replace("quantity", f"{text}\nquantity")


def with_b(text: str) -> tuple[str, str]:
    return B, B.replace("quantity", f"{text}\nquantity")


MEASUREMENTS = {
    "an unknown key": (with_a("foo = 1"), [FIRST, "foo = 1", UNKNOWN]),
    "an unknown section": (("[sources.me]", "[rows]\n[sources.me]"), ["rows", UNKNOWN]),
    "a repeated id": (('id = "b"', 'id = "a"'), [FIRST, "id repeats", "its own"]),
    "an empty id": (('id = "a"', 'id = ""'), ["id = ''", "must not be empty"]),
    "no id": (('id = "a"\n', ""), ["measurements[0]", "id", "missing"]),
    "an unlisted source": (
        ('source = "me"', 'source = "you"'),
        [FIRST, "source = 'you'", "[sources]"],
    ),
    "no source": (('source = "me"\n', ""), [FIRST, "source", "missing"]),
    "no locator": (('locator = "page 1"\n', ""), [FIRST, "locator", "missing"]),
    "an unknown quantity": (
        ('"tpot"', '"tpots"'),
        [SECOND, "quantity = 'tpots'", "'tpot'"],
    ),
    "a unit of something else": (
        ('unit = "TB"', 'unit = "ms"'),
        [FIRST, "unit = 'ms'", "memory needs", "GB"],
    ),
    "an unknown unit": (
        ('unit = "TB"', 'unit = "terabytes"'),
        [FIRST, "unit = 'terabytes'", "unknown unit", "TB"],
    ),
    "a ratio with a unit": (
        with_b('ratio_to = { "workload.kv_tokens" = 1 }'),
        [SECOND, "unit = 'ms'", "a ratio needs 1"],
    ),
    "zero": (("value = 49", "value = 0"), [FIRST, "value = 0", "greater than 0"]),
    "NaN": (("value = 49", "value = nan"), [FIRST, "value = nan", "finite"]),
    "a truth value": (("value = 49", "value = true"), [FIRST, "value = True", NUMBER]),
    "no uncertainty": (
        with_a("relative_sigma = 0"),
        [FIRST, "relative_sigma = 0", "greater than 0"],
    ),
    "an unknown confidence": (
        with_a('confidence = "D"'),
        [FIRST, "confidence = 'D'", "'A', 'B' or 'C'"],
    ),
    "a stream of which part": (
        ('"tpot"', '"stream_time"'),
        [SECOND, "part", '"attention" or "moe"'],
    ),
    "an unknown part": (with_b('part = "mlp"'), [SECOND, "part = 'mlp'", "'moe'"]),
    "per what": (with_a('per = "npu"'), [FIRST, "per = 'npu'", "'package'"]),
    "a quantity that the phase doesn't predict": (
        ('"tpot"', '"ttft"'),
        [SECOND, "quantity = 'ttft'", "phase decode", "tpot"],
    ),
    "a quantity of the system in a job": (
        ('quantity = "memory"', 'quantity = "tpot"'),
        [FIRST, "unit = 'TB'", "ms"],
    ),
    "per package in a job": (
        with_b('per = "package"'),
        [SECOND, "per = 'package'", "remove it"],
    ),
    "a typo in set": (
        with_b('set = { "workload.kv_token" = 1 }'),
        [SECOND, "workload.kv_token = 1", UNKNOWN],
    ),
    "a typo in ratio_to": (
        ('unit = "ms"', 'unit = "1"\nratio_to = { "workload.kv_token" = 1 }'),
        ["measurements[b] ratio_to", "workload.kv_token = 1", UNKNOWN],
    ),
    "text for set": (with_b('set = "kv"'), [SECOND, "set = 'kv'", "must be a table"]),
    "an unknown leaf in set": (
        with_b('set = { "system.chip.foo" = 1 }'),
        [SECOND, "system.chip.foo = 1", "no such leaf"],
    ),
    "an unknown leaf in ratio_to": (
        ('unit = "ms"', 'unit = "1"\nratio_to = { "system.chip.foo" = 1 }'),
        [SECOND, "system.chip.foo = 1", "no such leaf"],
    ),
    "an unknown system in ratio_to": (
        ('unit = "ms"', 'unit = "1"\nratio_to = { system = "nvl73" }'),
        ["measurements[b] ratio_to", "system = 'nvl73'", "did you mean nvl72?"],
    ),
    "degrees that don't divide in set": (
        with_b('set = { "layout.ep" = 300 }'),
        [SECOND, "ep = 300", "320"],
    ),
    "a typo in a scenario": (
        ("[scenarios.decode]", "[scenarios.decode]\nmodels = 1"),
        ["scenarios.decode", "models = 1", UNKNOWN],
    ),
    "a number for a scenario": (
        (ROWS[ROWS.index("[scenarios.totals]") : ROWS.index("[scenarios.decode]")],
         "[scenarios]\ntotals = 3\n"),
        ["scenarios.totals = 3", "must be a table"],
    ),
    "an unused scenario": (
        ("[scenarios.decode]", '[scenarios.spare]\nphase = "system"\n[scenarios.decode]'),
        ["scenarios.spare", "no measurement uses it", "remove"],
    ),
    "no measurements": (
        (ROWS[ROWS.index("[[measurements]]") :], ""),
        ["measurements", "required key is missing"],
    ),
    "an empty list of measurements": (
        (ROWS[ROWS.index("[sources.me]") :], "measurements = []\n[sources.me]\n"
         'title = "Mine"\n[scenarios.totals]\nsystem = "cloudmatrix384"\n'),
        ["measurements", "must not be empty"],
    ),
    "no sources": (('[sources.me]\ntitle = "Mine"\n', ""), ["sources", "missing"]),
    "an empty file": ((ROWS, ""), ["empty"]),
    "a syntax error": (("value = 49", "value = forty"), ["not valid TOML", "line"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MEASUREMENTS, ids=str)
def test_a_wrong_measurement_file_is_refused(write, case):
    pair, parts = MEASUREMENTS[case]
    path = write(swapped(ROWS, pair))
    refuse(lambda: validate(path, "none"), "mine.toml: ", *parts)


def test_the_measurement_file_of_these_tests_is_right(write):
    assert [row.spec.id for row in load_measurements(write(ROWS))] == ["a", "b"]


def test_a_scenario_that_is_not_there_is_refused(write):
    path = write(swapped(ROWS, ('scenario = "decode"', 'scenario = "prefill"')))
    refuse(
        lambda: load_measurements(path),
        "measurements[b]: scenario = 'prefill': not there; use one of totals, decode",
        "scenarios.decode: no measurement uses it",
        mistakes=2,
    )


def test_a_serving_scenario_of_a_measurement_is_checked_as_well(write):
    work = "workload = { sequences_per_device = 48, kv_tokens = 4224 }"
    serve = "workload = { request_rate = 8, prompt_tokens = 4096, output_tokens = 9 }"
    pools = 'phase = "serve"\npools = [{ role = "cache", devices = 8 }]'
    layout = ("layout = { devices = 320 }", "")
    text = swapped(ROWS, (work, serve), ('phase = "decode"', pools))
    text = swapped(text, layout) if layout[0] in text else text
    assert "don't serve requests" in "\n".join(complaint(lambda: validate(write(text))))


def test_a_mistake_of_a_scenario_is_told_once_however_many_rows_use_it(write):
    row = ROWS[ROWS.rindex("[[measurements]]") :]
    rows = "".join(row.replace('"b"', f'"b{i}"') for i in range(20))
    typo = ("kv_tokens = 4224 }", "kv_tokens = 4224, drafts = 1 }")
    path = write(swapped(ROWS + rows, typo))
    refuse(lambda: load_measurements(path), "scenarios.decode: workload.drafts = 1")


def test_a_measurement_file_that_does_not_ship_is_refused():
    refuse(lambda: validate("cm384"), "measurement = 'cm384'", "cloudmatrix384", ".toml")


# --- Pools


def pool(role, devices=320, **layout):
    return {"role": role, "devices": devices, "layout": layout}


POOLS = {
    "no pools": ({"pools": []}, ["pools", "must not be empty"]),
    "an unknown role": (
        {"pools": [pool("router")]},
        ["pools.0.role = 'router'", "'prefill'"],
    ),
    "no devices": ({"pools.0.devices": 0}, ["pools.0.devices = 0"]),
    "a key that pools don't have": (
        {"pools.0.batch": 8},
        ["pools.0.batch = 8", UNKNOWN],
    ),
    "a pool that isn't there": (
        {"pools.7.devices": 8},
        ["pools.7.devices = 8", "not a table"],
    ),
    "prefill alone": (
        {"pools": [pool("prefill", 32)]},
        ["roles prefill don't serve requests", "decode alone"],
    ),
    "a cache alone": ({"pools": [pool("cache")]}, ["roles cache don't serve"]),
    "decode beside attention": (
        {"pools": [pool("decode"), pool("attention")]},
        ["roles decode, attention don't serve"],
    ),
    "a role twice": (
        {"pools": [pool("decode"), pool("decode")]},
        ["2 of role 'decode'", "join them"],
    ),
    "part of an instance": (
        {"pools.0.devices": 200},
        ["pools[0].devices = 200", "not a multiple", "32 devices", "use 192"],
    ),
    "a layout that doesn't divide": (
        {"pools.1.layout": {"devices": 320, "tp": 3}},
        ["pools[1]", "tp 3 x", "not devices = 320"],
    ),
    "more devices than there are": (
        {"pools.1.devices": 32_000_000},
        ["pools: 32000192 devices", "use fewer"],
    ),
    "a layout of a cache": (
        {"pools": [pool("decode"), pool("cache", 320, tp=2)]},
        ["pools[1].layout", "a cache has none"],
    ),
    "a layout of all pools": (
        {"layout.devices": 320},
        ["layout: each pool has its own", "move it to pools"],
    ),
    "slots of all pools": (
        {"routing.experts_per_device": 1},
        ["routing.experts_per_device = 1", "differs between pools"],
    ),
    "everything cached": (
        {"workload.cached_fraction": 1.0},
        ["cached_fraction = 1", "nothing is left"],
    ),
    "no rate": ({"workload.request_rate": 0}, ["request_rate = 0", "greater than 0"]),
    "a rate as a limit": (
        {"workload.ttft_limit": "5 requests/s"},
        ["ttft_limit = '5 requests/s'", "unit of time"],
    ),
    "an unknown engine of all pools": ({"engine": "trtllm"}, ["engine = 'trtllm'"]),
    "experts of a dense model": (
        {"model": "llama-3.1-8b", "pools": [pool("attention"), pool("expert")]}
        | {"workload.ttft_limit": None},
        ["llama-3.1-8b has no experts", "use decode"],
    ),
    "a limit on what no pool does": (
        {"pools": [pool("attention"), pool("expert")]},
        ["workload.ttft_limit = 5", "no pool computes prompts"],
    ),
    "stages of attention apart": (
        {"pools": [pool("attention", 320, pp=2), pool("expert")]}
        | {"workload.ttft_limit": None},
        ["pools[0].layout.pp = 2", "use 1"],
    ),
}


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_wrong_pools_are_refused(case):
    changes, parts = POOLS[case]
    refuse(lambda: run(SERVE, changes), *parts)


def test_mistakes_of_several_pools_are_told_at_once():
    changes = {"pools.0.devices": 33, "pools.1.layout": {"devices": 320, "ep": 300}}
    refuse(lambda: run(SERVE, changes), "pools[0]", "pools[1]", mistakes=2)


# --- Several mistakes at once


def test_five_mistakes_of_settings_are_told_at_once():
    changes = {
        "workload.kv_tokens": -1,
        "workload.batch": 8,
        "layout.devices": "all",
        "dtypes.weight": "int9",
        "routing.balance": "none",
    }
    refuse(lambda: run(DECODE, changes), *changes, mistakes=5)


def test_five_mistakes_that_need_the_machine_are_told_at_once():
    changes = {
        "engine": "vllm",
        "dtypes.activation": "fp8",
        "dtypes.head": "fp4",
        "layout.order": "tp-dp",
        "layout.dp": 300,
    }
    parts = ["engine = 'vllm'", "activation = 'fp8'", "head = 'fp4'", "order", "dp 300"]
    refuse(lambda: run(DECODE, changes), *parts, mistakes=5)


def test_five_mistakes_of_leaves_are_told_at_once():
    changes = {
        "system.chip.foo": 1,
        "system.chip.memory_bytes": "1 GB/s",
        "system.alternatives": "press",
        "model.foo": 1,
        "model.layers": -1,
    }
    parts = ["chip.foo", "chip.memory_bytes", "alternatives", "model.foo"]
    refuse(lambda: run(DECODE, changes), *parts, mistakes=4)
    del changes["model.foo"]
    refuse(lambda: run(DECODE, changes), "model.layers = -1", mistakes=4)


def test_five_mistakes_of_a_scenario_file_are_told_at_once(write):
    text = swapped(
        JOB,
        ('system = "cloudmatrix384"', 'system = "cm384"'),
        ('model = "llama-3.1-8b"', "model = 8"),
        ("sequences_per_device = 8", "sequences = 8"),
        ("kv_tokens = 1024", "kv_tokens = nan"),
    )
    parts = ["system = 'cm384'", "model = 8", "sequences = 8", "kv_tokens = nan"]
    refuse(lambda: run(write(text)), "sequences_per_device", *parts, mistakes=5)


def test_seven_mistakes_of_a_system_file_are_told_at_once(write):
    text = swapped(
        SYSTEM,
        ('scale_up_tier = "node"', 'scale_up_tier = "rack"'),
        (figure(10, "TFLOP/s"), figure(-10, "TFLOP/s")),
        (MEMORY, figure(64, "GB/s")),
        (figure(2, "TB/s"), figure(2, "TBps")),
        (figure(24, "1"), figure(24, "1", "blog")),
        (figure(8, "1"), figure("nan", "1")),
        ("[power]", "[power]\nfan_w = 3"),
    )
    parts = ["'rack'", "-10", "'GB/s'", "'TBps'", "'blog'", "nan", "fan_w"]
    refuse(lambda: load_system(Reference(write(text))), *parts, mistakes=7)


def test_five_mistakes_of_a_model_file_are_told_at_once(write):
    text = swapped(
        MODEL,
        ('source = "paper"', 'source = "blog"'),
        ("hidden = 512", "hidden = nan"),
        ("dense_layers = 1", "dense_layers = 9"),
        ("kv_heads = 2", "kv_heads = 16"),
        ("topk = 2", "topk = 17"),
    )
    parts = ["'blog'", "hidden = nan", "dense_layers = 9", "kv_heads = 16", "topk = 17"]
    refuse(lambda: load_model(Reference(write(text))), *parts, mistakes=5)


def test_six_mistakes_of_a_measurement_file_are_told_at_once(write):
    text = swapped(
        ROWS,
        ('source = "me"', 'source = "you"'),
        ("value = 49", "value = -49"),
        ('unit = "TB"', 'unit = "W"'),
        ("kv_tokens = 4224", "kv_tokens = 0"),
        with_b('set = { "layout.tpp" = 2 }\nconfidence = "D"'),
    )
    parts = ["'you'", "-49", "'W'", "kv_tokens = 0", "tpp = 2", "confidence = 'D'"]
    refuse(lambda: load_measurements(write(text)), *parts, mistakes=6)


# --- Anything at all

ANYTHING = st.one_of(
    st.sampled_from(["", "a", "a.b", "50 ms", "5 GB", "auto", "fp8", "cloudmatrix384"]),
    st.sampled_from([[], [1], [{}], {}, {"a": 1}, {"base": "gb200-nvl72"}, 10**400]),
    st.booleans(),
    st.floats(),
    st.integers(-2, 400),
    st.text(max_size=8),
)
PLACES = st.sampled_from(
    [
        *("system", "model", "phase", "engine", "assumed", "dtypes", "layout"),
        *("workload.kv_tokens", "workload.draft_tokens", "workload.acceptance"),
        *("layout.devices", "layout.tp", "layout.dp", "layout.ep", "layout.order"),
        *("layout.attention", "layout.overlapped_microbatches", "layout.stages"),
        *("routing.skew", "routing.redundant_experts", "routing.balance"),
        *("system.alternatives", "system.tiers.node.size", "system.chip.foo"),
        *("system.chip.gemm_efficiency", "model.layers", "model.experts", "workload"),
    ]
)


def refusals(action) -> list[str]:
    """Mistakes that the action finds; any other exception fails."""
    try:
        action()
    except SpecError as error:
        return error.mistakes
    return []


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(PLACES | st.text(max_size=4), ANYTHING, min_size=1, max_size=3))
def test_whatever_is_set_the_scenario_builds_or_is_refused(changes):
    assert all(line.strip() for line in refusals(lambda: run(DECODE, changes)))


KEYS = ["kind", "ranks", "payload_bytes", "tokens_per_rank", "hidden", "topk", "dtype"]
KEYS += ["scale_bytes", "mode", "engine", "library", "path", "scope"]
KEYS += ["algorithm", "network_reduces"]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["read", "combine"]), st.dictionaries(st.sampled_from(KEYS), ANYTHING)
)
def test_whatever_a_collective_holds_it_builds_or_is_refused(kind, keys):
    shape = {"ranks": 2, "tokens_per_rank": 8, "hidden": 8, "topk": 2}
    held = {"kind": kind} | (shape if kind == "combine" else {}) | keys
    raw = {"system": "cloudmatrix384", "phase": "collective", "collective": held}
    for line in refusals(lambda: build(validate_scenario(raw, "mine"), "none", "mine")):
        assert line.startswith("mine: ")
