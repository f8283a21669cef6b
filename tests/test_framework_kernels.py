"""Kernels and exchanges that a training framework has: biased gates, recurrent layers,
its library for experts, and GEMMs in four bits."""

from typing import Any

import jax
import numpy as np
import pytest

from cmxjax.machine.resolve import machine_of
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.files import DATA
from cmxjax.specs.scenario import validate_scenario
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.step.train_price import _operators, train_job
from cmxjax.work.held import holding_of
from cmxjax.work.table import BIASED_GATE, sizes_by_name

GATE = "trainers.nemo.biased_gate_bytes"
RECURRENT = "trainers.nemo.recurrent_rate_factor"


def scenario(model: str, precision: str = "bf16", engine: str = "nemo", **leaves) -> Any:
    raw = {
        "system": {"base": "gb200-nvl72", **leaves} if leaves else "gb200-nvl72",
        "model": model,
        "phase": "train",
        "engine": engine,
        "workload": {
            "global_batch": 64,
            "micro_batch": 4,
            "sequence_tokens": 4096,
            "precision": precision,
        },
        "layout": {"devices": 8},
    }
    return validate_scenario(raw, "test")


def times(asked: Any, resource: str) -> dict[str, np.ndarray]:
    """Seconds of each operator on one resource, forward and backward, by name."""
    p = build(asked, "none")
    machine = machine_of(p.system, p.choices)
    how = machine.runtime.routing_skew, machine.runtime.stages, None
    holding = holding_of(p.model, p.workload, p.layout, *how)
    found = train_job(machine, p.model, p.workload, p.layout, holding)
    with jax.disable_jit():
        seconds = np.asarray(_operators(found, None)["inputs"][resource])
    return {op.name: seconds[:, i] for i, (_, op) in enumerate(found.ops)}


def test_the_gate_of_biased_experts_moves_its_bytes():
    """16384 tokens x 4 copies x 2880 wide, by hand; backward half as much again."""
    chip = load_system(Reference("gb200-nvl72")).system.chip
    rate = float(chip.memory_bytes_per_s * chip.memory_efficiency)
    asked = scenario("gpt-oss-120b", **{GATE: "100 B"})
    forward, backward = times(asked, "memory")["biased gate"]
    assert forward == pytest.approx(16384 * 4 * 2880 * 100 / rate, rel=0.2)
    assert backward == pytest.approx(1.5 * forward, rel=1e-12)


@pytest.mark.parametrize(("model", "bytes_"), [("gpt-oss-120b", 100.0), ("glm-5", 0.0)])
def test_experts_without_biases_have_no_such_gate(model, bytes_):
    p = build(scenario(model), "none")
    sizes = sizes_by_name(p.model, p.workload.software.sizes, gate_bytes=100.0)
    assert float(sizes[BIASED_GATE]) == bytes_


def test_recurrent_kernels_have_a_rate_of_their_own():
    """Twice the rate, half the time, of the scan and of nothing else."""
    model = "nemotron-3-nano-30b"
    slow, fast = (times(scenario(model, **{RECURRENT: x}), "memory") for x in (0.4, 0.8))
    for name, ratio in (("chunk states", 2.0), ("norm", 1.0), ("experts down", 1.0)):
        np.testing.assert_allclose(slow[name] / fast[name], ratio, rtol=1e-12)


def test_a_framework_brings_its_library_of_exchanges():
    usual = scenario("gpt-oss-120b")
    assert build(usual, "none").choices.expert_library == "hybrid-ep-kernel"
    said = usual.model_copy(update={"exchange": "deepep"})
    assert build(said, "none").choices.expert_library == "deepep"
    other = scenario("gpt-oss-120b", engine="megatron")
    assert build(other, "none").choices.expert_library == "deepep"


def test_a_library_that_is_not_there_is_named(tmp_path):
    text = (DATA / "systems" / "gb200-nvl72.toml").read_text("utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace('exchange = "hybrid-ep-kernel"', 'exchange = "none"'))
    with pytest.raises(SpecError, match="not in expert_parallel"):
        load_system(Reference(str(path)))


def test_gemms_in_four_bits_take_half_the_time_of_eight():
    """At equal efficiencies: Blackwell's peaks are 5 and 10 PFLOP/s."""
    even = {"chip.eight_bit_efficiency": 0.8, "chip.four_bit_efficiency": 0.8}
    eight, four = (
        times(scenario("llama-3.1-8b", precision, **even), "matrix")["dense up"]
        for precision in ("mxfp8", "nvfp4")
    )
    np.testing.assert_allclose(eight / four, 2.0, rtol=1e-12)
