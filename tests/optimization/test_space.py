"""The space of whole layouts against a brute-force listing of it."""

import itertools
import math

import numpy as np
import pytest

from cmxjax.job.layout import ATTENTION_AXES, AXES, EXPERT_AXES
from cmxjax.optimization.factors import divisors, factorizations, footprints
from cmxjax.optimization.space import (
    Frame,
    Rules,
    degree_counts,
    in_rank_order,
    innermost,
    placed,
)

RULES = Rules(8, 12, 6, 5, 4, (("cp", 1),))
FRAME = Frame(24, (2, 4, 3))


def placements(frame, rules):
    """All allowed placement matrices of a frame, (row, axis, tier)."""
    degrees, _ = degree_counts(frame, rules)
    return np.concatenate([placed(row, frame.units) for row in degrees])


def by_brute_force(frame, rules):
    """Every matrix of whole numbers up to the tiers' units, checked by the rules."""
    columns = [
        [
            row
            for row in itertools.product(divisors(units), repeat=len(AXES))
            if math.prod(row[:4]) == units and math.prod(row[3:]) == units
        ]
        for units in frame.units
    ]
    for chosen in itertools.product(*columns):
        factor = np.array(chosen).T
        tp, cp, _, pp, etp, ep, _ = factor.prod(axis=1)
        good = rules.heads % tp == 0 and rules.dense_width % tp == 0
        good &= rules.expert_width % etp == 0 and pp <= rules.layers
        if good and ep <= 2 * rules.experts and cp == 1:
            yield factor


def test_placements_are_all_that_brute_force_finds():
    expected = {factor.tobytes() for factor in by_brute_force(FRAME, RULES)}
    found = placements(FRAME, RULES).astype(np.int64)
    assert len(found) == len(expected) > 100
    assert {np.ascontiguousarray(factor).tobytes() for factor in found} == expected


def test_counting_needs_no_listing():
    table = placements(FRAME, RULES)
    degrees, ways = degree_counts(FRAME, RULES)
    assert ways.sum() == len(table)
    products, times = np.unique(table.prod(axis=2), axis=0, return_counts=True)
    order = np.lexsort(degrees.T[::-1])
    np.testing.assert_array_equal(degrees[order], products)
    np.testing.assert_array_equal(ways[order], times)


def test_each_axis_alone_is_as_far_inside_as_any_placement_has_it():
    table = placements(FRAME, RULES).astype(np.int64)
    units = np.tile(FRAME.units, (len(table), 1))
    inside = innermost(table.prod(axis=2), units)
    np.testing.assert_array_equal(inside.prod(axis=2), table.prod(axis=2))
    assert (inside.cumprod(axis=2) >= table.cumprod(axis=2)).all()


def test_the_usual_rank_order_is_a_placement():
    table = placements(FRAME, RULES).astype(np.int64)
    degrees = np.unique(table.prod(axis=2), axis=0)
    factors = in_rank_order(degrees, np.tile(FRAME.units, (len(degrees), 1)))
    good = (factors == np.round(factors)).all(axis=(1, 2))
    assert good.mean() > 0.3
    known = {np.ascontiguousarray(factor).tobytes() for factor in table}
    for factor in factors[good].astype(np.int64):
        assert np.ascontiguousarray(factor).tobytes() in known


def test_both_foldings_fill_every_tier():
    for axes in (ATTENTION_AXES, EXPERT_AXES):
        rows = [AXES.index(axis) for axis in axes]
        inside = placements(FRAME, RULES)[:, rows].prod(axis=1)
        assert (inside == FRAME.units).all()


def test_a_dense_model_has_no_expert_axes():
    rules = RULES._replace(experts=0)
    degrees = placements(FRAME, rules).prod(axis=2)
    assert (degrees[:, 4:6] == 1).all()


def test_factorizations_multiply_to_the_number():
    assert len(factorizations(48, 4)) == math.comb(7, 3) * 4  # 48 = 2^4 x 3
    assert all(math.prod(row) == 48 for row in factorizations(48, 4))


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (320, [(2, 8, 20, 1)]),
        (768, [(2, 8, 48, 1)]),
        (6000, [(2, 8, 25, 15)]),
        (17, [(1, 1, 17, 1)]),
        (431, []),  # a prime above every tier
    ],
)
def test_footprints_fill_inner_tiers_first(devices, expected):
    assert footprints(devices, (2.0, 8.0, 48.0, 429.0)) == expected


def test_footprints_keep_what_neither_fills_better():
    # 6 = 3 x 2 fills the inner tier, 2 x 3 does not
    assert footprints(6, (4.0, 4.0)) == [(3, 2)]
    # two nodes of 2 x 5 against five nodes of 4 = 2 x 2 packages
    assert set(footprints(20, (2.0, 5.0, 5.0))) == {(2, 5, 2)}
