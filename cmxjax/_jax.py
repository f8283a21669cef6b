"""Which releases of JAX compute rightly; the others are refused by name."""

import jax
from jaxlib.version import __version__ as _jaxlib_version

WRONG = {
    "0.10.2": "it silently computes wrong rows in jitted, vmapped reductions over more"
    " than 16,384 rows on CPU (jax-ml/jax#39103)",
}
"""Releases of jax and jaxlib that give wrong numbers."""


def refuse_wrong(**versions: str) -> None:
    """Raises `ImportError` if a package's version is known to compute wrongly."""
    for package, version in versions.items():
        if version in WRONG:
            raise ImportError(
                f"{package} {version} can't be used: {WRONG[version]}; install another"
                f" release: pip install 'jax!={version}' 'jaxlib!={version}'"
            )


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, such as (0, 12, 0, 1), without what follows them."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


JAXLIB = release(_jaxlib_version)

refuse_wrong(jax=jax.__version__, jaxlib=_jaxlib_version)
