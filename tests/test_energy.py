"""Power follows what is busy: compute units and memory, above an idle share."""

import jax
import jax.numpy as jnp
import pytest
from jobs import JOBS, SHIPPED, job, machine_at, on_machine, predict

from cmxjax.energy import job_power_w
from cmxjax.step.price import decode_job, prefill_job
from cmxjax.step.serving import times_of

DECODE, PREFILL = SHIPPED[:2]
IDLE, MEMORY = 0.4, 0.35
NETWORK, ALL_IN = 61_056.0, 559_378.0


def power(compute, memory) -> float:
    """Of all 768 dies of CloudMatrix384."""
    system, *_, theta = job(DECODE)
    all_dies = jnp.asarray(768.0)
    return float(job_power_w(machine_at(system, theta), all_dies, compute, memory))


def test_an_idle_job_draws_the_network_and_the_idle_share():
    assert power(0.0, 0.0) == pytest.approx(NETWORK + (ALL_IN - NETWORK) * IDLE)


def test_a_job_that_is_busy_all_the_time_draws_the_all_in_power():
    assert power(1.0, 1.0) == pytest.approx(ALL_IN)


def test_busy_memory_and_busy_compute_add_their_parts():
    idle, rest = power(0.0, 0.0), (ALL_IN - NETWORK) * (1.0 - IDLE)
    assert power(0.0, 1.0) - idle == pytest.approx(rest * MEMORY)
    assert power(1.0, 0.0) - idle == pytest.approx(rest * (1.0 - MEMORY))


@pytest.mark.parametrize("name", [*JOBS, *SHIPPED])
def test_nothing_is_busy_for_longer_than_the_step(name):
    system, a, w, layout, theta = job(name)
    make = decode_job if w.kind == "decode" else prefill_job
    times, (filled, _) = times_of(
        make(machine_at(system, theta), a, w, layout, None), None
    )
    assert 0.0 < float(filled.memory_s) < float(times.steady_s)
    assert 0.0 < float(filled.compute_s) < float(times.steady_s)


def per_device(name, **changes) -> float:
    inputs = job(name, **changes)
    return float(predict(inputs).power_w / jnp.prod(inputs[3].factor[:4]))


def test_prefill_draws_more_than_decode_of_a_small_batch():
    """One is bound by compute, the other by memory and launches."""
    small = per_device(DECODE, workload__sequences_per_device=4)
    assert per_device(PREFILL) > 1.05 * small


def test_a_slower_host_lets_the_machine_idle():
    host = {"engines.cloudmatrix-infer.decode_step_s": 300.0}
    system = on_machine(job(DECODE), host)
    idle = power(0.0, 0.0) * 320 / 768
    assert idle < float(predict(system).power_w) < 1.15 * idle
    assert float(predict(job(DECODE)).power_w) > 1.4 * idle


def test_power_responds_to_its_parameters():
    inputs = job(DECODE)

    def power_w(system):
        return predict((system, *inputs[1:])).power_w

    slopes = jax.grad(power_w)(inputs[0])
    assert float(slopes.power.idle_fraction) > 0.0
    assert abs(float(slopes.power.memory_share)) > 0.0
    assert float(slopes.chip.memory_bytes_per_s) != 0.0
