"""Sweeps on a Dask cluster: tasks are a few parts, which workers write.

Every worker needs the package in the same version, and the folder at the same path.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ..specs.errors import SpecError
from ..specs.sweep_file import load_sweep
from .counts import Counts
from .dataset import Folder
from .evaluate import mesh_of
from .origin import differences, origin_of
from .part import Evaluator
from .plan import Plan, plan_of
from .task import run_parts
from .written import written_one

LOCAL = "local:"
LOSSES = 20
"""Workers that may be lost over one part before it is given up."""

AHEAD = 4
"""Tasks for each thread of a worker that wait at the scheduler."""

TOGETHER = 8
"""Parts of a task, at most: each task costs some milliseconds."""


def distributed() -> Any:
    """The package. Raises `SpecError` without it."""
    try:
        return import_module("distributed")
    except ImportError:
        said = "--cluster needs Dask: pip install 'cmxjax[cluster]'"
        raise SpecError([said]) from None


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """A client of a scheduler, or of processes that are started here.

    Raises:
        SpecError: there is none at the address.
    """
    dask = distributed()
    import_module("dask").config.set(
        {"distributed.scheduler.allowed-failures": LOSSES, "logging.distributed": "error"}
    )
    if cluster.startswith(LOCAL):
        count = cluster.removeprefix(LOCAL)
        if not count.isdecimal() or not int(count):
            raise SpecError([f"--cluster {cluster}: write local:N for N processes"])
        # as programs of their own, which don't run the caller's script again
        start = import_module("distributed.deploy.subprocess").SubprocessCluster
        with (
            start(
                n_workers=int(count),
                threads_per_worker=1,
                worker_class="distributed.Worker",
                worker_kwargs={"memory_limit": 0},
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as here,
            dask.Client(here) as client,
        ):
            yield client
        return
    try:
        client = dask.Client(cluster, timeout=PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        said = "no scheduler answers; give its address, such as tcp://host:8786"
        raise SpecError([f"--cluster {cluster}: {said} ({error})"]) from None
    with client:
        yield client


PATIENCE_S = "15s"


def written_there(
    plan: Plan, folder: Folder, todo: Sequence[int], cluster: str
) -> Iterator[Counts]:
    """Have parts evaluated and written by a cluster's workers; what became of each.

    Raises:
        SpecError: there is no cluster, or a part can't be written.
    """
    task = json.dumps(
        {
            "sweep": plan.sweep.spec.model_dump(
                mode="json", by_alias=True, exclude_none=True
            ),
            "where": plan.sweep.where,
            "folder": str(folder.path.resolve()),
            "fingerprint": folder.fingerprint,
            "origin": folder.origin,
        },
        default=str,
    )
    dask = distributed()
    with connected(cluster) as client:
        threads = max(1, sum(client.nthreads().values()))
        several = max(1, min(TOGETHER, len(todo) // (AHEAD * threads)))
        waiting = iter(range(0, len(todo), several))
        running = dask.as_completed()

        def more(count: int) -> None:
            for _, start in zip(range(count), waiting):
                parts = list(todo[start : start + several])
                # a part that is written twice is the same file twice
                running.add(client.submit(run_parts, task, parts, pure=False))

        more(AHEAD * threads)
        for done in running:
            yield from _counts(done, dask)
            done.release()
            more(1)


def _counts(done: Any, dask: Any) -> list[Counts]:
    """What a task gives. Raises `SpecError` where it failed."""
    try:
        found = done.result()
    except dask.KilledWorker:
        said = f"{LOSSES} workers were lost over one part; see their logs"
        raise SpecError([f"--cluster: {said} and go on with --resume"]) from None
    if "mistakes" in found:
        raise SpecError(found["mistakes"])
    return [Counts.from_json(told) for told in found["parts"]]


def evaluated(task: str, parts: list[int]) -> dict[str, list]:
    """Evaluate and write parts: what became of the points of each, or mistakes."""
    try:
        evaluator, folder = _ready(task)
        path = folder.part(parts[0])
        if not path.parent.is_dir():
            said = "isn't there on a worker; use a folder that all of them share"
            return {"mistakes": [f"--out {path.parent}: {said}"]}
        done = [written_one(evaluator, folder, number) for number in parts]
        return {"parts": [counts.as_json() for counts in done]}
    except SpecError as error:
        return {"mistakes": error.mistakes}


@lru_cache(maxsize=2)
def _ready(task: str) -> tuple[Evaluator, Folder]:
    """What a worker keeps between the parts of a sweep.

    Raises:
        SpecError: its version or a file that the sweep names isn't the client's.
    """
    told = json.loads(task)
    sweep = load_sweep(told["sweep"])._replace(where=told["where"])
    plan = plan_of(sweep)
    origin = origin_of(plan)
    folder = Folder(Path(told["folder"]), origin, bool(plan.keep.scores))
    if folder.fingerprint != told["fingerprint"]:
        mine = json.loads(json.dumps(origin, default=str))
        what = ", ".join(differences(told["origin"], mine)) or "something"
        raise SpecError([f"--cluster: a worker differs from here in {what}"])
    return Evaluator(plan, mesh_of()), folder
