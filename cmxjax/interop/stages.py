"""Layers of each pipeline chunk in whole numbers."""

from ..specs.build import Problem


def _chunks(problem: Problem) -> int:
    return int(problem.scenario.layout.vpp or 1)  # pyright: ignore


def _layers(problem: Problem) -> int:
    return int(problem.model.layers) if problem.model else 0


def even(problem: Problem, pp: int) -> bool:
    """Whether all chunks hold equally many layers."""
    return len(set(layers_of_chunks(problem, pp))) == 1


def layers_of_chunks(problem: Problem, pp: int) -> list[int]:
    """Layers of each chunk in the order of the model, pp x vpp of them.

    Where the scenario leaves it open, spare layers go to the middle, since the first
    chunk has the embedding and the last one the head.
    """
    given, times = problem.scenario.layout.stages, _chunks(problem)  # pyright: ignore
    if given is not None:
        # a rank's chunks are pp apart; its first ones take what doesn't divide
        return [n // times + (turn < n % times) for turn in range(times) for n in given]
    count, layers = pp * times, _layers(problem)
    chunks = [layers // count] * count
    middle = sorted(range(count), key=lambda i: abs(i - (count - 1) / 2))
    for i in middle[: layers % count]:
        chunks[i] += 1
    return chunks


def layout_string(chunks: list[int], drafts: int = 0) -> str:
    """Megatron's layout: E embedding, t layer, m draft (MTP) layer, L head and loss.

    Source: `pipeline_parallel_layer_layout.py` of megatron-core 0.16.1.
    """
    parts = [f"t*{n}" if n > 1 else "t" * n for n in chunks]
    parts[0] = "E" + parts[0]
    parts[-1] += ("m" if drafts == 1 else f"m*{drafts}" if drafts else "") + "L"
    return "|".join(parts)
