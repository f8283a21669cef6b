r"""Time of a pipeline schedule, in closed form, with uneven stages.

m micro-batches pass p stages; stage s takes F_s forward and B_s backward. The makespan
is the longest path through the schedule. It runs along one stage s: the first
micro-batch comes down to it, s works through all m, the last one leaves; and s idles
where what is after it answers later than its own warm-up lasts. For 1F1B, with d_s
stages after s,

$$ T = \max_s\Bigl[\sum_{q<s}(F_q + B_q) + m (F_s + B_s)
+ \bigl(A_s - d_s F_s\bigr)^+ + \bigl(A_s - d_s B_s\bigr)^+\Bigr],
\qquad A_s = \sum_{q>s}(F_q + B_q) $$

which is $(m + p - 1)(F + B)$ for equal stages. The others are made the same way;
DualPipe's path is explained in `dualpipe`.

Reference: Huang et al., arXiv 1811.06965 (GPipe); Narayanan et al., arXiv 2104.04473
(1F1B, interleaved); Qi et al., arXiv 2401.10241 (zero bubble, H1); DeepSeek-V3, arXiv
2412.19437, table 2 (DualPipe); Qi et al., arXiv 2405.15362 (zero bubble, V).
"""

from functools import reduce

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..job.workload import ANY, PROGRAMS
from ..switch import either, one_of
from .dualpipe import dualpipe_s
from .line import Line, PassTimes


def pipeline_s(
    schedule: str,
    line: Line,
    microbatches: Scalar,
    chunks: Scalar,
    sharpness: Sharpness,
    order: Leaf = 0.0,
    most_chunks: Scalar | None = None,
) -> Scalar:
    """Time of all micro-batches through all stages.

    Args:
        schedule: `gpipe`, `1f1b`, `interleaved`, `zero_bubble` or `dualpipe`; or `any`.
        chunks: model chunks of a device, for interleaved schedules.
        order: which one `any` is, a place among `PROGRAMS`; or what bounds several of
            them: `SHORTEST`, the shortest of all, or `FINEST`, that of most chunks.
        most_chunks: on a device, for these two; those of `chunks` where left out.

    Agrees with a simulation of the events (in the tests): exactly for GPipe, and for 1F1B
    unless stages differ twofold; for interleaved and ZB-H1 within 1 % where
    stages differ by a third, 2 % where they differ by half. DualPipe is exact for equal
    stages; where they differ by a third it is off by 0.03 % in the mean and 1 % at most,
    but for one case in several thousand; twofold, by 0.3 % and 4 %. Further apart it is
    too short: tenfold by 2 % in the mean and 13 %, and by up to a fifth where a single
    stage takes ten times as long as the others.
    """
    args = line, microbatches, chunks, sharpness
    if schedule == ANY:
        every = [_TIMES[name](*args) for name in PROGRAMS]
        most = chunks if most_chunks is None else most_chunks
        finest = _1f1b(line, microbatches, most, sharpness)
        shortest = [*every, _zero_bubble_v(line, microbatches, sharpness), finest]
        return one_of([*every, reduce(smooth.smaller, shortest), finest], order)
    return _TIMES[schedule](*args)


def chunks_filled(layers: Scalar) -> Scalar:
    """Chunks of all stages that layers fill: the embedding and the head may stand for a
    layer each."""
    return layers + 2.0


def _positive(values):
    return smooth.larger(values, 0.0)


def _both(work: PassTimes):
    return work.backward + work.weight


def _gpipe(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    """Two flow shops of equal jobs: their sum over stages and m - 1 of the longest."""
    slowest = smooth.largest(line.work.forward, sharpness) + smooth.largest(
        _both(line.work), sharpness
    )
    return line.whole.total + (m - 1.0) * slowest


def _1f1b(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    """With one chunk on a device; with several it is the interleaved schedule."""
    args = line, m, chunks, sharpness
    return either(chunks > 1.0, _interleaved(*args), _plain_1f1b(*args))


def _plain_1f1b(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    after = line.after.total
    waits = _positive(after - line.behind * line.work.forward)
    waits = waits + _positive(after - line.behind * _both(line.work))
    return smooth.largest(line.before.total + m * line.work.total + waits, sharpness)


def _interleaved(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    """1F1B over chunks: the first backward pass follows after v rounds of forwards.

    A stage runs 2 d + (v - 1) p chunks forward before its first backward.
    """
    work, before, after, whole = line.work, line.before, line.after, line.whole
    rounds = (chunks - 1.0) * line.stages
    warm = (2.0 * line.behind + rounds + 1.0) / chunks
    down = whole.forward + rounds * smooth.largest(work.forward, sharpness)
    up = _both(whole) + rounds * smooth.largest(_both(work), sharpness)
    first = (down + _both(after) - before.forward) / chunks - warm * work.forward
    last = (up + after.forward - _both(before)) / chunks - warm * _both(work)
    path = before.total / chunks + m * work.total + _positive(first) + _positive(last)
    return smooth.largest(path, sharpness)


def _zero_bubble(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    """With one chunk on a device ZB-H1, with two ZB-V."""
    args = line, m, sharpness
    return either(chunks > 1.0, _zero_bubble_v(*args), _zero_bubble_h1(*args))


def _zero_bubble_h1(line: Line, m: Scalar, sharpness: Sharpness) -> Scalar:
    """ZB-H1: as many activations as 1F1B; gradients of weights fill the gaps.

    They lag by as many micro-batches as there are stages ahead. The longest path ends
    with the work of the stage, or goes up with the last micro-batch, or first comes down
    and back with it. Equal stages idle for (p - 1)(F + B - W).
    """
    work, before, ahead, behind = line.work, line.before, line.ahead, line.behind
    after = line.after.forward + line.after.backward
    start = before.forward + _positive(after - behind * work.forward) + m * work.forward
    stays = start + m * (work.backward + work.weight)
    up = before.backward + line.first.weight
    gone = _positive(m - ahead - 1.0) * work.weight + m * work.backward
    early = _positive(m - behind - 1.0) * work.backward
    early = early + _positive(m - line.stages) * work.weight + after + work.backward
    leaves = start + smooth.larger(gone, early) + up
    return smooth.largest(smooth.larger(stays, leaves), sharpness)


def _zero_bubble_v(line: Line, m: Scalar, sharpness: Sharpness) -> Scalar:
    r"""ZB-V: the second chunks run back up the devices, with the activations of 1F1B.

    A device starts when the first micro-batch reaches it and the next step follows in
    the same order, so what counts is how long one is at work, not when the last ends.
    Of p devices with f, b and w of a chunk the last one waits for its first gradient
    after all the forward passes that memory holds, for $(p - 1)(b - f)^+$; short
    gradients of weights leave $(p - 1)(f + b - 4 w)^+$ unfilled, which is about what a
    search over orders finds. Equal passes leave nothing. With few micro-batches the
    first one's way through all chunks and back is longer, after which the first device
    has a gradient of each left. A search over orders finds this time for one micro-batch
    and from two for each device on; what it finds between is up to an eighth longer.
    """
    whole, work = line.whole, line.work
    busy = m * smooth.largest(work.total, sharpness)
    late = whole.backward - whole.forward
    unfilled = whole.forward + whole.backward - 4.0 * whole.weight
    gaps = 0.5 * (1.0 - 1.0 / line.stages) * _positive(smooth.larger(late, unfilled))
    trip = whole.forward + whole.backward
    rest = (m - 1.0) * line.first.backward + m * line.first.weight
    return smooth.larger(busy + gaps, trip + 0.5 * rest)


def _dualpipe(line: Line, m: Scalar, chunks: Scalar, sharpness: Sharpness) -> Scalar:
    return dualpipe_s(line, m, sharpness)


_TIMES = {
    "gpipe": _gpipe,
    "1f1b": _1f1b,
    "interleaved": _interleaved,
    "zero_bubble": _zero_bubble,
    "dualpipe": _dualpipe,
}

SCHEDULES = tuple(_TIMES)

SHORTEST, FINEST = float(len(PROGRAMS)), len(PROGRAMS) + 1.0
"""Further values of `order`, which no single job has."""
