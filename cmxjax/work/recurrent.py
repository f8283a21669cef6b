"""Work of a recurrent mixer: projections, convolution, and the recurrence itself.

Decode moves a state on by one token (or by a few that are drafted); prefill and training
compute chunks by products of matrices, or scan them where each state decays by itself.

Features used beside those of `attention`:
    sequences: sequences of the group whose states this device reads and writes
"""

from ..job.workload import Sizes
from ..model.architecture import Architecture
from ..model.recurrent import Recurrent
from .table import Op, gemm

CONVOLUTION_FLOP = 2.0
"""Of a channel and tap; the activation behind counts with the gate."""

STEP_FLOP = 5.0
"""Vector FLOP of an element of the state and token: decayed, a product of key and value
added, and multiplied by the query."""

DELTA_FLOP = 3.0
"""More where a key's old value is read and taken away first."""

GATE_FLOP = 20.0
"""Vector FLOP of an output: norm, gate with its exponential, and conversions (assumed, as
for the norm and the activation of a network)."""

CHUNK_STATE_BYTES = 8.0
"""Of an element of the state in each chunk: written and read in fp32."""


def recurrent_ops(
    a: Architecture, at: Recurrent, sizes: Sizes, decodes: bool
) -> list[Op]:
    """Operators of one mixer, without norm.

    Reference: Dao and Gu, arXiv 2405.21060, section 6 (chunks); Yang et al., arXiv
    2412.06464, section 3.3.
    """
    core = _step(at, sizes) if decodes else _chunks(at)
    columns, split = at.inner / at.inner_depth, {"split_columns": "per_heads"}
    return [
        gemm("input projection", "head_rows", at.columns, a.hidden, **split),
        gemm("inner projections", "head_rows", columns, at.inner_depth, **split),
        _vector("convolution", at.channels, 4.0, CONVOLUTION_FLOP * at.kernel),
        *core,
        _vector("output gate", at.outputs, 6.0, GATE_FLOP),
        gemm(
            "output projection", "out_rows", a.hidden, at.outputs, split_depth="per_out"
        ),
    ]


def _vector(name: str, width, moved: float, flop) -> Op:
    return Op(
        name,
        "attention",
        "vector",
        "head_rows",
        width,
        split_columns="per_heads",
        out_bytes=moved,
        vector_flop=flop,
        role="core",
    )


def _flop(at: Recurrent):
    return STEP_FLOP + DELTA_FLOP * at.delta.on


def _step(at: Recurrent, sizes: Sizes) -> list[Op]:
    """Each state is read and written once, however many drafts follow."""
    return [
        Op(
            "recurrence",
            "attention",
            "vector",
            "head_rows",
            at.memory,
            split_columns="per_heads",
            extra=("sequences", 2.0 * at.state * sizes.state),
            vector_flop=_flop(at),
            role="core",
        )
    ]


def _chunks(at: Recurrent) -> list[Op]:
    """Products of matrices with a state at the end of each chunk; or a scan."""
    scanned = at.scanned.on
    return [
        Op(
            "chunk products",
            "attention",
            "attention",
            "head_rows",
            (1.0 - scanned) * at.chunk_products,
            split_columns="per_heads",
            dtype="attention",
            role="core",
        ),
        _vector("chunk states", at.memory / at.chunk, CHUNK_STATE_BYTES, _flop(at)),
        _vector("scan", scanned * at.memory, 0.0, _flop(at)),
    ]
