"""The numbers of the golden table still stand; all capabilities are there."""

import itertools

import pytest
from golden.capabilities import capabilities, committed
from golden.draw import COUNTS
from golden.table import differences, read, row_of

SAMPLE = {"decode": 74, "prefill": 74, "collective": 12, "op": 12}
"""The fast tests take one of so many rows; none of phases that compile long."""

LEAST = {"decode": 60, "prefill": 30, "train": 30, "serve": 16, "collective": 60}
LEAST |= {"op": 40}


def rows(fast: bool) -> list:
    """Rows of the sample, or all others; the first ones are of all phases."""
    found = []
    for i, phase in itertools.product(range(max(COUNTS.values())), COUNTS):
        every = SAMPLE.get(phase)
        chosen = every is not None and i % every == 1
        if i < COUNTS[phase] and fast == chosen:
            marks = () if fast else pytest.mark.slow
            found.append(pytest.param(phase, i, id=f"{phase}-{i}", marks=marks))
    return found


TIES = {("train", 19): "exact slopes"}
"""Numbers at a tie, of which rounding picks a side: the longest path through this
DualPipe leads over either of two stages that take the same time."""

_TABLES: dict[str, list] = {}


def check(phase: str, i: int) -> None:
    if phase not in _TABLES:
        _TABLES[phase] = read(phase)
    row = _TABLES[phase][i]
    found = differences(row["numbers"], row_of(row["scenario"], i))
    tied = TIES.get((phase, i))
    assert [line for line in found if not (tied and line.startswith(tied))] == []


@pytest.mark.parametrize(("phase", "i"), rows(fast=True))
def test_a_sample_of_the_golden_table_stands(phase, i):
    check(phase, i)


@pytest.mark.parametrize(("phase", "i"), rows(fast=False))
def test_the_rest_of_the_golden_table_stands(phase, i):
    check(phase, i)


@pytest.mark.parametrize("phase", LEAST)
def test_the_table_is_as_large_as_it_should_be(phase):
    assert len(read(phase)) == COUNTS[phase] >= LEAST[phase]


@pytest.mark.parametrize("part", ["metrics", "breakdown", "slopes"])
def test_a_difference_is_seen(part):
    row = read("decode")[0]["numbers"]
    now = {s: {p: dict(n) for p, n in parts.items()} for s, parts in row.items()}
    name = max(now["relaxed"][part], key=lambda k: abs(_size(now["relaxed"][part][k])))
    moved = now["relaxed"][part][name]
    factor = 1.0 + 1e-5
    now["relaxed"][part][name] = (
        [x * factor for x in moved] if isinstance(moved, list) else moved * factor
    )
    found = differences(row, now)
    assert len(found) == 1
    assert name in found[0]
    del now["exact"][part][name]
    assert any("gone" in line for line in differences(row, now))


def _size(value) -> float:
    return value[0] if isinstance(value, list) else value


@pytest.mark.slow
def test_no_capability_has_vanished(tmp_path):
    now = capabilities(tmp_path)
    gone = {
        kind: sorted(set(names) - set(now.get(kind, [])))
        for kind, names in committed().items()
    }
    assert {kind: names for kind, names in gone.items() if names} == {}
