"""One kernel for both exchanges and the experts between them: what hides behind what."""

import math
from typing import Any

import jax.numpy as jnp
import pytest
from jobs import inputs_of, metrics, scaled

from cmxjax.interop.emit import emit
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import validate_scenario, with_overrides

EXPERTS = {"routed": 384, "topk": 6, "intermediate": 3072, "shared": 0, "groups": 1}
EXPERTS |= {"topk_groups": 1}
JOB: dict[str, Any] = {
    "system": "hgx-b200",
    "model": {"base": "deepseek-v3", "draft_layers": 0, "experts": EXPERTS},
    "phase": "decode",
    "engine": "sglang",
    "exchange": "megamoe",
    "workload": {"sequences_per_device": 512, "kv_tokens": 1},
    "layout": {"devices": 8, "tp": 1, "dp": 8, "ep": 8},
    "dtypes": {"weight": "mxfp4", "activation": "fp8", "dispatch": "fp8"},
    "routing": {"balance": "uniform"},
}
"""The benchmark of DeepGEMM, pull request 316."""

EXPOSED = "expert_parallel.megamoe.normal.fused_exposed_fraction"
LINK = "tiers.node.bytes_per_s"
WAIT = "engines.sglang.wait_excess"


def made(**changes: Any):
    return build(validate_scenario(with_overrides(JOB, changes), "test"), "none")


def half_of(tokens: float, **factors: float):
    """Seconds of a mean layer's half with experts, and of both exchanges alone.

    Args:
        factors: of the exposed share, the link's rate and the engine's waiting.
    """
    system, a, w, *rest = inputs_of(made())
    paths = {"exposed": EXPOSED, "link": LINK, "wait": WAIT}
    system = scaled(system, {paths[name]: factor for name, factor in factors.items()})
    w = w.replace(sequences_per_device=jnp.asarray(tokens, float))
    m = metrics(system, a, w, *rest)
    sent = float(m.dispatch_time_s) + float(m.combine_time_s)
    return float(m.moe_stream_time_s), sent


def test_the_longer_of_sending_and_computing_is_what_counts():
    # so slow a link that experts hide behind it, then as it is; nothing exposed, then all
    slow, fast = {"link": 1e-3}, {}
    (hidden, sent_slowly), (whole, sent) = (
        half_of(512, exposed=0.0, **link) for link in (slow, fast)
    )
    (serial_slow, _), (serial, _) = (
        half_of(512, exposed=1.0 / 0.03, **link) for link in (slow, fast)
    )
    # start, latency both ways, the slowest of eight ranks; 1.3 times that in a step
    begun = 1.3 * (67e-6 + 2 * 1e-6 + 3e-6 * math.log(8.0))
    rest = hidden - sent_slowly  # router, norm
    experts = whole - begun - rest
    assert rest > 0.0
    assert experts > sent - begun > 0.0
    assert serial - whole == pytest.approx(sent - begun, rel=1e-6)
    assert serial_slow - hidden == pytest.approx(experts, rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "time_us"), [(1, 108.1), (512, 369.6), (8192, 2818.5), (32768, 10655.2)]
)
def test_published_times_of_the_kernel(tokens, time_us):
    # the kernel by itself, without what a step waits; GEMMs as the data sheet has them
    hidden, sent = half_of(tokens, exposed=0.0, link=1e-3, wait=0.0)
    whole, _ = half_of(tokens, wait=0.0)
    assert whole - (hidden - sent) == pytest.approx(time_us * 1e-6, rel=0.12)


def test_a_job_picks_its_exchange():
    assert made().choices.expert_library == "megamoe"
    assert made(exchange="gather").choices.expert_library == "gather"
    with pytest.raises(SpecError, match="exchange = 'mega'.*megamoe"):
        made(exchange="mega")
    trains = {"phase": "train", "workload": {"global_batch": 64, "sequence_tokens": 4096}}
    trains = JOB | trains | {"engine": "megatron", "dtypes": {}}
    with pytest.raises(SpecError, match="exchange = 'megamoe': one kernel"):
        build(validate_scenario(trains, "test"), "none")
    nccl = build(validate_scenario(trains | {"exchange": "nccl"}, "test"), "none")
    assert nccl.choices.expert_library == "nccl"
    scenario = validate_scenario(JOB, "test")
    assert "--moe-a2a-backend megamoe" in " ".join(emit(scenario, "sglang").arguments)
    assert any("one kernel" in note for note in emit(scenario, "vllm").notes)
