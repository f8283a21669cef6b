"""Pipeline stages against every way to cut."""

import itertools

import numpy as np
import pytest

from cmxjax.optimization.stages import in_flight, partition


def by_brute_force(times, stages, weights, kept, capacity):
    best = np.inf
    for inner in itertools.combinations(range(1, len(times)), stages - 1):
        cuts = [0, *inner, len(times)]
        spans = list(itertools.pairwise(cuts))
        fits = all(
            weights[a:b].sum() + flying * kept[a:b].sum() <= capacity
            for (a, b), flying in zip(spans, in_flight(stages))
        )
        if fits:
            best = min(best, max(times[a:b].sum() for a, b in spans))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_partition_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    units, stages = int(rng.integers(5, 12)), int(rng.integers(2, 5))
    times, weights, kept = rng.uniform(0.1, 2.0, (3, units))
    capacity = 1.3 * (weights.sum() + kept.sum() * stages / 2) / stages
    expected = by_brute_force(times, stages, weights, kept, capacity)
    args = {"weights_bytes": weights, "activations_bytes": kept}
    if np.isinf(expected):
        with pytest.raises(ValueError, match="stages fit into"):
            partition(times, stages, capacity_bytes=capacity, **args)
        return
    found = partition(times, stages, capacity_bytes=capacity, **args)
    assert found.slowest_s == pytest.approx(expected)
    assert found.counts.sum() == units
    assert (found.counts >= 1).all()
    assert found.relaxed_s <= found.slowest_s


def test_dense_layers_first_and_a_head_make_stages_uneven():
    """61 layers of DeepSeek-V3's kind: three cheap dense ones, draft module and head."""
    times = np.array([0.6] * 3 + [1.0] * 58 + [1.3, 0.9])
    found = partition(times, 16)
    assert found.slowest_s <= 4.3
    assert found.counts.sum() == 63
    assert len(set(found.counts.tolist())) > 1


@pytest.mark.parametrize(
    ("times", "stages", "message"),
    [([1.0, 2.0], 3, "use 1 to 2"), ([1.0, -2.0], 1, "times"), ([1.0], 0, "use 1")],
)
def test_wrong_input_is_named(times, stages, message):
    with pytest.raises(ValueError, match=message):
        partition(np.array(times), stages)


def test_what_fits_no_memory_is_refused():
    with pytest.raises(ValueError, match="no 2 stages fit"):
        partition(np.ones(4), 2, weights_bytes=np.ones(4), capacity_bytes=1.0)
