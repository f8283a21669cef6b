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


def _dualpipe_order(rank: int, ranks: int, m: int) -> list[Task]:
    """Passes of one rank, those that overlap as a pair.

    The eight steps of the published program: warm up in one direction, then in both,
    backward passes that leave their weights' gradients for later, the steady pairs, and
    the same in reverse. `first` is the direction that enters on this half of the ranks.
    """
    half = min(rank, ranks - 1 - rank)
    halves, each = ranks // 2, m // 2
    second = rank >= halves
    count = {sort: [0, 0] for sort in ("F", "B")}
    late: list[Task] = []
    order: list[Task] = []

    def made(sort: str, phase: int) -> Task:
        direction = phase ^ second
        stage = ranks - 1 - rank if direction else rank
        i = count[sort][phase]
        count[sort][phase] += 1
        return (sort, direction, stage, i)

    def backward(phase: int, split: bool) -> None:
        task = made("B", phase)
        if split:
            late.append(("W", *task[1:]))
            order.append(("b", *task[1:]))
        else:
            order.append(task)

    def weight() -> None:
        order.append(late.pop(0))

    def pair(forward_phase: int) -> None:
        forward = made("F", forward_phase)
        order.append(("pair", forward, made("B", 1 - forward_phase)))

    order += [made("F", 0) for _ in range(2 * (halves - half - 1))]
    for _ in range(half + 1):
        order += [made("F", 0), made("F", 1)]
    for _ in range(halves - half - 1):
        backward(1, split=True)
        weight()
        order.append(made("F", 1))
    for i in range(each - ranks + half + 1):
        if i == 0 and half == halves - 1:  # a middle rank's passes of one micro-batch
            order.append(made("F", 0))
            backward(1, split=False)
        else:
            pair(0)
        pair(1)
    for _ in range(halves - half - 1):
        backward(1, split=False)
        pair(1)
    split = False
    for i in range(half + 1):
        split = split or (i == (half + 1) // 2 and half % 2 == 1)
        backward(1, split)
        split = split or (i == (half + 1) // 2 and half % 2 == 0)
        backward(0, split)
    for _ in range(halves - half - 1):
        weight()
        backward(0, split=True)
    return order + [late.pop(0) for _ in range(half + 1)]


def dualpipe(forward, backward, weight, m: int) -> float:
    """DualPipe (DeepSeek-V3, figure 5): micro-batches enter from both ends.

    The stages must be even in number, and m even and at least twice as many.
    """
    ranks = len(forward)
    orders = [_dualpipe_order(rank, ranks, m) for rank in range(ranks)]
    within = {}
    for order in orders:
        for task in order:
            for part in task[1:] if task[0] == "pair" else (task,):
                within[("B" if part[0] == "b" else part[0], *part[1:])] = task

    def seconds(task: Task) -> float:
        if task[0] == "pair":
            return sum(seconds(part) for part in task[1:])
        sort, _, stage, _ = task
        whole = {"F": forward, "b": backward, "W": weight}
        if sort == "B":
            return backward[stage] + weight[stage]
        return whole[sort][stage]

    def parts(task: Task) -> list[Task]:
        sort, direction, stage, i = task
        if sort == "F":
            return [("F", direction, stage - 1, i)] if stage else []
        if sort == "W":
            return [("B", direction, stage, i)]
        after = [("B", direction, stage + 1, i)] if stage < ranks - 1 else []
        return [("F", direction, stage, i), *after]

    def needs(task: Task) -> list[Task]:
        own = task[1:] if task[0] == "pair" else (task,)
        return [within[other] for part in own for other in parts(part)]

    return makespan(orders, seconds, needs)
