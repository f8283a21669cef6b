"""From a system's name and measurement files to a calibration on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ..specs.errors import SpecError
from ..specs.files import canonical, is_path, parse_json, read_text, shipped
from ..specs.output import check_outputs, inputs_of, make_folder, write_text
from ..specs.recipe_file import RecipeSpec, load_recipe
from ..specs.system_load import Reference, load_system
from .automatic import automatic
from .calibrate import Calibrated, calibrate
from .result import paths_in, write
from .setup import Setup, prepare

MOST_RESTARTS = 4096

CHECKPOINT = "fit.partial.json"
"""Optimum of the first fit; a run that was interrupted goes on from there."""


class Report(NamedTuple):
    """A calibration and the files that hold it."""

    result: Calibrated
    name: str
    files: list[Path]


def recipe_for(system: str) -> tuple[RecipeSpec | None, str]:
    """A system's recipe and its printable name: a recipe by path or name, or none.

    Raises:
        SpecError: no such system, or the recipe is wrong.
    """
    if is_path(system):
        return load_recipe(system), system
    for name in shipped("recipes"):
        if name == system:
            return load_recipe(name), f"{name}.toml"
    load_system(Reference(system))  # says which systems there are
    return None, system


def fit(
    system: str,
    measurements: tuple[str, ...] = (),
    out: str | None = None,
    restarts: int = 32,
    seed: int = 0,
    progress: Callable[[str], object] = lambda text: None,
) -> Report:
    """Calibrate a system and write the result.

    Args:
        system: a shipped recipe or system, or the path of a recipe.
        measurements: files to fit besides those of the recipe.
        out: folder for the result; None writes nothing.

    Returns:
        The report. `NAME.json` in `out` is what `--calibration` takes.

    Raises:
        SpecError: (a `ValueError`) with every mistake of the files.
        ArithmeticError: the fit does not converge.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise SpecError(["a fit needs float64: call cmxjax.setup() first"])
    if not 1 <= restarts <= MOST_RESTARTS:
        raise SpecError([f"--restarts {restarts}: use 1 to {MOST_RESTARTS}"])
    if seed < 0:
        raise SpecError([f"--seed {seed}: use a whole number from 0"])
    system = canonical("systems", system)
    recipe, where = recipe_for(system)
    files = [*(recipe.measurements if recipe else []), *measurements]
    if not files:
        raise SpecError([f"{where}: no measurements; name files with --measurements"])

    made = out is not None and not Path(out).exists()
    if out is not None:
        make_folder(out)
        name = f"{recipe.system if recipe else system}-own"
        for path in paths_in(Path(out), name):
            check_outputs({"--out": str(path)}, inputs_of(system, *files))

    def compiled(done: int, total: int) -> None:
        progress(f"compiled {done} of {total} programs")

    try:
        if recipe is None:
            setup = automatic(system, files, compiled)
        else:
            setup = prepare(recipe, files, where, compiled)
    except SpecError:
        if made and out is not None:  # nothing is in it yet
            Path(out).rmdir()
        raise
    shipped_inputs = recipe is not None and not is_path(system) and not measurements
    name = system if shipped_inputs else f"{setup.recipe.system}-own"
    start = None if out is None else _resumed(Path(out), setup, restarts, seed)
    result = calibrate(
        setup,
        restarts,
        seed,
        start,
        progress,
        lambda theta: (
            None if out is None else _save(Path(out), setup, theta, restarts, seed)
        ),
    )
    paths = [] if out is None else write(result, name, Path(out))
    if out is not None:
        (Path(out) / CHECKPOINT).unlink(missing_ok=True)
    return Report(result, name, paths)


def _key(setup: Setup, restarts: int, seed: int) -> str:
    return f"{setup.fingerprint()}-{restarts}-{seed}"


def _save(
    folder: Path, setup: Setup, theta: np.ndarray, restarts: int, seed: int
) -> None:
    state = {"key": _key(setup, restarts, seed), "theta": [float(t) for t in theta]}
    write_text(folder / CHECKPOINT, json.dumps(state))


def _resumed(folder: Path, setup: Setup, restarts: int, seed: int) -> np.ndarray | None:
    """The first fit's optimum, if an interrupted run on the same inputs left it."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = parse_json(read_text(path), str(path))
    if state.get("key") != _key(setup, restarts, seed):
        return None
    try:
        theta = np.array(state["theta"], float)
    except (KeyError, TypeError, ValueError):
        theta = np.empty(0)
    if theta.shape != (len(setup.parameters),) or not np.isfinite(theta).all():
        said = "holds no optimum of this calibration; delete it to start afresh"
        raise SpecError([f"{path}: theta: {said}"])
    return theta
