"""Launch settings of other tools: degrees, tables of options, quoting, refusals."""

import json
import re
import subprocess

import pytest

from cmxjax.interop.emit import emit
from cmxjax.interop.launch import Launch, Options
from cmxjax.interop.stages import layout_string
from cmxjax.interop.tools import ASCEND_KEYS, TOOLS, VLLM
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

DECODE = "deepseek-r1-decode-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
DENSE = "llama-3.1-70b-decode-gb200-nvl72"
PANGU = "pangu-ultra-moe-train-cloudmatrix384"
DEEPSEEK = "deepseek-v3-train-hgx-h800"
GPT = "gpt-3-175b-train-dgx-a100"

PUBLISHED = {"workload.schedule": "1f1b"}
TP4 = {"layout.tp": 4, "layout.dp": 80}
PREFILL_CP = {"layout.tp": 8, "layout.cp": 4, "layout.attention": "tp"}

RUNS = [
    ("megatron", GPT, {}),
    ("megatron", GPT, {"layout.vpp": 2}),
    ("megatron", PANGU, {}),
    ("megatron", DEEPSEEK, {}),
    ("mindspeed", PANGU, {"layout.vpp": 1}),
    ("mindspeed", GPT, {}),
    ("vllm", DECODE, {}),
    ("vllm", DECODE, TP4),
    ("vllm", DENSE, {}),
    ("vllm", PREFILL, {}),
    ("vllm-ascend", DECODE, {}),
    ("vllm-ascend", PREFILL, PREFILL_CP),
    ("sglang", DECODE, TP4),
    ("sglang", DENSE, {}),
    ("sglang", PREFILL, PREFILL_CP),
]


def launched(tool, name, changes) -> Launch:
    return emit(load_scenario(name, changes), tool, "none")


def value(launch: Launch, option: str, default: int = 1) -> int:
    return int(word(launch, option)) if option in launch.arguments else default


def word(launch: Launch, option: str) -> str:
    return launch.arguments[launch.arguments.index(option) + 1]


def words_of(launch: Launch) -> list[str]:
    """What a shell makes of the printed command, each word printed by itself."""
    script = launch.text.replace(launch.tool.program, "printf '%s\\n'")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize(("tool", "name", "changes"), RUNS)
def test_every_option_is_in_the_table_and_survives_the_shell(tool, name, changes):
    launch = launched(tool, name, changes)
    options = [option[0] for option in launch.options]
    assert set(options) <= TOOLS[tool].options
    assert len(set(options)) == len(options)
    assert TOOLS[tool].release in launch.text.splitlines()[0]
    assert words_of(launch) == launch.arguments
    json.dumps(launch.as_json(), allow_nan=False)


@pytest.mark.parametrize(("tool", "name", "changes"), RUNS)
def test_degrees_multiply_to_the_devices(tool, name, changes):
    scenario = load_scenario(name, changes)
    launch = emit(scenario, tool, "none")
    dense = scenario.model[0].startswith(("llama", "gpt"))
    if tool in ("megatron", "mindspeed"):
        split = value(launch, "--tensor-model-parallel-size")
        split *= value(launch, "--pipeline-model-parallel-size")
        split *= value(launch, "--context-parallel-size")
        # Megatron's data parallelism is what is left of the world
        data = scenario.layout.devices / split
        assert data == int(data)
        step = value(launch, "--micro-batch-size") * data
        assert value(launch, "--global-batch-size") % step == 0
        return
    if tool == "sglang":
        world = value(launch, "--tp-size") * value(launch, "--pp-size")
        world *= value(launch, "--dp-size")
        groups = value(launch, "--attn-dp-size") * value(launch, "--attn-cp-size")
        assert value(launch, "--tp-size") % groups == 0
        if not dense:
            assert value(launch, "--tp-size") % value(launch, "--ep-size") == 0
    else:
        world = value(launch, "--tensor-parallel-size")
        world *= value(launch, "--pipeline-parallel-size")
        world *= value(launch, "--data-parallel-size")
        world *= value(launch, "--prefill-context-parallel-size")
    assert world == scenario.layout.devices


def test_requests_are_those_of_a_group_in_vllm_and_of_all_in_sglang():
    # 48 requests a die on 320 dies, tensor parallel over 4
    changes = TP4 | {"workload.sequences_per_device": 48}
    ours = launched("vllm", DECODE, changes)
    assert value(ours, "--max-num-seqs") == 48 * 4
    assert value(ours, "--data-parallel-size") == 80
    # a draft more for each request
    assert value(ours, "--max-num-batched-tokens") == 48 * 4 * 2
    theirs = launched("sglang", DECODE, changes)
    assert value(theirs, "--max-running-requests") == 48 * 320
    assert value(theirs, "--tp-size") == 320


def test_slots_of_shared_experts_are_filled_and_said():
    launch = launched("vllm", DECODE, {})
    balance = word(launch, "--eplb-config")
    # 256 routed experts on 320 dies, one slot each
    assert json.loads(balance) == {"num_redundant_experts": 64}
    assert any("32 ranks' slots for the shared expert" in note for note in launch.notes)


@pytest.mark.parametrize("tool", ["vllm", "vllm-ascend", "sglang"])
def test_experts_are_balanced_only_over_expert_ranks(tool):
    alone = {"layout.devices": 16, "layout.tp": 16, "layout.dp": 1, "layout.ep": 1,
             "layout.etp": 16, "layout.head": None,
             "routing.experts_per_device": 320}  # fmt: skip
    launch = launched(tool, DECODE, alone)
    assert "eplb" not in launch.text.lower()
    assert not any(word.startswith("--ep-") for word in launch.arguments)
    assert not any("shared expert" in note for note in launch.notes)
    assert "eplb" in launched(tool, DECODE, {}).text.lower()


@pytest.mark.parametrize("tool", ["vllm", "vllm-ascend", "sglang"])
def test_sequence_parallel_serving_is_said(tool):
    def said(**changes):
        launch = launched(tool, DECODE, changes)
        return any("along the sequence" in note for note in launch.notes)

    assert said(**TP4, **{"layout.sequence_parallel": True})
    assert not said(**TP4)
    assert not said(**{"layout.sequence_parallel": True})  # nothing to split


def test_a_head_that_ranks_share_is_set_or_said():
    def said(tool, **changes):
        launch = launched(tool, DECODE, changes)
        notes = [note.split(";")[0] for note in launch.notes if "output head" in note]
        options = r"--enable-dp-lm-head|lmhead_tensor_parallel_size.: \d+"
        return notes + re.findall(options, " ".join(launch.arguments))

    lost = "not expressed: an output head that 8 ranks of dp share"
    # 8 ranks, as CloudMatrix-Infer has it
    assert said("vllm-ascend") == ['lmhead_tensor_parallel_size": 8']
    assert said("vllm") == [lost]
    assert said("sglang") == [lost, "--enable-dp-lm-head"]
    for own in ({"layout.head": 1}, TP4):  # a tensor group has it
        assert not said("vllm-ascend", **own)
        assert said("sglang", **own) == ["--enable-dp-lm-head"]
    assert not said("sglang", **{"layout.head": 320})
    with pytest.raises(SpecError, match=r"layout\.head = 8: all 320.*use 1 or 320"):
        launched("sglang", DECODE, {"layout.head": 8})


def test_ascend_takes_its_keys_as_json():
    launch = launched("vllm-ascend", DECODE, {})
    text = word(launch, "--additional-config")
    found = {f"{outer}.{key}" for outer, of in json.loads(text).items() for key in of}
    assert found == ASCEND_KEYS
    assert dict(launch.environment) == {"DYNAMIC_EPLB": "true"}
    assert "--additional-config" not in launched("vllm", DECODE, {}).arguments


def test_copies_of_the_experts_become_engines():
    changes = {
        "layout.ep": 160,
        "layout.edp": 2,
        "routing.experts_per_device": 2,
        "routing.shared_replicas": 32,
        "routing.redundant_experts": 32,
    }
    launch = launched("vllm", DECODE, changes)
    assert value(launch, "--data-parallel-size") == 160
    assert any(note.startswith("2 engines") for note in launch.notes)


def test_uneven_stages_are_written_out():
    launch = launched("megatron", DEEPSEEK, PUBLISHED)
    text = launch.arguments[
        launch.arguments.index("--pipeline-model-parallel-layout") + 1
    ]
    stages = text.split("|")
    assert len(stages) == 16
    assert stages[0] == "Et*4"
    assert stages[-1] == "tmL"
    assert f"'{text}'" in launch.text  # a shell would expand it


def test_virtual_stages_follow_each_other_by_rank():
    launch = launched("megatron", PANGU, {})
    text = launch.arguments[
        launch.arguments.index("--pipeline-model-parallel-layout") + 1
    ]
    chunks = text.split("|")
    counts = [re.search(r"t(?:\*(\d+))?", chunk) for chunk in chunks]
    layers = [int(found[1] or 1) if found else 0 for found in counts]
    assert len(chunks) == 32
    assert sum(layers) == 61
    # 4 layers of a rank as 2 chunks; the last rank has 1 + 0
    assert layers == [2] * 15 + [1] + [2] * 15 + [0]


def test_spare_layers_go_to_the_middle():
    scenario = load_scenario(DEEPSEEK, PUBLISHED)
    layout = scenario.layout.model_copy(update={"pp": 8, "stages": None})
    launch = emit(scenario.model_copy(update={"layout": layout}), "megatron", "none")
    text = launch.arguments[
        launch.arguments.index("--pipeline-model-parallel-layout") + 1
    ]
    # 61 = 8 x 7 + 5, of which the ends take none
    first, *middle, last = text.split("|")
    assert (first, last) == ("Et*7", "t*7mL")
    assert sorted(middle) == ["t*7"] + 5 * ["t*8"]


def test_a_layout_of_stages_without_layers():
    assert layout_string([0, 3, 1, 0], drafts=2) == "E|t*3|t|m*2L"


def test_schedules_that_a_tool_lacks_are_said():
    notes = launched("megatron", DEEPSEEK, {}).notes
    assert any("schedule dualpipe" in note for note in notes)
    notes = launched("megatron", DEEPSEEK, PUBLISHED).notes
    assert not any("schedule" in note for note in notes)


NO_RECOMPUTE = {"workload.recompute": "none", "model.draft_layers": 1}
OVERLAP = "--overlap-moe-expert-parallel-comm"


@pytest.mark.parametrize(
    ("tool", "changes", "said"),
    [
        ("megatron", {}, None),
        ("megatron", {"workload.recompute": 0.5}, "recomputed in full"),
        ("megatron", {"layout.vpp": 1}, "pp > 1 without vpp > 1"),
        ("megatron", {"model.draft_layers": 2}, "more than one draft layer"),
        ("megatron", {"workload.zero": 2}, "FSDP"),
        ("mindspeed", {"layout.vpp": 1}, "dispatch and combine"),
    ],
)
def test_overlapped_micro_batches_are_an_option_or_a_note(tool, changes, said):
    launch = launched(tool, PANGU, NO_RECOMPUTE | changes)
    notes = [note for note in launch.notes if "another micro-batch" in note]
    assert (OVERLAP in launch.arguments) == (said is None)
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    single = NO_RECOMPUTE | changes | {"layout.overlapped_microbatches": 1}
    without = launched(tool, PANGU, single)
    assert OVERLAP not in without.arguments
    assert not any("another micro-batch" in note for note in without.notes)


@pytest.mark.parametrize("count", [1, 2])
def test_a_dense_model_has_no_exchange_to_overlap(count):
    launch = launched("megatron", GPT, {"layout.overlapped_microbatches": count})
    assert OVERLAP not in launch.arguments
    assert not any("another micro-batch" in note for note in launch.notes)


@pytest.mark.parametrize(
    ("recompute", "words"),
    [
        ("none", []),
        ("selective", ["selective"]),
        ("full", ["full", "uniform", "1"]),
        (0.5, ["full", "block", "6"]),
    ],
)
def test_recompute_by_kind_or_layers(recompute, words):
    # 96 layers on 8 stages: 12 each
    changes = {"workload.recompute": recompute, "layout.pp": 8, "layout.vpp": 1}
    launch = launched("megatron", GPT, changes)
    found = [
        word
        for option in launch.options
        if option[0].startswith("--recompute")
        for word in option[1:]
    ]
    assert found == words


@pytest.mark.parametrize(
    ("zero", "option"),
    [(0, None), (1, "--use-distributed-optimizer"), (3, "optim_grads_params")],
)
def test_zero(zero, option):
    words = launched("megatron", GPT, {"workload.zero": zero}).arguments
    for other in ("--use-distributed-optimizer", "optim_grads_params"):
        assert (other in words) == (other == option)


@pytest.mark.parametrize(
    ("tool", "zero", "option"),
    [
        ("megatron", 0, "--ddp-bucket-size"),
        ("megatron", 3, "--suggested-communication-unit-size"),
        ("mindspeed", 1, "--ddp-bucket-size"),
    ],
)
def test_buckets_of_zero(tool, zero, option):
    changes = {"workload.zero": zero, "workload.zero_bucket": 2.5e8}
    launch = launched(tool, GPT, changes | {"workload.zero_prefetch": 2})
    assert value(launch, option) == 250_000_000
    # without it Megatron-LM has a single bucket
    assert ("--overlap-grad-reduce" in launch.arguments) == (zero < 2)
    told = [note for note in launch.notes if "2 buckets or layers" in note]
    assert len(told) == (zero == 3)


@pytest.mark.parametrize(
    ("tool", "name", "changes", "message"),
    [
        ("vllm", GPT, {}, "doesn't run phase 'train'"),
        ("megatron", DECODE, {}, "use vllm, vllm-ascend, sglang"),
        ("vllm", PREFILL, PREFILL_CP, "pin cp=1"),
        ("vllm", DECODE, {"layout.cp": 2, "layout.dp": 160}, "pin cp=1"),
        (
            "vllm",
            DECODE,
            {"layout.etp": 2, "layout.ep": 160, "routing.experts_per_device": 2},
            "pin etp=1",
        ),
        ("megatron", PANGU, {"layout.sequence_parallel": False}, "sequence_parallel"),
        ("mindspeed", GPT, {"workload.zero": 3}, "use 0 or 1"),
        ("mindspeed", PANGU, {}, "vpp"),
        (
            "megatron",
            GPT,
            {"layout.vpp": 2, "workload.global_batch": 60},
            "multiple of pp",
        ),
    ],
)
def test_what_a_tool_cannot_run_is_refused(tool, name, changes, message):
    with pytest.raises(SpecError, match=message):
        launched(tool, name, changes)


def test_an_option_outside_the_table_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="--tp"):
        Options(VLLM).add("--tp", 1)
