"""Every test runs in float64, without programs left over from earlier runs."""

from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from cmxjax.settings import setup

setup(cache=False)

import jax  # noqa: E402

import cmxjax.specs.build as builder  # noqa: E402
from cmxjax.specs.scenario import load_scenario  # noqa: E402


@pytest.fixture(scope="session")
def problem():
    """Build a shipped scenario with dotted keys changed, as printed (no calibration)."""

    def make(name: str, **changes):
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return builder.build(load_scenario(name, dotted), "none")

    return make


FEW, MANY = 1, 12
"""Cases of one test that all run fast. Of more, every fourth one by its name does, and of
many every eighth; the others run beside the slow tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    cases = Counter(item.nodeid.partition("[")[0] for item in items)
    for item in items:
        count = cases[item.nodeid.partition("[")[0]]
        every = 1 if count <= FEW else 4 if count <= MANY else 8
        if crc32(item.nodeid.encode()) % every:
            item.add_marker(pytest.mark.slow)


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Forget compiled programs before their memory maps reach the system's limit."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
