"""What a worker is sent: a function that loads nothing before it is called."""

from importlib import import_module


def run_parts(task: str, parts: list[int]) -> dict[str, list]:
    """Evaluate and write parts: what became of the points of each, or mistakes."""
    # before JAX is imported; the layer of settings is above this one
    import_module("cmxjax.settings").setup_once()
    from .cluster import evaluated

    return evaluated(task, parts)
