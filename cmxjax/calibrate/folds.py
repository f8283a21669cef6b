"""Which rows are left out together."""

import hashlib

import numpy as np

from ..specs.discrepancy import level_of
from ..specs.measurement_file import Measurement


def kind_of(row: Measurement) -> str:
    """What a row measures: its phase, and the operator or collective."""
    scenario = row.scenario
    part = getattr(scenario, "op", None) or getattr(scenario, "collective", None)
    return scenario.phase if part is None else str(part.kind)


def table_of(row: Measurement) -> str:
    """Source and table, section or page of a row; of whole serving runs the model."""
    if row.scenario.phase == "serve":
        return f"{row.spec.source}: {row.scenario.model.base}"
    return f"{row.spec.source}: {row.spec.locator.split(',')[0]}"


def deployment_of(row: Measurement) -> str:
    """Everything of a job but its load: rows that share their errors."""
    said = row.scenario.model_dump(exclude={"workload", "assumed"})
    model = getattr(row.scenario, "model", None)
    label = hashlib.sha256(repr(said).encode()).hexdigest()[:8]
    return f"{model.base if model else row.scenario.phase} {label}"


def run_of(row: Measurement) -> str:
    """What was measured together: the same scenario, or a deployment that serves.
    Versions of a framework that are priced alike count as one."""
    scenario = row.scenario
    if scenario.phase == "serve":
        return deployment_of(row)
    if scenario.phase == "train":
        priced = level_of(scenario, row.spec.quantity).partition("/")[2]
        scenario = scenario.model_copy(update={"engine": priced, "engine_version": None})
    return repr(scenario)


def _stratum(row: Measurement) -> str:
    """What is spread over the folds: kinds of rows, and engines that serve, so that no
    fold holds all that is known of one."""
    serves = row.scenario.phase == "serve"
    return level_of(row.scenario, "tpot") if serves else kind_of(row)


def by_run(rows: list[Measurement], count: int, seed: int = 0) -> np.ndarray:
    """A fold number for each row: runs stay whole, kinds and engines are spread.

    A run is everything that was measured under the same scenario, or the deployment that
    serves under any load.
    """
    runs: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        runs.setdefault(run_of(row), []).append(i)
    kinds: dict[str, list[list[int]]] = {}
    for members in runs.values():
        kinds.setdefault(_stratum(rows[members[0]]), []).append(members)
    shuffle = np.random.default_rng(seed)
    fold = np.zeros(len(rows), int)
    position = 0
    for kind in sorted(kinds):
        for k in shuffle.permutation(len(kinds[kind])):
            fold[kinds[kind][k]] = position % count
            position += 1
    return fold


def by_label(labels: list[str]) -> tuple[np.ndarray, list[str]]:
    """A fold for each distinct label, and the labels in order."""
    names = sorted(set(labels))
    return np.array([names.index(label) for label in labels]), names


def weights(fold: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Row weights of each fold's fit, (fold, row): the rows of the fold are left out."""
    count = int(fold.max()) + 1
    return np.stack([fitted * (fold != k) for k in range(count)])
