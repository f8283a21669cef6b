"""`cmxjax optimize` from the command line."""

import json

import pytest

from cmxjax.cli.main import main
from cmxjax.specs.errors import SpecError

NAME = "llama-3.1-70b-decode-gb200-nvl72"


def run(capsys, *arguments):
    status = main(["optimize", NAME, "--calibration", "none", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tmp_path_factory.mktemp("optimize")


def test_the_answer_is_json_and_a_scenario_and_a_picture(capsys, written):
    scenario, picture = str(written / "best.toml"), str(written / "fronts.svg")
    status, out, _ = run(
        capsys,
        *("--limit", "tpot=20ms", "--pin", "cp=1", "--pin", "pp=1", "--json"),
        *("--out", scenario, "--picture", picture),
    )
    assert status == 0
    found = json.loads(out)
    assert found["feasible"] is True
    assert found["method"] == "auto"
    assert found["metrics"]["tpot_s"] <= 0.02 * (1 + 1e-6)
    proof = found["certificate"]
    assert proof["bound"] >= found["value"]
    assert proof["gap"] < 3e-4
    assert "devices" in proof["space"]
    assert (written / "fronts.svg").stat().st_size > 1000
    assert main(["predict", scenario, "--calibration", "none", "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    for name, value in found["metrics"].items():
        assert predicted[name] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("flags", "certify"), [((), None), (("--certify",), True), (("--no-certify",), False)]
)
def test_the_comparison_can_be_forced_or_left_out(capsys, monkeypatch, flags, certify):
    asked = {}

    def noted(scenario, **options):
        asked.update(options)
        raise SpecError(["noted"])

    monkeypatch.setattr("cmxjax.optimization.answer.optimize", noted)
    assert run(capsys, *flags)[0] == 2
    assert asked["certify"] is certify


def test_the_table_states_the_certificate(capsys):
    # on a machine that is not there yet, which is said too
    announced = "--set", "system=vera-rubin-nvl72"
    wanted = ("--limit", "tpot=20ms", "--pin", "cp=1", "--pin", "pp=1")
    status, out, _ = run(capsys, *wanted, *announced)
    assert status == 0
    told = "vera-rubin-nvl72 is announced"
    for text in (
        "how good it is",
        "no layout is better than",
        "Searched: every degree",
        "feasible",
        "layout.tp",
        told,
    ):
        assert text in out
    _, out, _ = run(capsys, *wanted, *announced, "--json")
    assert told in json.loads(out)["warnings"][0]


def test_the_answer_as_launch_arguments(capsys):
    wanted = ("--limit", "tpot=20ms", "--pin", "cp=1", "--pin", "pp=1")
    status, out, _ = run(capsys, *wanted, "--emit", "vllm", "--json")
    assert status == 0
    found = json.loads(out)
    words = found["emit"]["arguments"]
    for axis, option in (
        ("tp", "--tensor-parallel-size"),
        ("dp", "--data-parallel-size"),
    ):
        assert words[words.index(option) + 1] == str(found["set"][f"layout.{axis}"])
    status, out, _ = run(capsys, *wanted, "--emit", "sglang")
    assert status == 0
    assert "\npython -m sglang.launch_server" in out


def test_several_objectives_give_a_front_with_its_proof(capsys, written):
    """The flag takes one word each time, so that the name may stand behind it."""
    picture = str(written / "trade.svg")
    pinned = "--pin", "cp=1", "--pin", "pp=1", "--pin", "tp=4"
    wanted = "--objective", "tokens_rate", "--objective=tpot"
    arguments = ["optimize", *wanted, NAME, "--calibration", "none", *pinned]
    assert main([*arguments, "--picture", picture]) == 0
    out = capsys.readouterr().out
    assert "none better than" in out
    assert "±" in out
    assert (written / "trade.svg").stat().st_size > 1000
    assert "mathdefault" not in (written / "trade.svg").read_text()
    assert main([*arguments, "--objective"]) == 2
    assert "no such quantity" in capsys.readouterr().err


def test_launch_arguments_need_a_layout_that_runs(capsys):
    wanted = ("--limit", "tpot=1us", "--pin", "cp=1", "--pin", "pp=1")
    status, _, err = run(capsys, *wanted, "--emit", "vllm")
    assert status == 2
    assert "no layout within" in err


def test_an_infeasible_job_says_so(capsys):
    status, out, _ = run(
        capsys, "--limit", "tpot=1us", "--pin", "cp=1", "--pin", "pp=1", "--json"
    )
    assert status == 1
    found = json.loads(out)
    assert found["feasible"] is False
    assert "no layout within" in found["reason"]


TRAINING = """
system = "cloudmatrix384"
model = "llama-3.1-8b"
phase = "train"
workload = { global_batch = 64, sequence_tokens = 4096 }
layout = { devices = 32 }
"""


@pytest.mark.slow
def test_schedules_chunks_and_overlap_are_tried(capsys, written):
    job, best = written / "job.toml", written / "trained.toml"
    job.write_text(TRAINING)
    wanted = ["optimize", str(job), "--calibration", "none", "--pin", "cp=1", "pp=8"]
    wanted += ["--try", "schedule=1f1b,zero_bubble", "overlapped_microbatches=1,2"]
    wanted += ["--try", "micro_batch=1", "--out", str(best)]
    assert main([*wanted, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["set"]["workload.schedule"] == "zero_bubble"
    front = found["front"]["step_time_s"]
    assert {row["set"]["layout.overlapped_microbatches"] for row in front} <= {1, 2}
    assert main(["predict", str(best), "--calibration", "none", "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert predicted["step_time_s"] == pytest.approx(found["metrics"]["step_time_s"])
    assert main(wanted) == 0
    table = "".join(capsys.readouterr().out.split())
    assert "schedule=zero_bubble" in table
    assert "schedule=1f1borzero_bubble" in table  # what the claim covers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--try", "extra_slots=0", "--try", "extra_slots=1"), "given twice"),
        (("--pin", "tp=1", "--pin", "tp=2"), "given twice"),
        (("--limit", "tpot=fast"), "tpot"),
        (("--objective", "mfu"), "does not predict"),
        (("--pin", "tp=one"), "AXIS=NUMBER"),
        (("--pin", "xp=2"), "xp: not free here"),
        (("--try", "layers=2"), "not free here"),
        (("--devices", "911"), "whole units"),
        (("--devices", "0"), "--devices 0: use a whole number from 1"),
        (("--try", "sequences_per_device=0"), "numbers above 0"),
        (("--try", "sequences_per_device=one"), "numbers above 0"),
        (("--certify", "--no-certify"), "one of them"),
        (("--emit", "megatron"), "doesn't run phase 'decode'"),
    ],
)
def test_bad_input_is_one_message(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err + out


def test_all_mistakes_of_a_command_are_named_at_once(capsys, written):
    job, picture = written / "wrong.toml", written / "wrong.svg"
    job.write_text(TRAINING)
    wanted = ["optimize", str(job), "--picture", str(picture), "--pin", "xp=2", "--try"]
    wanted += ["schedule=1f2b", "micro_batch=0", "recompute_fraction=2", "--devices=911"]
    assert main([*wanted, "--limit", "speed=3", "--limit", "memory=3s"]) == 2
    lines = capsys.readouterr().err
    for said in (
        *(
            "911: can't be split",
            "xp: not free here",
            "schedule = 1f2b",
            "micro_batch = 0",
        ),
        *("recompute_fraction = 2", "--limit speed=3", "--limit memory=3s"),
    ):
        assert said in lines
    assert not picture.exists()


def test_nothing_is_written_where_a_tool_can_not_run_the_answer(capsys, written):
    """Megatron-LM's chunks need micro-batches in multiples of the stages, 9 of 8 here."""
    job, best = written / "uneven.toml", written / "uneven-best.toml"
    picture = written / "uneven.svg"
    job.write_text(TRAINING.replace("global_batch = 64", "global_batch = 9"))
    wanted = ["optimize", str(job), "--calibration", "none", "--pin", "pp=8", "dp=1"]
    wanted += ["--try", "micro_batch=1", "--try", "vpp=2", "--emit", "megatron"]
    assert main([*wanted, "--out", str(best), "--picture", str(picture)]) == 2
    assert "9 micro-batches" in capsys.readouterr().err
    assert not best.exists()
    assert not picture.exists()
