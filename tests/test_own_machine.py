"""A machine of the user's own from start to end: its file, rows, calibration, budget."""

import json
import math

import pytest

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.optimization.codesign.setup import setup_of
from cmxjax.specs.budget_file import load_budget, unpriced
from cmxjax.specs.budget_make import budget_from
from cmxjax.specs.errors import SpecError
from cmxjax.specs.files import shipped
from cmxjax.specs.system_load import Reference, load_system, read_system_file
from cmxjax.specs.toml_text import toml_text

MACHINE = """
base = "hgx-h200"
name = "ours / 1"
title = "Our boxes"
sources.sheet.title = "Our sheet"

[chip]
memory_bytes.value = 144
memory_bytes.unit = "GB"
memory_bytes.source = "sheet"
memory_bytes.locator = "p. 1"
memory_bytes.kind = "published"
memory_bytes_per_s = "5 TB/s"
"""
PLANTED = {"chip.gemm_efficiency": 0.61, "chip.memory_efficiency": 0.93}
SIZES = (2048, 4096, 6144, 8192, 12288, 16384)
HEAD = '[sources.bench]\ntitle = "Our bench"\n'


def gemm(size):
    return {"kind": "gemm", "m": size, "n": size, "k": size, "dtype": "bf16"}


def job(system, op):
    return {"system": system, "phase": "op", "op": op}


def row(name, op, seconds, system):
    """One measurement with a scenario of its own."""
    measured = {
        "id": name,
        "scenario": name,
        "quantity": "time",
        "value": seconds,
        "unit": "s",
        "source": "bench",
        "locator": f"table of {op['kind']}",
    }
    return {"scenarios": {name: job(system, op)}, "measurements": [measured]}


def joined(rows):
    tables = {"scenarios": {}, "measurements": []}
    for each in rows:
        tables["scenarios"] |= each["scenarios"]
        tables["measurements"] += each["measurements"]
    return HEAD + "\n" + toml_text(tables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The machine's file, and rows of one like it but for planted efficiencies."""
    path = tmp_path_factory.mktemp("own")
    machine = path / "ours.toml"
    machine.write_text(MACHINE)
    ops = {f"gemm-{n}": gemm(n) for n in SIZES}
    ops |= {f"copy-{n}": {"kind": "copy", "bytes": n * 1e6} for n in SIZES}

    def seconds(op):
        changed = {"base": str(machine), **PLANTED}
        return cmx.predict(cmx.load_scenario(job(changed, op)), "none").values["time_s"]

    rows = [row(name, op, seconds(op), str(machine)) for name, op in ops.items()]
    other = row("elsewhere", gemm(4096), 1e-3, "dgx-h100")
    (path / "rows.toml").write_text(joined([*rows, other]))
    (path / "theirs.toml").write_text(joined([other]))
    return path


@pytest.fixture(scope="module")
def calibrated(folder):
    files = (str(folder / "rows.toml"),)
    return cmx.fit(str(folder / "ours.toml"), files, str(folder / "out"), restarts=2)


def test_a_calibration_of_ones_own_machine_finds_what_was_planted(folder, calibrated):
    with open(calibrated.files[0]) as file:
        found = json.load(file)
    assert found["system"] == "ours / 1"
    leaves = {leaf: p for p in found["parameters"].values() for leaf in p["leaves"]}
    figures = load_system(Reference(str(folder / "ours.toml"))).figures
    for path, planted in PLANTED.items():
        odds = (
            figures[path].si / (1.0 - figures[path].si) * math.exp(leaves[path]["theta"])
        )
        assert odds / (1.0 + odds) == pytest.approx(planted, rel=0.03)


def test_it_is_used_by_predictions_of_that_file(folder, calibrated):
    machine, path = str(folder / "ours.toml"), str(calibrated.files[0])
    scenario = cmx.load_scenario(job(machine, gemm(10000)))
    planted = cmx.load_scenario(job({"base": machine, **PLANTED}, gemm(10000)))
    truth = cmx.predict(planted, "none").values["time_s"]
    found = cmx.predict(scenario, path)
    assert found.values["time_s"] == pytest.approx(truth, rel=0.02)
    assert found.as_json()["calibration"] == "ours-1-own"
    assert abs(cmx.predict(scenario, "none").values["time_s"] / truth - 1.0) > 0.1


def test_rows_of_another_system_are_named_with_the_remedy(folder, calibrated):
    (note,) = calibrated.notes
    assert "1 of 13 measurements are of dgx-h100" in note
    assert "elsewhere" in note
    assert f'write system = "{folder / "ours.toml"}"' in note
    assert "calibrate dgx-h100" in note


def test_rows_of_another_system_alone_are_refused(folder, capsys):
    out = folder / "none"
    names = ("calibrate", str(folder / "ours.toml"), "--measurements")
    assert main([*names, str(folder / "theirs.toml"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "no measurement of" in said
    assert "1 of 1 measurements are of dgx-h100" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MACHINE.replace("memory_bytes.", "memory_byte."), "did you mean chip.memory"),
        (MACHINE.replace("hgx-h200", "hgx-h2000"), "did you mean hgx-h200"),
        (MACHINE.replace('"5 TB/s"', '"5 TB"'), "unit of byte rate"),
        ('phase = "op"\nsystem = "hgx-h200"', "looks like one of the scenarios"),
        (HEAD + "[[measurements]]", "looks like one of the measurements"),
    ],
)
def test_what_is_wrong_with_the_machine_is_said(tmp_path, folder, capsys, text, said):
    path = tmp_path / "typo.toml"
    path.write_text(text)
    rows = str(folder / "rows.toml")
    assert main(["calibrate", str(path), "--measurements", rows]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "typo.toml" in err


def test_plain_values_are_figures_without_a_source(folder):
    rate = read_system_file(str(folder / "ours.toml")).chip.memory_bytes_per_s
    assert (rate.si, rate.source, rate.prior_sigma) == (5e12, "stated", 0.0)


@pytest.mark.parametrize("name", shipped("systems"))
def test_a_budget_from_a_system_spends_its_power(tmp_path, name):
    path = tmp_path / "budget.toml"
    assert main(["budget", "--from", name, "--out", str(path)]) == 0
    spec = load_budget(str(path))
    power = load_system(Reference(name)).figures["power.all_in_w"]
    assert spec.amount == power.si
    assert spec.present == pytest.approx(power.si, rel=1e-5)
    assert unpriced(spec) == []
    assert all(item.kind == "assumed" for item in spec.items.values())


def test_a_budget_names_leaves_of_the_machine_that_jobs_run_on(folder, capsys):
    machine = str(folder / "ours.toml")
    assert main(["budget", "--from", machine]) == 0
    path = folder / "budget.toml"
    path.write_text(capsys.readouterr().out)
    decode = {
        "system": machine,
        "model": "llama-3.1-8b",
        "phase": "decode",
        "workload": {"sequences_per_device": 16, "kv_tokens": 4096},
        "layout": {"devices": 8, "tp": 8},
    }
    share = cmx.Share(cmx.load_scenario(decode), 1.0)
    setup = setup_of([share], str(path), "none")
    moved = setup.leaves["nvlink_bandwidth"]
    assert moved == ["system.tiers.node.bytes_per_s"]
    assert "system.chip.memory_bytes_per_s" in setup.leaves["hbm_bandwidth"]


def test_a_network_that_draws_all_power_is_refused(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(f'{MACHINE}\n[power]\nnetwork_w = "1 MW"\n')
    with pytest.raises(SpecError, match="network draws as much"):
        budget_from(str(path))
