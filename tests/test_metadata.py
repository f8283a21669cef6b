"""What the installed package and the lock file require."""

import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in requires("cmxjax") or []]


def named(name: str) -> list[Requirement]:
    found = [r for r in requirements() if canonical(r.name) == name]
    assert found, f"cmxjax does not require {name}"
    return found


def locked() -> dict[str, str]:
    """Version of every pinned package by canonical name."""
    pins = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;\\]+)", LOCK, re.MULTILINE)
    return {canonical(name): pinned for name, pinned in pins}


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
@pytest.mark.parametrize(
    "bad", ["0.10.2", "0.11", "0.11.0", "0.11.2", "0.10.0", "0.4.38"]
)
def test_versions_that_miscompile_or_are_untried_are_refused(name, bad):
    assert not any(requirement.specifier.contains(bad) for requirement in named(name))


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_the_tried_version_is_accepted(name):
    assert all(requirement.specifier.contains("0.10.1") for requirement in named(name))


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_the_gpu_extras_refuse_the_same_versions(extra):
    found = [
        r
        for r in requirements()
        if r.marker and r.marker.evaluate({"extra": extra}) and extra in r.extras
    ]
    assert found
    for requirement in found:
        assert requirement.specifier.contains("0.10.1")
        assert not requirement.specifier.contains("0.10.2")
        assert not requirement.specifier.contains("0.11.0")


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_the_tests_run_on_the_tried_version(name):
    assert version(name) == "0.10.1"


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_the_lock_pins_the_tried_version(name):
    assert locked()[name] == "0.10.1"


def test_the_metadata_is_that_of_the_project_file():
    ours = {str(Requirement(text)) for text in PROJECT["dependencies"]}
    assert ours == {str(r) for r in requirements() if r.marker is None}


@pytest.mark.parametrize(
    "text",
    PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"],
    ids=lambda text: Requirement(text).name,
)
def test_the_lock_holds_every_dependency_in_a_version_that_fits(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(locked()[canonical(requirement.name)])


def test_every_pin_of_the_lock_carries_a_hash():
    blocks = re.split(r"^(?=[\w.-]+(?:\[[\w,-]+\])?==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked())
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.split("\n")[0]


def test_the_lock_names_no_package_without_a_pin():
    lines = [
        line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))
    ]
    assert all("==" in line for line in lines)
    assert not any(word in LOCK for word in ("file://", " -e ", "git+", "--index-url"))
