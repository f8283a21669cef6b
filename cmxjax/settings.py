"""Process-wide settings, made by the command line and by scripts, never on import."""

import os
from pathlib import Path

import jax


def setup() -> None:
    """Compute in float64 and keep compiled programs between runs.

    The programs lie under `$CMXJAX_CACHE`, else the user's cache folder; deleting them
    only costs a compilation.
    """
    jax.config.update("jax_enable_x64", True)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("CMXJAX_CACHE") or Path(base) / "cmxjax")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
