"""Pipeline schedules run event by event: what the closed forms must agree with.

A rank works through its tasks in a fixed order and waits for what each depends on.
"""

from collections.abc import Callable

Task = tuple


def makespan(
    orders: list[list[Task]],
    seconds: Callable[[Task], float],
    needs: Callable[[Task], list[Task]],
) -> float:
    """Time until the last rank is done."""
    done: dict[Task, float] = {}
    at, clock = [0] * len(orders), [0.0] * len(orders)
    while len(done) < sum(map(len, orders)):
        before = len(done)
        for rank, order in enumerate(orders):
            while at[rank] < len(order):
                task = order[at[rank]]
                waits = needs(task)
                if any(other not in done for other in waits):
                    break
                start = max([clock[rank], *(done[other] for other in waits)])
                clock[rank] = done[task] = start + seconds(task)
                at[rank] += 1
        if len(done) == before:
            raise RuntimeError("the schedule deadlocks")
    return max(clock)


def _flat(forward, backward, weight, orders) -> float:
    stages = len(forward)
    times = {"F": forward, "B": backward, "W": weight}

    def needs(task):
        sort, s, i = task
        if sort == "F":
            return [("F", s - 1, i)] if s else []
        if sort == "W":
            return [("B", s, i)]
        return [("F", s, i), *([("B", s + 1, i)] if s < stages - 1 else [])]

    return makespan(orders, lambda task: times[task[0]][task[1]], needs)


def gpipe(forward, backward, weight, m: int) -> float:
    """All forward, then all backward."""
    both = [b + w for b, w in zip(backward, weight)]
    orders = [
        [(sort, s, i) for sort in "FB" for i in range(m)] for s in range(len(forward))
    ]
    return _flat(forward, both, weight, orders)


def one_forward_one_backward(forward, backward, weight, m: int) -> float:
    """1F1B: as many forwards ahead as there are stages behind."""
    stages, both = len(forward), [b + w for b, w in zip(backward, weight)]
    orders = []
    for s in range(stages):
        warm = min(stages - s - 1, m)
        order: list[Task] = [("F", s, i) for i in range(warm)]
        for i in range(m - warm):
            order += [("F", s, warm + i), ("B", s, i)]
        orders.append(order + [("B", s, i) for i in range(m - warm, m)])
    return _flat(forward, both, weight, orders)


def zero_bubble(forward, backward, weight, m: int) -> float:
    """ZB-H1: a stage's gradients of weights lag by as many micro-batches as its index."""
    stages = len(forward)
    orders = []
    for s in range(stages):
        warm, late = min(stages - s, m), 0
        order: list[Task] = [("F", s, i) for i in range(warm)]
        for i in range(m):
            order.append(("B", s, i))
            ends = warm + i >= m
            if (ends and late <= i) or (not ends and i >= s):
                order.append(("W", s, late))
                late += 1
            if not ends:
                order.append(("F", s, warm + i))
        orders.append(order + [("W", s, i) for i in range(late, m)])
    return _flat(forward, backward, weight, orders)


def interleaved(forward, backward, weight, m: int, chunks: int) -> float:
    """1F1B over model chunks as in Megatron-LM; m must be a multiple of the stages."""
    stages, total = len(forward), m * chunks
    both = [b + w for b, w in zip(backward, weight)]

    def place(k: int, reverse: bool) -> tuple[int, int]:
        group, rest = divmod(k, stages * chunks)
        chunk = rest // stages
        return (chunks - 1 - chunk if reverse else chunk), group * stages + rest % stages

    orders = []
    for s in range(stages):
        warm = min((stages - s - 1) * 2 + (chunks - 1) * stages, total)
        order: list[Task] = [("F", s, *place(k, False)) for k in range(warm)]
        for k in range(total - warm):
            order.append(("F", s, *place(warm + k, False)))
            order.append(("B", s, *place(k, True)))
        rest = range(total - warm, total)
        orders.append(order + [("B", s, *place(k, True)) for k in rest])

    def needs(task):
        sort, s, chunk, i = task
        if sort == "F":
            if s:
                return [("F", s - 1, chunk, i)]
            return [("F", stages - 1, chunk - 1, i)] if chunk else []
        if s < stages - 1:
            return [("F", s, chunk, i), ("B", s + 1, chunk, i)]
        more = chunk < chunks - 1
        return [("F", s, chunk, i), *([("B", 0, chunk + 1, i)] if more else [])]

    times = {"F": forward, "B": both}
    return makespan(orders, lambda t: times[t[0]][t[1]] / chunks, needs)
