r"""How to split a machine into prefill and decode instances.

Instances of both pools have given layouts; the split is the choice. Of n devices a share
x serves prefill. With p and d the requests per second that a device of either pool
completes within its limits,

$$ \max_x \min(x\,n\,p,\ (1 - x)\,n\,d) \quad\Rightarrow\quad x = \frac{d}{p + d} $$

and whole instances are tried around it. A prefill instance under Poisson arrivals waits
as an M/D/1 queue: at utilization u a batch of S seconds waits $S u / 2(1-u)$ on average,
so what the TTFT limit leaves over for waiting sets the highest utilization.
"""

import math
from typing import NamedTuple

from ..architecture import kv_width
from ..evaluate.limits import Limit, largest
from ..evaluate.predict import predict
from ..hardware import ordered_tiers
from ..specs.errors import SpecError
from ..specs.scenario_file import DecodeScenario, PrefillScenario, Scenario
from ..workload import BYTES
from .serving import model_of


class Instance(NamedTuple):
    """What one instance of a pool does."""

    devices: int
    requests_per_s: float
    """Completed within the limits."""
    latency_s: float
    """TTFT with waiting and the transfer of keys and values, or TPOT."""
    utilization: float
    batch: float
    """Requests, or prompt tokens, on a device at once."""


class Split(NamedTuple):
    """A machine split into whole instances."""

    prefill: int
    decode: int
    """Numbers of instances."""
    requests_per_s: float
    idle_devices: int


class Pools(NamedTuple):
    """The best split and what it is made of."""

    prefill: Instance
    decode: Instance
    share: float
    """Best share of devices in prefill, relaxed."""
    relaxed_requests_per_s: float
    best: Split
    splits: list[Split]
    """Every split with as many instances as fit, by prefill instances."""

    @property
    def gap(self) -> float:
        """What whole instances cost."""
        return 1.0 - self.best.requests_per_s / self.relaxed_requests_per_s


def split_pools(
    prefill: Scenario,
    decode: Scenario,
    devices: int,
    *,
    output_tokens: float | int,
    ttft_limit_s: float = math.inf,
    tpot_limit_s: float = math.inf,
    calibration: str | None = None,
) -> Pools:
    """The split of a machine that completes most requests within the limits.

    Args:
        prefill: scenario of one prefill instance; its prompts are the requests'.
        decode: scenario of one decode instance; its batch is set by the TPOT limit, or
            by memory.
        devices: of the machine.
        output_tokens: that a request generates.

    Raises:
        SpecError: the phases are others, a pool can't meet its limit, or one instance
            of each doesn't fit.
    """
    if not isinstance(prefill, PrefillScenario) or not isinstance(decode, DecodeScenario):
        raise SpecError(
            [
                f"pools: phases {prefill.phase!r} and {decode.phase!r}: give a scenario"
                " of phase 'prefill' and one of phase 'decode'"
            ]
        )
    if not output_tokens > 0.0:
        raise SpecError([f"output_tokens = {output_tokens:g}: must be above 0"])
    first = _prefill(prefill, ttft_limit_s, calibration)
    second = _decode(decode, float(output_tokens), tpot_limit_s, calibration)
    if first.devices + second.devices > devices:
        raise SpecError(
            [
                f"devices = {devices}: a prefill instance of {first.devices} and a decode"
                f" instance of {second.devices} don't fit; use more"
            ]
        )
    p, d = (one.requests_per_s / one.devices for one in (first, second))
    share = d / (p + d)
    splits = []
    for count in range(1, (devices - second.devices) // first.devices + 1):
        others = (devices - count * first.devices) // second.devices
        rate = min(count * first.requests_per_s, others * second.requests_per_s)
        idle = devices - count * first.devices - others * second.devices
        splits.append(Split(count, others, rate, idle))
    best = max(splits, key=lambda split: split.requests_per_s)
    return Pools(first, second, share, share * devices * p, best, splits)


def transfer_s(scenario: PrefillScenario, calibration: str | None = None) -> float:
    """Time to hand a prompt's keys and values to decode over the outermost plane.

    CloudMatrix384 moves them over RDMA, beside the traffic of the supernode's own fabric
    (CloudMatrix-Infer, arXiv 2506.12708, section 3.2). The group that holds a prompt
    sends it together.
    """
    problem = predict(scenario, calibration).problem
    a, w = model_of(problem), scenario.workload
    kv = scenario.dtypes.kv or "bf16"
    tier = ordered_tiers(problem.system)[-1]
    rate = float(tier.bytes_per_s * tier.efficiency / tier.oversubscription)
    group = (scenario.layout.tp or 1) * (scenario.layout.cp or 1)
    size = float(w.prompt_tokens * a.layers * kv_width(a) * BYTES[kv])
    return float(tier.latency_s) + size / (rate * group)


def _prefill(
    scenario: PrefillScenario, limit_s: float, calibration: str | None
) -> Instance:
    prediction = predict(scenario, calibration)
    if prediction.reasons:
        raise SpecError([f"prefill pool: {'; '.join(prediction.reasons)}"])
    found = prediction.values
    hand_over = transfer_s(scenario, calibration)
    bare = found["ttft_s"] + hand_over
    left = limit_s - bare
    if left <= 0.0:
        raise SpecError(
            [
                f"prefill pool: TTFT is {bare:.3g} s without waiting, over the limit of"
                f" {limit_s:.3g} s; use fewer tokens per device or a larger instance"
            ]
        )
    w = scenario.workload
    devices = round(found["tokens_per_s"] / found["tokens_per_s_per_device"])
    batch_s = float(w.tokens_per_device) / found["tokens_per_s_per_device"]
    utilization = 1.0 if math.isinf(left) else 2.0 * left / (batch_s + 2.0 * left)
    rate = utilization * found["tokens_per_s"] / float(w.prompt_tokens)
    latency = math.inf if math.isinf(left) else limit_s
    return Instance(devices, rate, latency, utilization, float(w.tokens_per_device))


def _decode(
    scenario: DecodeScenario,
    output_tokens: float,
    limit_s: float,
    calibration: str | None,
) -> Instance:
    key = "workload.sequences_per_device"
    limits = [] if math.isinf(limit_s) else [Limit("tpot", limit_s)]
    batch = largest(scenario, key, limits, calibration)
    workload = scenario.workload.model_copy(update={"sequences_per_device": batch})
    fixed = scenario.model_copy(update={"workload": workload})
    found = predict(fixed, calibration).values
    devices = round(found["tokens_per_s"] / found["tokens_per_s_per_device"])
    rate = found["tokens_per_s"] / output_tokens
    return Instance(devices, rate, found["tpot_s"], 1.0, batch)
