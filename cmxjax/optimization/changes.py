"""From a point of a search to the keys of a scenario."""

from ..job.layout import AXES
from .cells import Bounds, Points
from .job import Job, model_of
from .price import expert_slots


def changes_of(bounds: Bounds, point: Points) -> dict[str, object]:
    """Dotted keys that turn the scenario into a point; None unsets one.

    Args:
        point: a single row.
    """
    job, layouts = bounds.job, bounds.layouts
    row = int(point.at.row[0])
    degrees: dict[str, int] = dict(zip(AXES, layouts.degrees[row].tolist()))
    chosen = bounds.values(point.at.row, point.at.levels)[0].tolist()
    values = dict(zip((setting.name for setting in bounds.settings), chosen))
    # where the sequence is split anyway the setting changes nothing
    attention = job.families[int(point.at.family[0])].attention
    along = bool(values.pop("sequence_parallel")) and attention == "tp"
    factor = point.at.factor[0].astype(int)
    layout: dict[str, object] = {
        "devices": job.frames[layouts.frame[row]].devices,
        **degrees,
        "placement": {a: x.tolist() for a, x in zip(AXES, factor) if max(x) > 1},
        "sequence_parallel": along,
        # those of the scenario belong to its own degrees
        "order": None,
        "stages": None,
    }
    given = job.scenario.layout
    layout = {k: v for k, v in layout.items() if v is not None or getattr(given, k)}
    changes = (
        _of_training(job, point, values, degrees["pp"])
        if job.trains
        else _of_serving(job, point, values, degrees)
    )
    return {f"layout.{key}": value for key, value in layout.items()} | changes


def _of_training(
    job: Job, point: Points, values: dict[str, float], pp: int
) -> dict[str, object]:
    form = job.forms[int(values.pop("form"))]
    selective, share = values.pop("selective"), values.pop("recompute_fraction")
    overlapped = int(values.pop("overlapped_microbatches"))
    # a single stage runs its chunks one after the other, as if they were one
    chunks = form.chunks if pp > 1 else 1
    interleaved = form.schedule == "interleaved"
    return {
        "workload.micro_batch": values["micro_batch"],
        "workload.recompute": "selective" if selective else share,
        "workload.zero": int(values["zero"]),
        "workload.schedule": "1f1b" if interleaved or pp == 1 else form.schedule,
        "layout.vpp": chunks,
        "layout.overlapped_microbatches": overlapped,
    }


def _of_serving(
    job: Job, point: Points, values: dict[str, float], degrees: dict[str, int]
) -> dict[str, object]:
    family, extra = job.families[int(point.at.family[0])], values.pop("extra_slots", 0.0)
    attention = family.attention
    if attention == "tp" and degrees["tp"] == 1:
        attention = "dp"
    both = values.pop("overlapped_microbatches") > 1.0
    changes: dict[str, object] = {f"workload.{k}": v for k, v in values.items()}
    changes["layout.attention"] = attention
    changes["layout.overlapped_microbatches"] = 2 if both else "auto"
    if attention != "dp" and job.scenario.layout.head:
        changes["layout.head"] = None  # a tensor group has it
    a = model_of(job.problem)
    if a.experts is None:
        return changes
    slots = expert_slots(a, family, degrees["ep"], extra, sharpness=None)
    redundant, shared = map(float, slots)
    return changes | {
        "routing.redundant_experts": redundant,
        "routing.shared_replicas": shared,
        "routing.experts_per_device": (float(a.experts.routed) + redundant + shared)
        / degrees["ep"],
    }
