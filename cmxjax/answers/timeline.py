"""When each pipeline stage runs which pass: a schedule, event by event.

Stages work through their passes in the schedule's order and wait for what each pass
needs. DualPipe, whose order comes from a search, runs greedily: gradients first, then
whatever has waited longest.
"""

from collections.abc import Callable
from typing import NamedTuple


class Task(NamedTuple):
    """One pass of one micro-batch through one chunk of one stage."""

    sort: str
    """`F` forward, `B` gradients of inputs, `W` gradients of weights."""
    stage: int
    chunk: int
    microbatch: int


class Run(NamedTuple):
    """A task with the time at which a device starts and ends it."""

    task: Task
    device: int
    start_s: float
    end_s: float


Order = list[Task]


def _ahead(stages: int, s: int, m: int) -> tuple[int, Order]:
    warm = min(stages - s, m)
    return warm, [Task("F", s, 0, i) for i in range(warm)]


def _gpipe(stages: int, m: int, chunks: int) -> list[Order]:
    return [
        [Task("F", s, 0, i) for i in range(m)]
        + [Task(sort, s, 0, i) for i in range(m) for sort in "BW"]
        for s in range(stages)
    ]


def _1f1b(stages: int, m: int, chunks: int) -> list[Order]:
    orders = []
    for s in range(stages):
        warm, order = _ahead(stages, s, m)
        for i in range(m):
            order += [Task("B", s, 0, i), Task("W", s, 0, i)]
            order += [Task("F", s, 0, warm + i)] * (warm + i < m)
        orders.append(order)
    return orders


def _zero_bubble(stages: int, m: int, chunks: int) -> list[Order]:
    """ZB-H1: gradients of weights lag by as many micro-batches as stages are ahead."""
    orders = []
    for s in range(stages):
        warm, order = _ahead(stages, s, m)
        late = 0
        for i in range(m):
            order.append(Task("B", s, 0, i))
            ends = warm + i >= m
            if (ends and late <= i) or (not ends and i >= s):
                order.append(Task("W", s, 0, late))
                late += 1
            order += [Task("F", s, 0, warm + i)] * (not ends)
        orders.append(order + [Task("W", s, 0, i) for i in range(late, m)])
    return orders


def _interleaved(stages: int, m: int, chunks: int) -> list[Order]:
    """1F1B over chunks as in Megatron-LM; the last group may be short."""
    forward: list[tuple[int, int]] = []
    for start in range(0, m, stages):
        group = range(start, min(start + stages, m))
        forward += [(chunk, i) for chunk in range(chunks) for i in group]
    back = [(chunks - 1 - chunk, i) for chunk, i in forward]
    orders = []
    for s in range(stages):
        warm = min((stages - s - 1) * 2 + (chunks - 1) * stages, len(forward))
        order = [Task("F", s, *place) for place in forward[:warm]]
        for k, place in enumerate(back):
            if warm + k < len(forward):
                order.append(Task("F", s, *forward[warm + k]))
            order += [Task("B", s, *place), Task("W", s, *place)]
        orders.append(order)
    return orders


_ORDERS: dict[str, Callable[[int, int, int], list[Order]]] = {
    "gpipe": _gpipe,
    "1f1b": _1f1b,
    "zero_bubble": _zero_bubble,
    "interleaved": _interleaved,
}


def _needs(task: Task, stages: int, chunks: int) -> list[Task]:
    """What must be done before a task, besides what its stage does first."""
    sort, s, chunk, i = task
    if sort == "W":
        return [Task("B", s, chunk, i)]
    if sort == "F":
        if s:
            return [Task("F", s - 1, chunk, i)]
        return [Task("F", stages - 1, chunk - 1, i)] if chunk else []
    forward = Task("F", s, chunk, i)
    if s < stages - 1:
        return [forward, Task("B", s + 1, chunk, i)]
    return [forward, *([Task("B", 0, chunk + 1, i)] if chunk < chunks - 1 else [])]


def timeline(
    schedule: str,
    seconds: Callable[[Task], float],
    stages: int,
    microbatches: int,
    chunks: int = 1,
) -> list[Run]:
    """Every task with its times, in the order in which tasks start on each device.

    Args:
        seconds: duration of a task.
        chunks: model chunks of a device; for schedules but `interleaved` taken as 1.
    """
    if schedule == "dualpipe":
        return _greedy(seconds, stages, microbatches)
    parts = chunks if schedule == "interleaved" else 1
    orders = _ORDERS[schedule](stages, microbatches, parts)
    done: dict[Task, float] = {}
    runs: list[Run] = []
    at, clock = [0] * stages, [0.0] * stages
    moved = True
    while moved:
        moved = False
        for s, order in enumerate(orders):
            while at[s] < len(order):
                task = order[at[s]]
                needs = _needs(task, stages, parts)
                if any(need not in done for need in needs):
                    break
                start = max([clock[s], *(done[need] for need in needs)])
                clock[s] = done[task] = start + seconds(task)
                runs.append(Run(task, s, start, clock[s]))
                at[s] += 1
                moved = True
    return runs


def _greedy(
    seconds: Callable[[Task], float], stages: int, microbatches: int
) -> list[Run]:
    """DualPipe: odd micro-batches enter at the last device, whose first stage it holds.

    The device of stage s is s for even micro-batches and its mirror image for odd ones.
    """

    def device(task: Task) -> int:
        return task.stage if task.microbatch % 2 == 0 else stages - 1 - task.stage

    ready: list[list[tuple[float, Task]]] = [[] for _ in range(stages)]
    clock, flying = [0.0] * stages, [0] * stages
    for i in range(microbatches):
        first = Task("F", 0, 0, i)
        ready[device(first)].append((0.0, first))
    runs: list[Run] = []
    while any(ready):
        best: tuple | None = None
        for d, waiting in enumerate(ready):
            for since, task in waiting:
                if task.sort == "F" and task.stage == 0 and flying[d] > stages:
                    continue  # new micro-batches wait until others have left
                rank = (max(since, clock[d]), "BFW".index(task.sort), since)
                if best is None or rank < best[0]:
                    best = (rank, d, since, task)
        if best is None:
            raise RuntimeError("the schedule deadlocks")
        _, d, since, task = best
        ready[d].remove((since, task))
        start = max(since, clock[d])
        end = clock[d] = start + seconds(task)
        runs.append(Run(task, d, start, end))
        flying[d] += {"F": 1, "B": 0, "W": -1}[task.sort]
        for after in _follow(task, stages):
            ready[device(after)].append((end, after))
    return runs


def _follow(task: Task, stages: int) -> list[Task]:
    sort, s, chunk, i = task
    if sort == "F":
        last = s == stages - 1
        return [Task("B", s, chunk, i)] if last else [Task("F", s + 1, chunk, i)]
    if sort == "B":
        weight = Task("W", s, chunk, i)
        return [weight, *([Task("B", s - 1, chunk, i)] if s else [])]
    return []
