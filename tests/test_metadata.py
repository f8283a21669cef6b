"""What the installed package and the lock file require."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from cmxjax._jax import refuse_wrong, release
from cmxjax.settings import flags_for

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


PIN = r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;\\]+)(?: ; ([^\\\n]+?))? \\$"


def locked(python: str | None = None) -> dict[str, str]:
    """Version of every pinned package by canonical name, for this Python or another."""
    target = {} if python is None else {"python_full_version": f"{python}.0"}
    target |= {} if python is None else {"python_version": python}
    return {
        canonical(name): pinned
        for name, pinned, marker in re.findall(PIN, LOCK, re.MULTILINE)
        if not marker or Marker(marker).evaluate(target)
    }


TRIED = ["0.10.1", "0.11.2", "0.12.0.1", "1.0"]
"""Releases that the suite passes with, and one that does not exist yet."""


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
@pytest.mark.parametrize("bad", ["0.10.2", "0.10.0", "0.4.38"])
def test_versions_that_miscompile_or_are_too_old_are_refused(name, bad):
    assert not any(requirement.specifier.contains(bad) for requirement in named(name))


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
@pytest.mark.parametrize("good", TRIED)
def test_all_other_versions_are_accepted(name, good):
    assert all(requirement.specifier.contains(good) for requirement in named(name))


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_the_gpu_extras_refuse_the_same_versions(extra):
    found = [
        r
        for r in requirements()
        if r.marker and r.marker.evaluate({"extra": extra}) and extra in r.extras
    ]
    assert found
    for requirement in found:
        assert all(requirement.specifier.contains(good) for good in TRIED)
        assert not requirement.specifier.contains("0.10.2")


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
def test_a_release_known_to_compute_wrongly_is_refused_by_name(package):
    with pytest.raises(ImportError, match=f"{package} 0.10.2 can't be used.*39103"):
        refuse_wrong(**{package: "0.10.2"})
    refuse_wrong(**dict.fromkeys(("jax", "jaxlib"), "0.12.0.1"))


def test_a_wrong_release_stops_the_import(tmp_path):
    """As a user meets it: the environment has the bad one, however it got there."""
    script = "import jax; jax.__version__ = '0.10.2'; import cmxjax; cmxjax.metrics"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "jax 0.10.2 can't be used" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("version", "count"),
    [("0.10.1", 3), ("0.11.0", 2), ("0.11.1", 1), ("0.12.0.1", 1), ("0.13", 0)],
)
def test_a_release_gets_only_the_compiler_flags_that_it_knows(
    monkeypatch, version, count
):
    """jaxlib 0.11.1 and later stop the process at a flag that they don't know."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    flags = flags_for(release(version))
    assert len(flags) == count
    assert ("--xla_cpu_use_fusion_emitters=false" in flags) == (count >= 2)


def test_a_flag_that_the_user_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=true")
    assert len(flags_for((0, 10, 1))) == 2


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_the_lock_pins_what_the_tests_run_on(name):
    assert locked()[name] == version(name)
    assert version(name) in TRIED


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_serves_every_supported_python(python):
    pins = locked(python)
    assert pins["jax"] == pins["jaxlib"]
    assert pins["jax"] == ("0.10.1" if python == "3.11" else "0.12.0.1")


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
    assert len(blocks) == len(re.findall(PIN, LOCK, re.MULTILINE)) > len(locked())
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.split("\n")[0]


def test_the_lock_names_no_package_without_a_pin():
    lines = [
        line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))
    ]
    assert all("==" in line for line in lines)
    assert not any(word in LOCK for word in ("file://", " -e ", "git+", "--index-url"))
