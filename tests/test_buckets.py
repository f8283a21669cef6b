"""Buckets of ZeRO and what is gathered ahead: closed forms, limits, memory."""

import jax.numpy as jnp
import pytest
from jobs import explain, scaled
from test_train import DENSE, holding_at, made, zero

from cmxjax import smooth
from cmxjax.specs.errors import SpecError
from cmxjax.work.buckets import exposed_of

EVERYTHING = 1e13  # more parameters than any stage has
ALONE = {**DENSE, "layout": {"devices": 64, "tp": 1}}
ALONE["workload"] = {**DENSE["workload"], "global_batch": 128}
"""The jobs of `zero`."""

SERIAL = {"trainers.megatron.data_exposed_fraction": 5.0}
"""Of 0.2: nothing is hidden."""


def told(w, **sizes: float):
    """The workload with other numbers, of the type that programs were compiled for."""
    return w.replace(**{key: jnp.asarray(x, float) for key, x in sizes.items()})


def flow_shop_s(first: float, second: float, jobs: int) -> float:
    """Two machines that equal jobs pass in turn, each after the one before it."""
    done, ready = 0.0, 0.0
    for _ in range(jobs):
        ready += first / jobs
        done = max(done, ready) + second / jobs
    return done


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("work", "traffic"), [(1.0, 0.3), (1.0, 1.0), (0.2, 3.0)])
def test_the_first_or_the_last_bucket_is_exposed(count, work, traffic):
    holding = holding_at(DENSE)
    size = float(max(holding.weights.shared)) / count
    w = made(DENSE, workload__zero_bucket=size).workload
    exposed = exposed_of(w, holding, 0.0)
    found = float(smooth.overlap_s(work, traffic, exposed, None))
    assert found == pytest.approx(flow_shop_s(work, traffic, count))
    assert found == pytest.approx(flow_shop_s(traffic, work, count))
    # of the rest, what the framework can't hide
    part = float(exposed_of(w, holding, 0.2))
    assert part == pytest.approx(1.0 - 0.8 * (1.0 - 1.0 / count))


def test_each_bucket_starts_a_collective():
    system, a, w, *rest = zero("megatron", zero=2, zero_bucket=EVERYTHING)
    parts = ("data_parallel.start", "data_parallel.transfer")

    def busy(size: float):
        found = explain(system, a, told(w, zero_bucket=size), *rest).busy
        return [float(found[part]) for part in parts]

    weights = float(holding_at(ALONE).weights.shared[0])
    one, many = busy(weights / 4.0), busy(weights / 400.0)
    # reduced for both micro-batches, a layer's share of the buckets each, and gathered
    assert many[0] == pytest.approx(100.0 * one[0])
    # its latency and the ramp of its chunks are in the transfer
    assert many[1] > one[1]


def test_one_bucket_hides_behind_nothing():
    whole = explain(*zero("megatron", zero=1, zero_bucket=EVERYTHING))
    system, *plain = zero("megatron", zero=1)
    serial = explain(scaled(system, SERIAL), *plain)
    assert float(whole.step_time_s) == pytest.approx(float(serial.step_time_s))


def test_what_is_gathered_late_is_waited_for():
    system, a, w, *rest = zero("megatron", zero=3)
    default = explain(system, a, w, *rest)
    same, late, ahead = (
        explain(system, a, told(w, zero_prefetch=depth), *rest)
        for depth in (1.0, 0.0, 3.0)
    )
    assert float(same.step_time_s) == float(default.step_time_s)
    assert float(same.memory_bytes) == float(default.memory_bytes)
    serial = explain(scaled(system, SERIAL), a, w, *rest)
    assert float(late.forward_time_s) == pytest.approx(float(serial.forward_time_s))
    assert float(late.step_time_s) < float(serial.step_time_s)  # gradients still hide
    assert float(default.step_time_s) < float(late.step_time_s)
    assert float(ahead.step_time_s) == float(default.step_time_s)
    layer = float(sum(holding_at(ALONE).layer_weights[0]))
    more = (float(m.memory_communication_bytes) for m in (late, ahead))
    for found, layers in zip(more, (-1.0, 2.0)):
        grown = found - float(default.memory_communication_bytes)
        assert grown == pytest.approx(layers * layer * 2.0)


def test_buckets_are_held_until_they_are_used():
    system, a, w, *rest = zero("megatron", zero=3, zero_bucket=1e9, zero_prefetch=2)
    weights = float(sum(holding_at(ALONE).weights)[0])

    def held(**changes) -> float:
        return float(explain(system, a, told(w, **changes), *rest).memory_bytes)

    # two buckets of gradients in fp32 from stage 2 on, and at 3 of weights in bf16 the
    # one at work and those ahead of it; never more than there is
    least = held(zero_bucket=1.0)
    assert held() - least == pytest.approx(1e9 * (2 * 4 + 3 * 2), rel=1e-6)
    assert held(zero_prefetch=4.0) - held() == pytest.approx(2e9 * 2)
    most = held(zero_bucket=EVERYTHING, zero_prefetch=9.0) - least
    assert most == pytest.approx(weights * (4 + 2), rel=1e-6)
    assert held(zero_bucket=EVERYTHING, zero=1.0) == held(zero_bucket=1.0, zero=1.0)


@pytest.mark.parametrize(
    ("key", "value"), [("zero_bucket", 0), ("zero_prefetch", -1), ("zero_prefetch", 0.5)]
)
def test_mistakes_are_named(key, value):
    with pytest.raises(SpecError, match=f"workload.{key} = {value}"):
        made(DENSE, **{f"workload.{key}": value})
