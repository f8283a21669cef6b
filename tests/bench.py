"""A user's own small measurement file: GEMMs and copies on one H100."""

HEAD = """
[sources.bench]
title = "Own benchmark"

[scenarios.copy]
system = "dgx-h100"
phase = "op"
op = { kind = "copy", bytes = 1e9 }
"""

GEMM = """
[scenarios.gemm]
system = "dgx-h100"
phase = "op"
op = { kind = "gemm", m = 4096, n = 4096, k = 4096, dtype = "bf16" }
"""
"""Follows the head where there are GEMMs too."""

MEMORY = """
[[parameters]]
name = "memory"
leaves = ["chip.memory_efficiency"]
reason = "copies"
"""
"""What a recipe fits of copies."""


def _row(id, scenario, changes, value, table, *, quantity, unit, bound=""):
    """One measurement; `changes` and `bound` as the file has them."""
    return f"""
[[measurements]]
id = "{id}"
scenario = "{scenario}"
set = {{ {changes} }}
quantity = "{quantity}"
value = {value}
unit = "{unit}"
{f'bound = "{bound}"' if bound else ""}
source = "bench"
locator = "table {table}"
"""


def copy(id, size, value, table, *, quantity="byte_rate", unit="GB/s", bound=""):
    """A copy of so many bytes."""
    changes, wanted = f'"op.bytes" = {size}', {"quantity": quantity, "unit": unit}
    return _row(id, "copy", changes, value, table, **wanted, bound=bound)


def gemm(id, rows, percent, table):
    """The utilization of a GEMM of so many rows."""
    wanted = {"quantity": "utilization", "unit": "%"}
    return _row(id, "gemm", f'"op.m" = {rows}', percent, table, **wanted)
