"""Samples depend on their number alone, and Sobol's are scipy's."""

import numpy as np
import pytest
from scipy.stats import qmc

from cmxjax.sweeps.draw import BLOCK, SOBOL_BITS, drawn
from cmxjax.sweeps.values import Span

SEED = (3, 1)


@pytest.mark.parametrize("kind", ["random", "sobol"])
def test_a_sample_is_the_same_from_wherever_one_starts(kind):
    """Across ends of blocks, in any order."""
    rows = np.arange(3 * BLOCK + 100)
    whole = drawn(kind, SEED, 3, rows)
    some = np.array([3 * BLOCK + 5, 0, BLOCK - 1, BLOCK, 2 * BLOCK + 7])
    np.testing.assert_array_equal(drawn(kind, SEED, 3, some), whole[some])
    assert whole.min() >= 0.0
    assert whole.max() < 1.0
    assert not np.array_equal(drawn(kind, (4, 1), 3, some), whole[some])


def test_samples_of_sobol_are_those_of_scipy():
    """Jumps between blocks don't change the sequence."""
    rng = np.random.default_rng([*SEED, 3])
    engine = qmc.Sobol(3, scramble=True, bits=SOBOL_BITS, rng=rng)
    expected = engine.random(4 * BLOCK)
    np.testing.assert_array_equal(drawn("sobol", SEED, 3, np.arange(4 * BLOCK)), expected)


def test_sobol_fills_the_square_more_evenly_than_chance():
    """Of 2^12 samples each of 64 x 64 boxes holds one, by chance 37 % hold none."""
    boxes = [
        np.unique((drawn(kind, SEED, 2, np.arange(4096)) * 64).astype(int), axis=0)
        for kind in ("sobol", "random")
    ]
    assert len(boxes[0]) == 4096
    assert len(boxes[1]) < 3000


def test_a_range_keeps_its_ends_and_its_spacing():
    share = np.array([0.0, 0.5, 1.0])
    of = Span("x", 1000.0, 9000.0, True, False, "")
    assert of.at(share).tolist() == pytest.approx([1000.0, 3000.0, 9000.0])
    assert of.at(share)[[0, 2]].tolist() == [1000.0, 9000.0]
    linear = Span("x", 1.0, 4.0, False, True, "")
    assert linear.at(np.linspace(0.0, 1.0, 7)).tolist() == [1, 2, 2, 2, 3, 4, 4]
