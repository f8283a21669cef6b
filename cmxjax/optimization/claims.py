"""What an answer claims, in words: what was searched, or why nothing is feasible."""

import math
from collections.abc import Iterable

from .cells import Points
from .job import Job
from .price import NEEDS
from .search import Search
from .settings import FREE, free_names


def none_at_all(search: Search) -> str:
    """Why there is not one point."""
    for setting in search.layouts.settings:
        values = search.job.given.get(setting.name)
        if values is not None and (setting.menu < 0).all():
            said = _either(values)
            return f"{setting.name} = {said}: no layout of these devices can have it"
    text = "no whole layout of these devices is allowed by the model"
    if search.job.trains:
        text += ", divides the batch and has the stages that its schedule needs"
    return text


def lacking(job: Job, point: Points) -> str:
    """What the nearest point lacks."""
    worst, over = int(point.worst[0]), math.expm1(float(point.excess[0]))
    if worst >= len(NEEDS):
        field = job.objective.fields[worst - len(NEEDS)]
        return f"the nearest is {over:.1%} off the limit of {field}"
    if worst == 0:
        return f"the nearest needs {over:.1%} more memory than there is"
    return f"none has {NEEDS[worst]}"


def space_of(job: Job) -> str:
    """What is searched and what is not, in a sentence."""
    devices = _either(dict.fromkeys(frame.devices for frame in job.frames))
    free = [name for name in free_names(job.problem) if name not in job.given]
    what = [f"every degree and placement on {devices} devices"]
    what += [FREE[name][-1] for name in free]
    fixed = [f"{name} = {degree}" for name, degree in job.rules.pinned]
    fixed += [f"{name} = {_either(values)}" for name, values in job.given.items()]
    return ", ".join(what) + (f"; with {', '.join(fixed)}" if fixed else "")


def _either(values: Iterable) -> str:
    return " or ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in values)
