"""Gradients over all settings of the switches, and many jobs in one process."""

import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import all_finite, in_common_shape
from test_statics import problems

import cmxjax as cmx
from cmxjax.parameters import is_switch, path_of
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario

JOBS = {
    "decode": ("deepseek-r1-decode-hgx-h800", "tpot_s"),
    "prefill": ("deepseek-r1-prefill-cloudmatrix384", "ttft_s"),
    "train": ("gpt-3-175b-train-dgx-a100", "step_time_s"),
    "mixture": ("deepseek-v3-train-hgx-h800", "step_time_s"),
}
SLOW = ("prefill", "mixture")
JOBS_TO_RUN = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in JOBS
]
DIRECT = "library.algorithms.direct.on"
"""The algorithm that others are compared with is always there."""


def switched(tree, settings):
    """The tree with its switches set one after the other."""
    left = iter(settings)

    def put(key_path, leaf):
        path = path_of(key_path)
        if is_switch(path) and not path.endswith(DIRECT):
            return jnp.asarray(next(left), float)
        return leaf

    return jax.tree_util.tree_map_with_path(put, tree)


def with_every_algorithm(name):
    """Machine, model, workload and layout of a job, the machine with all switches."""
    scenario, field = JOBS[name]
    return in_common_shape(build(load_scenario(scenario), "none")), field


@pytest.mark.parametrize("name", JOBS_TO_RUN)
def test_gradients_are_finite_whatever_is_switched(name):
    inputs, field = with_every_algorithm(name)
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(inputs)]
    count = sum(is_switch(p) and not p.endswith(DIRECT) for p in paths)
    assert count >= 12
    rng = np.random.default_rng(7)
    rows = [np.zeros(count), np.ones(count), *np.eye(count), *(1.0 - np.eye(count))]
    rows += [*rng.integers(0, 2, (40, count))]

    @jax.jit
    def slopes(inputs):
        return jax.value_and_grad(lambda x: jnp.log(getattr(cmx.metrics(*x), field)))(
            inputs
        )

    times = set()
    for row in rows:
        time, gradient = slopes(switched(inputs, row))
        assert np.isfinite(time)
        assert all_finite(gradient), row
        times.add(round(float(time), 9))
    assert len(times) > 3
    assert slopes._cache_size() == 1


def maps() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


@pytest.mark.slow
def test_a_thousand_jobs_in_one_process_need_few_programs_and_little_memory():
    """All shipped scenarios and measured rows, each by itself."""
    jobs = problems()
    assert len(jobs) > 1000
    order = np.random.default_rng(5).permutation(len(jobs))
    program = jax.jit(lambda *inputs: cmx.metrics(*inputs))
    seen = []
    for i in order:
        found = program(*jobs[i].inputs)
        jax.block_until_ready(found)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
        seen.append((program._cache_size(), maps(), rss))
    programs, mapped, resident = map(np.array, zip(*seen, strict=True))
    assert programs[-1] <= 60
    # what is compiled stays, and nothing else grows
    late = programs[-1] - programs[150]
    assert mapped[-1] - mapped[150] <= 700 * late + 200
    assert resident[-1] - resident[150] <= 40.0 * late + 150.0
