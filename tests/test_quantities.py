"""What a measured quantity is, per device, per package and in total."""

import pytest

from cmxjax.answers.batch import evaluate
from cmxjax.quantities import PHASE_METRICS, check_per, field_of, scaled_to
from cmxjax.specs.measurement_file import QUANTITIES


def phases_of(quantity):
    found = []
    for phase in PHASE_METRICS:
        try:
            field_of(quantity, "moe", phase)
        except ValueError:
            continue
        found.append(phase)
    return found


@pytest.mark.parametrize("quantity", sorted(QUANTITIES))
def test_every_quantity_is_predicted_in_some_phase(quantity):
    assert phases_of(quantity)


def test_a_decode_rate_and_its_memory_scale_with_the_devices(problem):
    (outcome,) = evaluate([problem("deepseek-r1-decode-cloudmatrix384")])
    m = outcome.metrics
    rate, memory = float(m.tokens_per_s), float(m.memory_bytes)
    assert scaled_to(rate, "tokens_rate", "device", m) == pytest.approx(rate / 320)
    assert scaled_to(rate, "tokens_rate", "package", m) == pytest.approx(rate / 160)
    assert scaled_to(rate, "tokens_rate", "total", m) == pytest.approx(rate)
    assert scaled_to(memory, "memory", "device", m) == memory
    assert scaled_to(memory, "memory", "package", m) == pytest.approx(2 * memory)


def test_a_rate_named_per_package_refuses_another_scale():
    with pytest.raises(ValueError, match="tokens_rate_per_package"):
        check_per("tokens_rate_per_package", "device", "decode")
