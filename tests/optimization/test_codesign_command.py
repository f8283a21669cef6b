"""`optimize --budget`: what it refuses, and the machine that it prints."""

import json

import pytest

from cmxjax.cli.main import main

DECODE = "llama-3.1-70b-decode-gb200-nvl72"
BUDGET = """
title = "Bandwidth or capacity"
system = "gb200-nvl72"
sources.me = { title = "test" }
resources.bandwidth.leaves = ["system.chip.memory_bytes_per_s"]
resources.capacity.leaves = ["system.chip.memory*_bytes"]

[items.bandwidth]
value = 300
unit = "USD"
source = "me"
locator = "-"
kind = "assumed"
scales = { bandwidth = 1 }

[items.capacity]
value = 100
unit = "USD"
source = "me"
locator = "-"
kind = "assumed"
scales = { capacity = 1 }
"""


@pytest.fixture(scope="module")
def budget(tmp_path_factory):
    path = tmp_path_factory.mktemp("budgets") / "money.toml"
    path.write_text(BUDGET)
    return str(path)


@pytest.mark.slow
def test_the_machine_is_printed_and_drawn(capsys, budget, tmp_path):
    picture = tmp_path / "machine.svg"
    options = ["--budget", budget, "--spend", "350 USD", "--limit", "tpot=20ms"]
    assert main(["optimize", DECODE, *options, "--picture", str(picture)]) == 0
    table = capsys.readouterr().out
    assert "marginal gain" in table
    assert picture.read_text().startswith("<?xml")
    assert main(["optimize", DECODE, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feasible"]
    assert found["best"]["cost"] <= 350.0 * (1.0 + 1e-6)
    assert set(found["best"]["multipliers"]) == {"bandwidth", "capacity"}
    assert [design["budget"] for design in found["path"]] == sorted(
        design["budget"] for design in found["path"]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--spend", "3kW"], "need --budget"),
        (["--also", f"{DECODE}=1"], "need --budget"),
        (["--budget", "cloudmatrix384-power"], "run on gb200-nvl72"),
        (["--budget", "power"], "not shipped"),
        (["--budget", "cloudmatrix384-power", "--pin", "tp=1"], "not with --budget"),
        (["--budget", "cloudmatrix384-power", "--limit", "mfu=0.5"], "no workload"),
        (["--budget", "cloudmatrix384-power", "--also", f"{DECODE}=much"], "KEY=NUMBER"),
    ],
)
def test_what_does_not_go_together_is_refused(capsys, options, said):
    assert main(["optimize", DECODE, *options, "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert "Traceback" not in told.err


def test_the_shipped_budget_is_listed_and_shown(capsys):
    assert main(["list", "budgets", "--json"]) == 0
    assert "cloudmatrix384-power" in json.loads(capsys.readouterr().out)
    assert main(["show", "cloudmatrix384-power"]) == 0
    assert "hbm_traffic" in capsys.readouterr().out
