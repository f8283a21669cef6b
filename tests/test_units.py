"""The closed table of units."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.units import UNITS, dimension_of, format_si, from_si, to_si


@pytest.mark.parametrize("unit", UNITS)
@settings(deadline=None, max_examples=20)
@given(value=st.floats(1e-6, 1e12))
def test_every_unit_round_trips(unit, value):
    assert from_si(to_si(value, unit), unit) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("value", "unit", "si"),
    [
        (14.9, "ms", 14.9e-3),
        (2.0, "us", 2e-6),
        (3.0, "ns", 3e-9),
        (1.5, "h", 5400.0),
        (1.0, "day", 86400.0),
        (64.0, "GB", 64e9),
        (1.0, "KB", 1000.0),
        (40.0, "MiB", 41943040.0),
        (1.0, "TiB", 1099511627776.0),
        (400.0, "Gb/s", 50e9),
        (3.35, "TB/s", 3.35e12),
        (376.0, "TFLOP/s", 376e12),
        (752.0, "TOP/s", 752e12),
        (300.0, "PFLOPS", 300e15),
        (1.0, "kWh", 3.6e6),
        (5.0, "%", 0.05),
        (671.0, "1e9", 671e9),
        (2.5, "ktokens/s", 2500.0),
    ],
)
def test_a_printed_value_is_converted_to_si(value, unit, si):
    assert to_si(value, unit) == pytest.approx(si, rel=1e-14)


def test_a_gibibyte_is_seven_percent_more_than_a_gigabyte():
    assert to_si(1.0, "GiB") / to_si(1.0, "GB") - 1.0 == pytest.approx(0.0737, abs=5e-5)


def test_a_bit_rate_is_an_eighth_of_the_byte_rate_of_the_same_prefix():
    assert to_si(8.0, "Gb/s") == to_si(1.0, "GB/s")
    assert UNITS["Gb/s"].dimension == UNITS["GB/s"].dimension


def test_a_bandwidth_has_another_dimension_than_a_flop_rate():
    dimensions = {UNITS[unit].dimension for unit in ("TB/s", "TFLOP/s", "TB", "s")}
    assert len(dimensions) == 4


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("latency_s", "time"),
        ("memory_bytes", "bytes"),
        ("half_memory_bytes", "bytes"),
        ("bytes_per_s", "byte_rate"),
        ("memory_bytes_per_s", "byte_rate"),
        ("vector_flop_per_s", "flop_rate"),
        ("tokens_per_s", "token_rate"),
        ("all_in_w", "power"),
        ("energy_j", "energy"),
        ("price_usd", "cost"),
        ("matrix_cores", "number"),
        ("gemm_efficiency", "number"),
        ("size", "number"),
        ("ranks", "number"),
    ],
)
def test_the_end_of_a_leaf_name_tells_its_dimension(name, dimension):
    assert dimension_of(name) == dimension


@pytest.mark.parametrize(
    ("path", "dimension"),
    [
        ("chip.matrix_flop_per_s.bf16", "flop_rate"),
        ("chip.matrix_flop_per_s.int8", "flop_rate"),
        ("tiers.node.latency_s", "time"),
        ("tiers.supernode.bytes_per_s", "byte_rate"),
        ("expert_parallel.deepep.low_latency.efficiency", "number"),
        ("parts.switches", "number"),
    ],
)
def test_the_innermost_part_with_a_unit_tells_a_path_dimension(path, dimension):
    assert dimension_of(path) == dimension


@pytest.mark.parametrize("convert", [to_si, from_si])
@pytest.mark.parametrize("unit", ["GBps", "gb", "", "ms "])
def test_an_unknown_unit_is_refused_with_the_units_to_use(convert, unit):
    with pytest.raises(ValueError, match="unknown unit") as caught:
        convert(1.0, unit)
    assert repr(unit) in str(caught.value)
    assert all(name in str(caught.value) for name in ("ms", "GB/s", "TFLOP/s", "GiB"))


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (0.0149, "time", "14.9 ms"),
        (2.0, "time", "2 s"),
        (3e-6, "time", "3 us"),
        (128e9, "bytes", "128 GB"),
        (1.6e12, "byte_rate", "1.6 TB/s"),
        (752e12, "flop_rate", "752 TFLOP/s"),
        (559378.0, "power", "559.4 kW"),
        (0.25, "number", "0.25"),
        (-0.002, "time", "-2 ms"),
        (0.0, "time", "0 ns"),
    ],
)
def test_a_value_is_printed_with_the_largest_unit_that_leaves_a_whole_digit(
    value, dimension, text
):
    assert format_si(value, dimension) == text


@pytest.mark.parametrize("value", [1e-9, 1e-4, 1.0, 12.5, 1e3, 1e7, 1e13])
@pytest.mark.parametrize(
    "dimension", ["time", "bytes", "byte_rate", "flop_rate", "power"]
)
def test_a_printed_value_reads_back_to_four_digits(value, dimension):
    number, unit = format_si(value, dimension).split(" ")
    assert UNITS[unit].dimension == dimension
    assert to_si(float(number), unit) == pytest.approx(value, rel=5e-4)
