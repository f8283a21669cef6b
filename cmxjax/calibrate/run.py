"""From a system's name and measurement files to a calibration on disk."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ..specs.errors import SpecError
from ..specs.files import (
    canonical,
    is_path,
    kind_of,
    load,
    parse_json,
    read_text,
    shipped,
)
from ..specs.output import check_outputs, inputs_of, make_folder, write_text
from ..specs.recipe_file import RecipeSpec, load_recipe
from ..specs.system_load import Reference, load_system, read_system_file
from ..words import LONGEST_WORD
from .automatic import automatic
from .calibrate import Calibrated, calibrate
from .result import paths_in, write
from .setup import Setup, prepare

MOST_RESTARTS = 4096

_NO_FILE = re.compile(r"[^\w.-]+")
"""What a system's name may have that a file's name can't."""

CHECKPOINT = "fit.partial.json"
"""Optimum of the first fit; a run that was interrupted goes on from there."""


class Report(NamedTuple):
    """A calibration and the files that hold it."""

    result: Calibrated
    name: str
    files: list[Path]
    notes: list[str]
    """What of the user's own measurements wasn't fitted, and what to do about it."""


def recipe_for(system: str) -> tuple[RecipeSpec | None, str]:
    """A system's recipe and its printable name: a recipe by path or name, or none for a
    system by path or name.

    Raises:
        SpecError: no such system, or the file is wrong or of another kind.
    """
    if is_path(system):
        kind = kind_of(*load("", system))
        if kind == "recipes":
            return load_recipe(system), system
        if kind != "systems":
            said = f"looks like one of the {kind}; name a system or a recipe"
            raise SpecError([f"{system}: {said}"])
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
        system: a shipped recipe or system, or the path of one.
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
    own = _own_name(recipe.system if recipe else system)
    if out is not None:
        make_folder(out)
        name = own
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
    name = system if shipped_inputs else own
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
    notes = [
        other.said(setup.recipe.system, setup.counts[other.file])
        for other in setup.elsewhere
        if other.file in measurements
    ]
    return Report(result, name, paths, notes)


def _own_name(system: str) -> str:
    """What the calibration of a system, by name or path, is called that isn't the one
    that ships; the names of its files too."""
    name = read_system_file(system).name
    return f"{_NO_FILE.sub('-', name)[:LONGEST_WORD]}-own"


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
