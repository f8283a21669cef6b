"""Rows are spread over all local devices, and don't change with their number."""

import json
import os
import subprocess
import sys

import pytest
from small_sweeps import GEMM, planned, points_of

RUN = """
import json, sys
from cmxjax.settings import setup
setup(cache=False)
import jax
from small_sweeps import GEMM, planned, points_of
from cmxjax.sweeps.evaluate import Program
called = []
run = Program.__call__
def spied(self, *args):
    found = run(self, *args)
    called.append(len(found[0].sharding.device_set))
    return found
Program.__call__ = spied
found = points_of(planned(GEMM))
print(json.dumps([len(jax.devices()), max(called), found]))
"""


@pytest.mark.parametrize("devices", [8])
def test_eight_devices_give_the_rows_of_one(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ | {"XLA_FLAGS": flags},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        check=True,
    )
    count, used, found = json.loads(done.stdout)
    assert count == used == devices
    alone = points_of(planned(GEMM))
    assert {int(point) for point in found} == alone.keys()
    for point, row in alone.items():
        assert found[str(point)] == pytest.approx(row, rel=1e-12)


@pytest.mark.slow
def test_queues_of_many_points_do_not_wait_for_each_other(tmp_path):
    """Batches of one solver, of each core, on the threads of all (it hung)."""
    file = tmp_path / "load.toml"
    file.write_text(
        'scenario = "deepseek-r1-serve-cloudmatrix384"\nkeep = { sigma = false }\n'
        '[[axes]]\nkey = "workload.request_rate"\nlow = 5\nhigh = 200\npoints = 64\n'
    )
    command = [sys.executable, "-m", "cmxjax", "sweep", str(file)]
    flags = "--xla_force_host_platform_device_count=2"
    subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        check=True,
        timeout=600,
    )
