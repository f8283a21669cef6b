"""Buckets in which ranks gather weights and reduce gradients: how large, how many.

They are filled in turn with the weights of a stage, whatever the layer: a small one takes
a part of a layer, a large one several. Without a size given, each part travels at once.
"""

from typing import NamedTuple

from .. import smooth
from .._types import Leaf, Scalar
from ..job.workload import Train
from ..model.architecture import added
from .held import Held, Holding

FILLING = 2.0
"""Buckets of gradients at once: one fills while the one before is reduced."""


class Moved(NamedTuple):
    """Weights that one collective moves, and how often it runs for a part of them."""

    weights: Scalar
    runs: Scalar | None
    """Below one where a bucket holds more than the part; None: once."""


def bucket_of(w: Train, weights: Leaf) -> Leaf:
    """Parameters of a bucket: all of a stage's `weights` where it could hold more."""
    return weights if w.zero_bucket is None else smooth.smaller(w.zero_bucket, weights)


def fullest(stages: Held) -> Held:
    """Most weights that any of some stages holds, common ones and experts; (stage,)."""
    return Held(*(smooth.largest(held, None) for held in stages))


def in_buckets(w: Train, parts: Held, whole: Held) -> list[Moved]:
    """How common weights and experts of a layer, or of a stage, move.

    Args:
        whole: weights of the stage, which fill its buckets.
    """
    if w.zero_bucket is None:
        return [Moved(part, None) for part in parts]
    sizes = (bucket_of(w, held) for held in whole)
    return [Moved(size, _runs(part, size)) for size, part in zip(sizes, parts)]


def _runs(part: Scalar, size: Scalar) -> Scalar:
    """Buckets of a size in a part; a stage may hold no experts."""
    return part / smooth.larger(size, 1.0)


def exposed_of(w: Train, holding: Holding, exposed: Scalar) -> Scalar:
    r"""Share of the shorter of compute and n equal buckets that is not hidden.

    $$ 1 - (1 - \omega)\,(1 - 1/n) $$

    Two machines that n equal jobs pass in turn take `max + min / n` of the sums of their
    times: the first bucket is gathered before any work, and the last one reduced behind
    it. So does `smooth.overlap_s` with 1 / n exposed; of the rest, the framework hides
    all but `exposed`.

    Reference: Johnson, Naval Research Logistics Quarterly 1(1), 1954 (flow shops).
    """
    if w.zero_bucket is None:
        return exposed
    most = fullest(holding.weights)
    count = added(_runs(part, bucket_of(w, part)) for part in most)
    return 1.0 - (1.0 - exposed) * (1.0 - 1.0 / smooth.larger(count, 1.0))
