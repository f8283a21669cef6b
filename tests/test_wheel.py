"""The wheel: everything it needs is in it, wherever it is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_all_code_all_data_and_the_license(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cmxjax").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert ours <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    strays = {name for name in held if not name.startswith("cmxjax")}
    assert not strays


def test_the_unpacked_wheel_answers_from_any_folder(wheel, tmp_path):
    """With nothing of the checkout on the path."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import cmxjax.cli as cli;"
        "print(cli.__file__, file=sys.stderr); sys.exit(cli.main())"
    )
    command = [sys.executable, "-P", "-c", script, str(tmp_path / "installed")]
    command += ["compare", "cloudmatrix384", "gb200-nvl72"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "installed") in done.stderr
    assert "gb200-nvl72" in done.stdout
