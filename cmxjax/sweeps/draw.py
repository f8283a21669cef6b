"""Samples of the unit cube that can be had from any place on: streams and restarts.

Both kinds are made in blocks, so that a sample depends on the seed and its number alone.
"""

from functools import cache

import numpy as np
from scipy.stats import qmc

BLOCK_BITS = 16
BLOCK = 2**BLOCK_BITS
"""Samples that are made at once."""

SOBOL_BITS = 32
"""Binary digits of a coordinate and of the number of a sample; scipy jumps ahead with no
more."""


def drawn(kind: str, seed: tuple[int, ...], width: int, rows: np.ndarray) -> np.ndarray:
    """Samples by their numbers, (row, width), in [0, 1).

    Args:
        kind: `random` or `sobol`.
        seed: what else they depend on.
        rows: numbers of samples; the nearer, the fewer blocks are made.
    """
    block, place = np.divmod(rows, BLOCK)
    found = np.empty((len(rows), width))
    make = _sobol_block if kind == "sobol" else _random_block
    for number in np.unique(block):
        mine = block == number
        found[mine] = make(seed, width, int(number))[place[mine]]
    return found


@cache
def _kept(maker: str, seed: tuple[int, ...], width: int) -> dict[int, np.ndarray]:
    """The last block of a stream."""
    return {}


def _random_block(seed: tuple[int, ...], width: int, number: int) -> np.ndarray:
    kept = _kept("random", seed, width)
    if number not in kept:
        kept.clear()
        kept[number] = np.random.default_rng([*seed, number]).random((BLOCK, width))
    return kept[number]


def _sobol_block(seed: tuple[int, ...], width: int, number: int) -> np.ndarray:
    r"""A block of a scrambled Sobol sequence.

    In binary digits sample n is $x_n = x_0 \oplus \bigoplus_j g_j$ over the digits j of n
    that are set, as the Gray code of n and the scrambling (Matousek, J. Complexity 14,
    1998) are linear over them. So a block is the first one, moved.
    """
    kept = _kept("sobol", seed, width)
    if number not in kept:
        first, start = _first_block(seed, width), 0
        moved = first.copy()
        while number >> start:
            if (number >> start) & 1:
                moved ^= first[0] ^ _sample(seed, width, BLOCK_BITS + start)
            start += 1
        kept.clear()
        kept[number] = moved / 2.0**SOBOL_BITS
    return kept[number]


def _engine(seed: tuple[int, ...], width: int) -> qmc.Sobol:
    rng = np.random.default_rng([*seed, width])
    return qmc.Sobol(width, scramble=True, bits=SOBOL_BITS, rng=rng)


@cache
def _first_block(seed: tuple[int, ...], width: int) -> np.ndarray:
    """The first samples in binary digits, (row, width)."""
    samples = _engine(seed, width).random(BLOCK)
    return (samples * 2.0**SOBOL_BITS).astype(np.int64)


@cache
def _sample(seed: tuple[int, ...], width: int, digit: int) -> np.ndarray:
    """Sample 2^digit in binary digits."""
    sample = _engine(seed, width).fast_forward(2**digit).random(1)[0]
    return (sample * 2.0**SOBOL_BITS).astype(np.int64)
