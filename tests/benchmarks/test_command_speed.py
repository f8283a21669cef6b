"""Commands from the shell, a plan and a step of a fit; skipped unless asked for.

Commands run without runtime type checks, in fresh processes: cold ones without programs
that were compiled before, warm ones with those of their first round.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from timing import timed

import cmxjax as cmx
from cmxjax.calibrate.calibrate import models_of
from cmxjax.calibrate.setup import prepare
from cmxjax.specs.recipe_file import load_recipe

DECODE = "deepseek-r1-decode-cloudmatrix384"
SERVE = "deepseek-r1-serve-cloudmatrix384"
COMMANDS = {
    "--help": ["--help"],
    "list systems": ["list", "systems"],
    "predict, decode": ["predict", DECODE],
    "predict, train": ["predict", "deepseek-v3-train-hgx-h800"],
    "predict, serve": ["predict", SERVE],
    "plan": ["plan", SERVE, "--rate", "100/s"],
}


def command(words, cache):
    env = os.environ | {"CMXJAX_CACHE": str(cache)}
    words = [sys.executable, "-m", "cmxjax", *words]
    subprocess.run(words, check=True, capture_output=True, env=env)


@pytest.mark.benchmark(group="commands, warm")
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_warm(benchmark, name, tmp_path):
    run = lambda: command(COMMANDS[name], tmp_path)  # noqa: E731
    timed(benchmark, run, "command, warm", name, children=True)


@pytest.mark.benchmark(group="commands, cold")
@pytest.mark.parametrize("name", [n for n in COMMANDS if n.startswith("p")])
def test_commands_cold(benchmark, name, tmp_path):
    folders = iter(range(99))
    run = lambda: command(COMMANDS[name], tmp_path / str(next(folders)))  # noqa: E731
    how = {"rounds": 3, "warmup": 0, "children": True}
    timed(benchmark, run, "command, cold", name, **how)


@pytest.mark.benchmark(group="plan")
def test_plan_once_compiled(benchmark):
    rates = iter(range(90, 200))
    run = lambda: cmx.plan([SERVE], per_s=float(next(rates)))  # noqa: E731
    timed(benchmark, run, "plan, compiled", "one machine, one class")


@pytest.mark.benchmark(group="step of a fit")
@pytest.mark.parametrize("name", ["cloudmatrix384"])
def test_step_of_a_fit(benchmark, name):
    """Predictions of all rows and their slopes along all parameters, of one start."""
    recipe = load_recipe(name)
    setup = prepare(recipe, list(recipe.measurements), name)
    model = models_of(setup).fitted
    theta = np.zeros((1, len(setup.parameters)))
    assert np.isfinite(model(theta)[0]).all()
    rows = int(setup.fitted.sum())
    case = f"{name}, {rows} rows, {theta.shape[1]} parameters"
    timed(benchmark, lambda: model(theta), "fit, one step", case)
