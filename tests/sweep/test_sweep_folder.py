"""A sweep's folder: whole parts only, and none lost or doubled by whatever stops it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import parquet
from small_sweeps import GEMM

import cmxjax as cmx
import cmxjax.sweeps.grid as grid
import cmxjax.sweeps.plan as plan_module
from cmxjax.specs.errors import SpecError

RUN = """
import sys, json
from cmxjax.settings import setup
setup()
import cmxjax.sweeps.grid as grid, cmxjax.sweeps.plan as plan
plan.grid_of = lambda axes, fast, part: grid.grid_of(axes, fast, 60, 20)
from cmxjax.sweeps.run import sweep
raw, out = json.load(open(sys.argv[1])), sys.argv[2]
sweep(raw, out, resume=True, progress=lambda far: print(far.done, flush=True))
"""


@pytest.fixture
def many_parts(monkeypatch):
    """Small parts."""
    small = lambda axes, fast, part: grid.grid_of(axes, fast, 60, 20)  # noqa: E731
    monkeypatch.setattr(plan_module, "grid_of", small)


def test_rows_are_read_as_a_frame(tmp_path, many_parts):
    seen = []
    swept = cmx.sweep(GEMM, tmp_path / "out", progress=seen.append)
    frame = cmx.read_sweep(tmp_path / "out")
    assert len(frame) == swept.counts.kept == swept.counts.points == 1152
    assert frame["point"].tolist() == [*range(1152)]
    assert frame["op.n"].dtype.kind == "i"
    assert set(frame["op.dtype"]) == {"bf16", "fp8"}
    assert frame["time_s"].notna().all()
    assert len({far.done for far in seen}) == len(seen) > 5
    assert seen[-1].done == seen[-1].total == 1152
    some = cmx.read_sweep(tmp_path / "out", ["op.m", "time_s"])
    assert list(some) == ["op.m", "time_s"]
    assert json.loads(json.dumps(swept.as_json()))["best"][0]["sigma"]["time_s"] > 0.0
    with pytest.raises(SpecError, match="no such column; use some of point"):
        cmx.read_sweep(tmp_path / "out", ["m"])


def test_every_file_says_what_it_is_of(tmp_path):
    cmx.sweep(GEMM | {"calibration": "none", "seed": 7}, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.parquet")
    told = json.loads(parquet.read_metadata(file).metadata[b"cmxjax"])["origin"]
    assert told["sweep"]["seed"] == 7
    assert [axis["key"] for axis in told["sweep"]["axes"]] == [
        a["key"] for a in GEMM["axes"]
    ]
    assert told["scenario"]["op"]["kind"] == "gemm"
    assert told["calibration"] == "none"
    assert told["versions"]["cmxjax"] == cmx.__version__
    assert {"jax", "numpy"} <= told["versions"].keys()
    assert "revision" in told
    manifest = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert manifest["finished"]["points"] == 1152
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "part-000000.parquet",
        "sweep.json",
    ]


def killed_often(raw, out: Path, rng: random.Random, kills: int) -> int:
    """Run a sweep in processes that are killed at any time, and once to its end."""
    file = out.with_suffix(".json")
    file.write_text(json.dumps(raw))
    command = [sys.executable, "-c", RUN, str(file), str(out)]
    early, env = 0, os.environ | {"CMXJAX_CACHE": str(out.with_suffix(".cache"))}
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert process.stdout is not None
        if rng.random() < 0.8:  # else also before the first part
            process.stdout.readline()
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        early += process.wait() == -signal.SIGKILL
        process.stdout.close()
    subprocess.run(command, check=True, capture_output=True, env=env)
    return early


@pytest.mark.slow
@pytest.mark.parametrize("keep", [{}, {"pareto": ["time", "flop_rate"]}])
def test_kills_at_any_time_lose_and_double_nothing(tmp_path, many_parts, keep):
    raw = GEMM | {"keep": keep}
    assert killed_often(raw, tmp_path / "killed", random.Random(1), 6) > 0
    cmx.sweep(raw, tmp_path / "whole")
    one, other = (cmx.read_sweep(tmp_path / name) for name in ("killed", "whole"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-12)
    left = {p.name for p in (tmp_path / "killed").iterdir()}
    assert not [name for name in left if not name.startswith(("part-", "sweep.json"))]


def test_going_on_evaluates_only_what_is_missing(tmp_path, many_parts):
    out = tmp_path / "out"
    cmx.sweep(GEMM, out)
    whole = cmx.read_sweep(out)
    parts = sorted(out.glob("part-*"))
    told = json.loads((out / "sweep.json").read_text())
    del told["finished"]
    (out / "sweep.json").write_text(json.dumps(told))
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])  # as power cuts leave it
    times = {p: p.stat().st_mtime_ns for p in parts[3:]}
    with pytest.raises(SpecError, match="isn't finished"):
        cmx.read_sweep(out)
    swept = cmx.sweep(GEMM, out, resume=True)
    assert 0 < swept.fresh < swept.counts.points == 1152
    assert times == {p: p.stat().st_mtime_ns for p in parts[3:]}
    pd.testing.assert_frame_equal(cmx.read_sweep(out), whole)
    assert cmx.sweep(GEMM, out, resume=True).fresh == 0


def test_folders_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "out"
    cmx.sweep(GEMM, out)
    with pytest.raises(SpecError, match="holds a sweep; add --resume"):
        cmx.sweep(GEMM, out)
    with pytest.raises(SpecError, match=r"before the sweep file \(seed\) changed"):
        cmx.sweep(GEMM | {"seed": 1}, out, resume=True)
    changed = GEMM | {"axes": GEMM["axes"][:2], "metrics": ["time"]}
    with pytest.raises(SpecError, match="the sweep file .axes, metrics. changed"):
        cmx.sweep(changed, out, resume=True)
    monkeypatch.setattr("cmxjax.sweeps.origin.revision", lambda: "another")
    with pytest.raises(SpecError, match="the git revision changed"):
        cmx.sweep(GEMM, out, resume=True)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "mine.txt").write_text("x")
    with pytest.raises(SpecError, match="holds other files"):
        cmx.sweep(GEMM, strange)
    with pytest.raises(SpecError, match="not a folder"):
        cmx.sweep(GEMM, strange / "mine.txt")
    with pytest.raises(SpecError, match="holds no sweep"):
        cmx.read_sweep(strange)
    with pytest.raises(SpecError, match="can't be written"):
        cmx.sweep(GEMM, strange / "mine.txt" / "below")


def test_a_base_file_that_changed_is_noticed(tmp_path):
    base = tmp_path / "base.toml"
    text = (
        'system = "dgx-h100"\nphase = "op"\nop = { kind = "gemm", m = 8, n = 8, k = 8 }\n'
    )
    base.write_text(text)
    raw = {"scenario": str(base), "axes": [{"key": "op.m", "values": [1, 2]}]}
    cmx.sweep(raw, tmp_path / "out")
    base.write_text(text.replace("n = 8", "n = 16"))
    with pytest.raises(SpecError, match="the base scenario .op., a file that it names"):
        cmx.sweep(raw, tmp_path / "out", resume=True)


def test_two_processes_do_not_write_one_sweep(tmp_path, monkeypatch):
    seen = []

    def meanwhile(_):
        with pytest.raises(SpecError, match="another process writes this sweep"):
            cmx.sweep(GEMM, tmp_path / "out", resume=True)
        seen.append(1)

    cmx.sweep(GEMM, tmp_path / "out", progress=meanwhile)
    assert seen


FULL = """
import resource, signal, sys
import cmxjax.settings
from cmxjax.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import cmxjax.sweeps.dataset as dataset
real = dataset.Folder.write_part
def limited(*args):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    try:
        real(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
dataset.Folder.write_part = limited
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[scenario]\nsystem = "dgx-h100"\nphase = "op"\n'
        'op = { kind = "gemm", m = 8, n = 8, k = 8 }\n'
        '[[axes]]\nkey = "op.m"\nlow = 1\nhigh = 5000\npoints = 5000\n'
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL, "sweep", str(file), "--out", str(out)]
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 2, done.stderr
    lines = [x for x in done.stderr.splitlines() if x and "points/s" not in x]
    assert len(lines) == 1
    assert "can't be written" in lines[0]
    assert "--resume" in lines[0]
    assert not list(out.glob("*.parquet"))
    assert not list(out.glob(".working/tmp-*"))
    assert len(cmx.sweep(str(file), out, resume=True).to_frame()) == 5000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SpecError, match="can't be written .Permission denied.*another"):
        cmx.sweep(GEMM, tmp_path / "out")
    tmp_path.chmod(0o700)


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecError, match=r"pip install 'cmxjax\[sweep\]'"):
        cmx.sweep(GEMM, tmp_path / "out")
    assert not (tmp_path / "out").exists()
