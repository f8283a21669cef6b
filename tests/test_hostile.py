"""Whatever is typed or read, the command line answers shortly, in text, and safely."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmxjax import words
from cmxjax.cli.main import main

JOB = """system = "dgx-h100"
model = "llama-3.1-8b"
phase = "decode"
workload = { sequences_per_device = 8, kv_tokens = 2048 }
layout = { devices = 1 }
"""
ROWS = """[sources.me]
title = "My benchmark"
[scenarios.mine]
system = "dgx-h100"
model = "llama-3.1-8b"
phase = "decode"
workload = { sequences_per_device = 8, kv_tokens = 2048 }
[[measurements]]
id = "a"
scenario = "mine"
quantity = "tpot"
value = 9
unit = "ms"
source = "me"
locator = "run 1"
"""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LONG = "z" * 100_000
QUOTED = '"a"' + '."a"' * 5_000


@pytest.fixture
def ask(capsys, tmp_path, monkeypatch):
    """Run a command in a folder with a job and rows; both streams are always sound."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "rows.toml").write_text(ROWS)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        streams = capsys.readouterr()
        for text in streams:
            assert not UNSEEN.search(text)
        assert len(streams.err) < 2000
        assert len(streams.err.splitlines()) <= 20
        return status, streams.out, " ".join(streams.err.split())

    return run


def changed(old: str, new: str, name: str = "x.toml", text: str = JOB) -> str:
    """A file like another but for one part."""
    assert old in text
    with open(name, "w") as file:
        file.write(text.replace(old, new))
    return name


SOLVE = ("sensitivity", "job.toml", "--solve", "workload.kv_tokens", "--for")
MAX = ("predict", "job.toml", "--max", "workload.kv_tokens", "--limit")
DESIGN = ("optimize", "deepseek-r1-decode-cloudmatrix384")
DESIGN += ("--budget", "cloudmatrix384-power", "--spend")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # units
        (("optimize", "job.toml", "--limit", "tpot=40"), "--limit.*write 40ms or 40s"),
        (("optimize", "job.toml", "--limit", "memory=80"), "80GB or 80GiB"),
        (("optimize", "job.toml", "--limit", "tokens_rate=5"), "5tokens/s"),
        ((*MAX, "tpot=40"), "--limit.*40ms or 40s"),
        ((*SOLVE, "tpot=20"), "--for.*20ms or 20s"),
        ((*SOLVE, "tpot=-5ms"), "--for.*above 0"),
        ((*MAX, "tpot=nanms"), "--limit.*number"),
        ((*MAX, "tpot=1e400s"), "--limit.*finite"),
        ((*MAX, "tpot=5GB"), "--limit.*unit of time"),
        ((*DESIGN, "559"), "--spend.*559kW or 559MW"),
        ((*DESIGN, "-5kW"), "--spend"),
        # a word without a value belongs to the option before it
        (("predict", "--set", "workload.kv_tokens", "job.toml"), "--set.*KEY=VALUE"),
        (("optimize", "job.toml", "--limit", "tpot"), "--limit tpot.*QUANTITY=VALUE"),
        (("optimize", "job.toml", "--pin", "tp"), "--pin 'tp'.*AXIS=NUMBER"),
        # numbers
        (("optimize", "job.toml", "--devices", "999999999999"), "--devices.*from 1 to"),
        (("optimize", "job.toml", "--devices", "0"), "--devices"),
        (("optimize", "job.toml", "--seed", "-1"), "--seed"),
        (("optimize", "job.toml", "--pin", "tp=99999999999"), "--pin"),
        (("calibrate", "dgx-h100", "--restarts", "0"), "--restarts"),
        (("calibrate", "dgx-h100", "--seed", "-1"), "--seed"),
        # near words
        (("predcit", "job.toml"), "predcit: no such command; did you mean predict"),
        (("predict", "job.toml", "--calibartion", "x"), "did you mean --calibration"),
        (("list", "modles"), "did you mean models"),
        (("optimize", "job.toml", "--emit", "vlm"), "did you mean vllm"),
        (("optimize", "job.toml", "--objective", "tokens_rat"), "mean tokens_rate"),
        (("predict", "job.toml", "--calibration", "dgx-h10"), "mean dgx-h100"),
        (("predict", "job.toml", "--set", "system=nvl73"), "mean nvl72"),
        (("predict", "job.toml", "--set", "worklod=1"), "worklod.*did you mean workload"),
        (("predict", "job.toml", "--set", "tp=2"), "did you mean layout.tp"),
        (("predict", "job.toml", "--set", "dtypes.kv=bf17"), "did you mean bf16"),
        (("predict", "job.toml", "--set", "engine=vlm"), "did you mean vllm"),
        (("predict", "job.toml", "--set", "phase=decod"), "did you mean decode"),
        (("sensitivity", "job.toml", "--quantity", "tpt"), "did you mean tpot"),
        (("show", "cloudmatrix38"), "did you mean cloudmatrix384"),
        (("compare", "cloudmatrix38", "dgx-h100"), "did you mean cloudmatrix384"),
        (("validate", "cloudmatrix38"), "did you mean cloudmatrix384"),
        (("calibrate", "cloudmatrix38"), "did you mean cloudmatrix384"),
        (("keys", "decod"), "did you mean decode"),
        # text that steers a terminal, and long text
        (("predict", "job.toml", "--set", "\x1b[31mfoo=1"), r"\\x1b\[31mfoo"),
        (("predict", "job.toml", "--calibration", "a\x1b[31mx"), "calibration"),
        (("optimize", "job.toml", "--limit", "tpot\x9b7m=4ms"), "--limit"),
        (("\u202epredict",), r"\\u202e"),
        (("list", "\x1b[2J"), "choice"),
        (("predict", "job.toml", "\x07"), "Unrecognized"),
        (("compare", "[/red]", "dgx-h100"), r"\[/red\]"),
        (("predict", "job.toml", "--set", f"{LONG}=1"), "unknown key"),
        (("predict", "job.toml", "--set", f"{'a.' * 9_999}b=1"), "unknown|table"),
        (("predict", "job.toml", "--set", f"model={LONG}"), "model.*not shipped"),
        (("predict", f"{LONG}"), "scenario"),
        ((LONG,), "no such command"),
        (("predict", "job.toml", f"--{LONG}"), "no such option"),
        (("list", LONG), "choice"),
        (("predict", "job.toml", "--set", *(f"a{i}=1" for i in range(999))), "more"),
        # wholes
        (("predict", "job.toml", "--set", "model.layers=32.5"), "layers.*whole"),
        (("predict", "job.toml", "--set", "model.attention.heads=9.5"), "heads.*whole"),
        (("predict", "job.toml", "--set", "model.attention.kv_heads=.5"), "kv_heads"),
        (("predict", "job.toml", "--set", "system.tiers.node.size=3.5"), "size.*whole"),
        (
            ("predict", "job.toml", "--set", "system.tiers.node.oversubscription=0.5"),
            "oversubscription.*no less",
        ),
        (
            (
                "predict",
                "job.toml",
                "--set",
                "model=deepseek-r1",
                "model.experts.topk=0.5",
            ),
            "topk.*whole",
        ),
        # outputs
        (("optimize", "job.toml", "--out", "job.toml"), "--out.*reads it"),
        (("optimize", "job.toml", "--out", "./a/../job.toml"), "--out.*reads it"),
        (("optimize", "job.toml", "--out", "none/x.toml"), "--out.*no folder none"),
        (("optimize", "job.toml", "--out", "."), "--out.*a folder"),
        (("optimize", "job.toml", "--picture", "x.doc"), "--picture.*suffix"),
        (("optimize", "job.toml", "--out", "a.svg", "--picture", "a.svg"), "writes it"),
        (("sensitivity", "job.toml", "--picture", "p.pgf"), "--picture.*suffix"),
        (("predict", "job.toml", "--trace", "none/t.json"), "--trace.*no folder"),
        (("calibrate", "dgx-h100", "--out", "job.toml"), "--out"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_what_is_typed_wrong_is_refused_in_few_words(ask, arguments, said):
    status, out, err = ask(*arguments)
    assert status == 2
    assert out == ""
    assert re.search(said, err), err
    assert Path("job.toml").read_text() == JOB


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dgx-h100", "[/red]", r"x\.toml: system = '\[/red\]': no such file"),
        ("llama-3.1-8b", "\\u001b[31mred", r"x\.toml: model"),
        ("workload", "worklod", r"x\.toml: worklod.*did you mean workload"),
        ("kv_tokens = 2048", f"kv_tokens = {'9' * 10_000}", r"x\.toml"),
        ("kv_tokens = 2048", "kv_tokens = inf", r"x\.toml: workload.kv_tokens"),
        ("layout = {", "layout = { tp = 3,", r"x\.toml: layout.devices = 1"),
        ("llama-3.1-8b", LONG, r"x\.toml: model"),
        ("layout", f"a{'.a' * 50_000} = 1\nlayout", r"x\.toml: nested too deeply"),
        ("layout", QUOTED + " = 1\nlayout", r"x\.toml: nested too deeply"),
        ("layout", f"x = {'[' * 5_000}{']' * 5_000}\nlayout", r"x\.toml: nested too"),
        ("layout", f'"{LONG}" = 1\nlayout', r"x\.toml: zzz.*unknown key"),
        ("layout", "phase = 1\nlayout", r"x\.toml: not valid TOML"),
        (JOB, JOB + "".join(f"[k{i}]\n" for i in range(3000)), r"x\.toml.*and \d+ more"),
    ],
)
def test_what_a_file_says_wrong_is_refused_in_few_words(ask, old, new, said):
    begin = time.process_time()
    status, out, err = ask("predict", changed(old, new))
    assert (status, out) == (2, "")
    assert re.search(said, err), err
    assert time.process_time() - begin < 20.0


def test_limits_of_a_file_need_their_unit(ask):
    serve = 'phase = "serve"\npools = [{ role = "decode", devices = 8 }]'
    work = "{ request_rate = 1, prompt_tokens = 9, output_tokens = 9, tpot_limit = 40 }"
    text = JOB.replace('phase = "decode"', serve)
    text = text.replace("{ sequences_per_device = 8, kv_tokens = 2048 }", work)
    name = changed("layout = { devices = 1 }\n", "", text=text)
    _, _, err = ask("predict", name)
    assert "x.toml: workload.tpot_limit = 40: has no unit; write 40ms or 40s" in err


def test_thousands_of_wrong_rows_are_told_in_few_words(ask):
    row = ROWS[ROWS.index("[[measurements]]") :].replace("scenario", "scenrio")
    rows = "".join(row.replace('"a"', f'"a{i}"') for i in range(1000))
    status, _, err = ask("validate", changed(ROWS, ROWS + rows, text=ROWS))
    assert status == 2
    assert re.search(r"x\.toml: measurements\[a0\].*and \d+ more", err)


@pytest.mark.parametrize(
    "mark", ["[red]x[/b]", "\\u001b[2J", "\\u202e", "\\u009b", "$x_{$"]
)
def test_names_of_a_file_are_shown_as_text(ask, mark):
    system = f'base = "dgx-h100"\nname = "a{mark}b"\ntitle = "{mark}"\n'
    with open("s.toml", "w") as file:
        file.write(system)
    status, out, _ = ask("show", "s.toml")
    assert status == 0
    if mark.startswith("["):
        assert f"a{mark}b" in out


def test_a_key_that_stands_twice_in_json_is_refused(ask):
    with open("config.json", "w") as file:
        file.write('{"model_type": "llama", "hidden_size": 1, "hidden_size": 2}')
    status, _, err = ask("show", "config.json")
    assert status == 2
    assert "config.json: hidden_size: stands twice" in err


def test_keys_lists_every_key_with_its_unit_and_a_line(ask):
    status, out, _ = ask("keys", "--json")
    assert status == 0
    keys = {key["key"]: key for key in json.loads(out)}
    assert keys["workload.tpot_limit"]["unit"] == "s"
    assert keys["workload.request_rate"]["unit"] == "requests/s"
    assert keys["collective.payload_bytes"]["unit"] == "B"
    assert keys["workload.draft_tokens"]["default"] == 0
    assert keys["workload.kv_tokens"]["required"]
    assert "zero_bubble" in keys["workload.schedule"]["takes"]
    assert [key for key, row in keys.items() if not row["about"]] == []
    assert "workload.schedule" not in ask("keys", "decode")[1]


# --- Streams


def process(*arguments: str, **streams) -> subprocess.Popen:
    command = [sys.executable, "-m", "cmxjax", *arguments]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **streams)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_output_is_said():
    with open("/dev/full", "w") as full:
        child = process("list", "scenarios", stdout=full)
        _, err = child.communicate()
    assert child.returncode == 2
    assert err.startswith("standard output: No space left")
    assert "Traceback" not in err


def test_a_closed_output_is_no_mistake():
    reader, writer = os.pipe()
    os.close(reader)
    child = process("--help", stdout=writer)
    os.close(writer)
    _, err = child.communicate()
    assert (child.returncode, err) == (0, "")


@pytest.mark.slow  # waits until the interpreter is up, however busy the machine is
@pytest.mark.parametrize("seconds", [6.0, 9.0])
def test_an_interrupted_command_ends_with_130(seconds):
    child = process("optimize", "deepseek-r1-decode-cloudmatrix384", "--json")
    time.sleep(seconds)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert child.returncode == 130
    assert "Traceback" not in err


# --- Words


@given(st.text())
def test_plain_text_steers_nothing_and_stays_plain(text):
    shown = words.plain(text)
    assert not UNSEEN.search(shown)
    assert words.plain(shown) == shown
    if shown == text:
        assert not UNSEEN.search(text)


@given(st.lists(st.text(max_size=2000), max_size=60))
def test_a_message_never_grows_with_its_lines(lines):
    text = words.message(lines)
    assert len(text) < 2000
    kept = text.count("\n") + 1 - sum(line.count("\n") for line in lines)
    assert kept <= words.MOST_LINES


def test_the_nearest_words_are_those_that_look_alike():
    known = ["tpot", "ttft", "gb200-nvl72", "dgx-h100"]
    assert words.near("TPOT", known) == ["tpot"]
    assert words.near("nvl73", known) == ["gb200-nvl72"]
    assert words.near("memory", known) == []
    assert words.near(LONG, known) == []
