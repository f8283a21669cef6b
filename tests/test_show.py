"""`show NAME > my.toml` writes whole files that load again to the same thing."""

import contextlib
import io
import json
import os
from pathlib import Path

import pytest

from cmxjax.cli.main import main
from cmxjax.specs.budget_file import load_budget
from cmxjax.specs.files import KINDS, load, shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.model_load import read_model_file
from cmxjax.specs.recipe_file import load_recipe
from cmxjax.specs.scenario import load_scenario
from cmxjax.specs.system_file import figures_of
from cmxjax.specs.system_load import Reference, load_system, read_system_file

PLAIN = tuple(kind for kind in KINDS if kind not in ("systems", "models"))
"""Kinds that are shown as they were written."""


def shown(*names):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["show", *names]) == 0
    return out.getvalue()


@pytest.fixture
def written(tmp_path):
    def write(*names, suffix=".toml"):
        path = tmp_path / f"my{suffix}"
        path.write_text(shown(*names), "utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("name", shipped("systems"))
def test_a_system_loads_again_to_the_same(written, name):
    path = written("system", name)
    before, after = read_system_file(name), read_system_file(path)
    assert after == before.model_copy(update={"base": ""})
    assert figures_of(after) == figures_of(before)
    assert shown(path) == shown(name).replace(see_also(name), "")


def see_also(name):
    """The comment on other files of the name, which a path doesn't have."""
    lines = shown(name).splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("# See also"))


@pytest.mark.parametrize("name", shipped("models"))
def test_a_model_loads_again_to_the_same(written, name):
    assert read_model_file(written("model", name)) == read_model_file(name)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in PLAIN for name in shipped(kind)]
)
def test_any_other_file_loads_again_to_the_same(written, kind, name):
    suffix = ".json" if kind == "calibrations" else ".toml"
    path = written(kind, name, suffix=suffix)
    assert load(kind, path)[0] == load(kind, name)[0]
    assert shown(path) == shown(kind, name)  # its kind is seen from what it says


def test_files_that_were_shown_are_read_as_what_they_are(written):
    recipe = load_recipe(written("recipe", "hgx-h20"))
    assert recipe == load_recipe("hgx-h20")
    path = written("budget", "cloudmatrix384-power")
    assert load_budget(path) == load_budget("cloudmatrix384-power")
    path = written("measurements", "operators-h20")
    assert load_measurements(path) == load_measurements("operators-h20")
    path = written("llama-3.1-70b-decode-gb200-nvl72")
    assert load_scenario(path).system.base == "gb200-nvl72"


def test_every_kind_that_is_listed_can_be_shown():
    assert {*PLAIN, "systems", "models"} == {*KINDS}


def test_nothing_is_cut_to_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "dumb")
    wide = shown("hgx-h200")
    assert max(map(len, wide.splitlines())) > 160
    assert os.environ["COLUMNS"] == "20"
    assert json.loads(shown("hgx-h200", "--json"))["toml"] == wide


AWKWARD = 'a "quoted" \\ path\twith [red]markup[/] and \u00e9\u202e\x1b'


def test_text_of_a_file_comes_back_as_it_was(tmp_path, written):
    path = tmp_path / "mine.toml"
    text = json.dumps(AWKWARD)  # of these characters JSON writes what TOML does
    path.write_text(f'base = "dgx-h100"\nname = {text}\ntitle = {text}\n', "utf-8")
    again = written(str(path))
    assert read_system_file(again).title == AWKWARD
    assert "\x1b" not in Path(again).read_text("utf-8")


def test_a_copy_is_the_same_machine_in_a_program(written):
    ours, theirs = (
        load_system(Reference(name)).system for name in (written("tpu-v6e"), "tpu-v6e")
    )
    assert ours.tiers["pod"].shape == theirs.tiers["pod"].shape == (16, 16)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["recipie", "hgx-h20"], "did you mean recipes"),
        (["recipes", "hgx-h21"], "did you mean hgx-h20"),
        (["a", "b", "c"], "name one file"),
        ([], "name one file"),
    ],
)
def test_what_cannot_be_shown_is_said(capsys, names, said):
    assert main(["show", *names]) == 2
    assert said in capsys.readouterr().err
