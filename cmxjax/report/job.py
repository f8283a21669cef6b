"""The job as it was understood, in words."""

from collections.abc import Iterator, Mapping

from rich.text import Text

from ..job.layout import AXES
from ..specs.build import Problem
from ..specs.resolved import resolved, unstated


def job_text(problem: Problem) -> Text:
    """What was understood of a job, and what of it nobody said with the key to say it."""
    job = resolved(problem)
    flat = dict(_leaves(job))
    names = ("system", "model", "engine", "graphs")
    parts = [f"{name} {_word(job[name])}" for name in names if name in job]
    for section in ("workload", "dtypes", "routing", "limits", "op", "collective"):
        said = [
            f"{key.removeprefix(f'{section}.')} {_word(value)}"
            for key, value in flat.items()
            if key.startswith(f"{section}.")
        ]
        parts += [", ".join(said)] if said else []
    if isinstance(layout := job.get("layout"), Mapping) and "devices" in layout:
        parts.insert(1, _layout(layout))
    if isinstance(pools := job.get("pools"), list):
        parts += [f"{p['role']} {p['devices']} devices{_layout_of(p)}" for p in pools]
    taken = {key: flat[key] for key in unstated(problem) if flat.get(key)}  # not off
    assumed = [f"{key} = {_word(value)}" for key, value in taken.items()]
    text = Text(f"job: {'; '.join(parts)}")
    if assumed:
        text.append(f"\nassumed, change with --set: {', '.join(assumed)}")
    return text


def _layout(layout: Mapping[str, object]) -> str:
    split = layout.get("placement")
    rows = split if isinstance(split, Mapping) else {}
    degrees = [
        f"{a} {layout[a]}" + (f" ({'x'.join(map(str, rows[a]))})" if a in rows else "")
        for a in AXES
        if layout.get(a) not in (1, None)
    ]
    return " ".join([f"{layout['devices']} devices", *degrees])


def _layout_of(pool: Mapping[str, object]) -> str:
    layout = pool.get("layout")
    return f", each {_layout(layout)}" if isinstance(layout, Mapping) else ""


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{value.get('base')}, changed"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _leaves(node: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
