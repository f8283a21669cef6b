"""The search against random points and simulated annealing at equal evaluations."""

import numpy as np
import pytest

from cmxjax.optimization.ask import ask
from cmxjax.optimization.baselines import random_search, simulated_annealing
from cmxjax.optimization.sample import random_placements
from cmxjax.optimization.search import search
from cmxjax.optimization.space import allowed, count
from cmxjax.specs.scenario import load_scenario

JOBS = {
    "decode": ("deepseek-r1-decode-cloudmatrix384", ("tpot=50ms",), {"cp": 1, "etp": 1}),
    "low-latency": ("deepseek-r1-decode-cloudmatrix384", ("tpot=15ms",), {}),
    "prefill": ("deepseek-r1-prefill-cloudmatrix384", ("ttft=2s",), {"etp": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_the_search_is_no_worse_than_baselines(name):
    scenario, limits, pinned = JOBS[name]
    question = ask(
        load_scenario(scenario), limits=limits, pinned=pinned, calibration="none"
    )
    assert count(question.space) > 1e5
    found = search(question)
    for baseline in (random_search, simulated_annealing):
        other = baseline(question, found.evaluations, 1)
        assert found.score.rank[0] <= other.rank[0]
        if other.feasible:
            assert found.score.objective <= other.objective + 1e-9


def test_random_placements_are_allowed():
    question = ask(load_scenario(JOBS["decode"][0]), pinned={"tp": 2, "cp": 1})
    space = question.space
    drawn = random_placements(space.frames[0], space.rules, 64, np.random.default_rng(0))
    assert len(drawn) > 10
    degrees = np.stack(drawn).astype(int).prod(axis=2)
    assert allowed(space.rules, degrees).all()
    assert (degrees[:, :4].prod(axis=1) == 320).all()
