"""The same rows on a cluster, whatever happens to its workers."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from small_sweeps import GEMM

import cmxjax as cmx
from cmxjax.specs.errors import SpecError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

MANY = GEMM | {
    "axes": [
        {"key": "op.dtype", "values": ["bf16", "fp8"]},
        {"key": "op.m", "low": 1, "high": 8192, "points": 4096},
        {"key": "op.n", "low": 16, "high": 8192, "points": 256},
    ],
    "keep": {"top": {"metric": "flop_rate", "count": 500}, "sigma": False},
}
"""2,097,152 points, four parts."""


@pytest.fixture
def workers(tmp_path):
    """A scheduler's address and three worker processes."""
    file = tmp_path / "scheduler.json"
    env = os.environ | {"CMXJAX_CACHE": str(tmp_path / "cache")}
    run = [sys.executable, "-m"]
    commands = [
        [*run, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
        + ["--scheduler-file", str(file)]
    ]
    worker = [*run, "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    commands += [[*worker, "--nthreads", "1", "--no-nanny", "--no-dashboard"]] * 3
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = []
    try:
        for command in commands:
            started.append(subprocess.Popen(command, env=env, cwd=tmp_path, **quiet))
            while len(started) == 1 and not file.exists():
                time.sleep(0.1)
        import json

        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_lost_worker_changes_nothing(tmp_path, workers, monkeypatch):
    address, processes = workers
    killed = []

    def kill(far):
        if not killed:
            processes[0].kill()
            killed.append(far.done)

    small = parts_of(MANY)
    there = cmx.sweep(small, tmp_path / "there", cluster=address, progress=kill)
    assert killed
    assert killed[0] < there.counts.points
    here = cmx.sweep(small, tmp_path / "here")
    assert there.counts == here.counts
    pd.testing.assert_frame_equal(there.to_frame(), here.to_frame(), rtol=1e-12)


def parts_of(raw):
    """More parts, so that some are left when a worker is lost."""
    axes = [raw["axes"][0], raw["axes"][1] | {"points": 4096}, raw["axes"][2]]
    return raw | {"axes": [*axes, {"key": "op.k", "values": [1024, 4096]}]}


def test_two_processes_here_give_the_same_rows(tmp_path):
    there = cmx.sweep(GEMM, tmp_path / "there", cluster="local:2")
    here = cmx.sweep(GEMM, tmp_path / "here")
    assert there.counts == here.counts
    pd.testing.assert_frame_equal(there.to_frame(), here.to_frame(), rtol=1e-12)


def test_what_is_no_cluster_is_refused(tmp_path):
    with pytest.raises(SpecError, match="write local:N"):
        cmx.sweep(GEMM, tmp_path / "one", cluster="local:none")
    with pytest.raises(SpecError, match="no scheduler answers"):
        cmx.sweep(GEMM, tmp_path / "two", cluster="tcp://127.0.0.1:1")
