"""Process-wide settings, made by the command line and by scripts, never on import."""

import os
import warnings
from pathlib import Path

import jax

from ._jax import JAXLIB
from ._quiet import QUIET

COMPILER_FLAGS = {
    "--xla_cpu_use_fusion_emitters": ("false", (0, 11, 0)),
    "--xla_backend_extra_options": ("xla_cpu_use_multi_output_fusion", (0, 12)),
    "--xla_disable_hlo_passes": ("cse_barrier_expander", (0, 10)),
}
"""Flags of the CPU compiler, each with the last release of jaxlib known to accept it: one
that doesn't know a flag stops the process.

The newer code generator of jaxlib 0.10 takes more than twice as long to compile the
gradients of this model and gains nothing at run time; 0.11.1 has no other. Loops with
several results compute once what several terms of a gradient share, instead of once for
each: gradients run 1.3 to 2 times as fast, values up to 1.5 times. Barriers are kept
until loops are made, else what lies before one is computed anew for each of many behind
it: training of mixtures runs twice as fast."""


def flags_for(release: tuple[int, ...]) -> list[str]:
    """The compiler flags that a release of jaxlib knows and that are not set already."""
    given = os.environ.get("XLA_FLAGS", "")
    return [
        f"{flag}={value}"
        for flag, (value, last) in COMPILER_FLAGS.items()
        if flag not in given and release[: len(last)] <= last
    ]


def setup(*, cache: bool = True) -> None:
    """Compute in float64, compile fast and keep compiled programs between runs.

    Public names that compute call it unless it was called; call it yourself, before the
    first computation, to choose: the compiler reads its flags only once. The programs
    lie under `$CMXJAX_CACHE`, else in the user's cache folder; deleting them only costs
    a compilation.

    Args:
        cache: keep compiled programs on disk. Where JAX was imported before this package
            they are not kept, as loading them would flood the error stream; a warning
            says so.
    """
    global _called
    _called = True
    jax.config.update("jax_enable_x64", True)
    flags = [os.environ.get("XLA_FLAGS", ""), *flags_for(JAXLIB)]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    if cache and QUIET:
        _keep_programs()
    elif cache and not getattr(jax.config, "jax_compilation_cache_dir", None):
        warnings.warn(
            "JAX was imported before cmxjax, so compiled programs are not kept between"
            " runs; import cmxjax first",
            stacklevel=2,
        )


_called = False


def setup_once() -> None:
    """`setup` with its defaults, unless it was called."""
    if not _called:
        setup()


def use_all_cores() -> None:
    """Let each core be a device that rows are spread over; where the processor computes,
    unless something was computed before or the environment says how many there are."""
    if "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", _cores())
    except RuntimeError:
        pass  # it is too late: the devices there are will do


def _cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _keep_programs() -> None:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("CMXJAX_CACHE") or Path(base) / "cmxjax")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
