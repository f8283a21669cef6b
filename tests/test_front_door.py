"""What Python users meet first: names, set-up, scenarios and layouts made in Python."""

import contextlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.report.pictures import subplots
from cmxjax.specs.files import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DECODE = "deepseek-r1-decode-cloudmatrix384"


def test_the_version_is_that_of_the_project(capsys):
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cmx.__version__ == wanted
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cmxjax {wanted}\n"


def test_dir_lists_every_public_name_and_each_is_there():
    assert set(cmx.__all__) <= set(dir(cmx))
    for name in cmx.__all__:
        assert getattr(cmx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'metric'"):
        _ = cmx.metric  # pyright: ignore[reportAttributeAccessIssue]


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)
SLOW = [pytest.param(snippet, marks=pytest.mark.slow) for snippet in SNIPPETS[1:]]


@pytest.mark.parametrize("snippet", [SNIPPETS[0], *SLOW])
def test_snippets_of_the_readme_run(snippet):
    # searches take minutes; paths are those of a checkout
    with contextlib.chdir(ROOT):
        exec(compile(snippet, "README.md", "exec"), {})


def run(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_no_call_is_needed_before_the_first_computation():
    script = (
        "import cmxjax as cmx\n"
        "p = cmx.build(cmx.load_scenario({'phase': 'system', 'system': 'dgx-h100'}))\n"
        "import jax\n"
        "print(cmx.metrics(*p.inputs).memory_bytes.dtype, jax.config.jax_enable_x64)\n"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    first, folder = run(script).stdout.splitlines()
    assert first == "float64 True"
    assert folder != "None"


def test_a_cache_that_can_not_be_kept_is_said_to_be_off():
    assert "import cmxjax first" in run("import jax, cmxjax; cmxjax.metrics").stderr
    assert run("import cmxjax; cmxjax.metrics; import jax").stderr == ""
    parts = "from cmxjax.report.calibration import refit; import cmxjax; cmxjax.metrics"
    assert run(parts).stderr == ""  # a module of the package imports JAX


def test_a_scenario_can_be_a_dict():
    raw, _ = load("scenarios", DECODE)
    assert cmx.load_scenario(raw) == cmx.load_scenario(DECODE)
    changed = cmx.load_scenario(raw, {"workload.kv_tokens": 99})
    assert changed == cmx.load_scenario(DECODE, {"workload.kv_tokens": 99})
    with pytest.raises(ValueError, match="scenario: phase: required key is missing"):
        cmx.load_scenario({})


@pytest.mark.parametrize(
    ("scenario", "keys"),
    [
        (DECODE, {"devices": 320, "ep": 320, "overlapped_microbatches": 2}),
        ("llama-3.1-70b-decode-gb200-nvl72", {"tp": 8, "attention": "tp"}),
        (
            "gpt-3-175b-train-dgx-a100",
            {"devices": 1024, "tp": 8, "pp": 8, "sequence_parallel": False},
        ),
    ],
)
def test_a_layout_made_in_python_is_that_of_a_scenario(scenario, keys):
    spec = {f"layout.{key}": value for key, value in keys.items()}
    p = cmx.build(cmx.load_scenario(scenario, spec), "none")
    routing = p.layout.routing
    made = cmx.layout(
        p.machine,
        redundant_experts=float(routing.redundant_experts),
        shared_replicas=float(routing.shared_replicas),
        **keys,
    )
    assert jax.tree.structure(made) == jax.tree.structure(p.layout)
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(p.layout)):
        np.testing.assert_array_equal(ours, theirs)


def test_scenarios_may_be_names_paths_or_dicts_with_numbers_of_numpy(tmp_path):
    job = {
        "system": "dgx-h100",
        "model": "llama-3.1-8b",
        "phase": "decode",
        "workload": {"sequences_per_device": 8, "kv_tokens": 2048},
        "layout": {"devices": 1},
    }
    plain = cmx.predict(cmx.load_scenario(job)).tpot_s
    sizes = {"sequences_per_device": np.int64(8), "kv_tokens": jnp.asarray(2048)}
    assert cmx.predict(job | {"workload": sizes}).tpot_s == plain
    changes = {"workload.kv_tokens": np.float32(4096)}
    assert cmx.load_scenario(job, changes).workload.kv_tokens == 4096.0
    file = tmp_path / "job.toml"
    file.write_text(
        'system = "dgx-h100"\nmodel = "llama-3.1-8b"\nphase = "decode"\n'
        "workload = { sequences_per_device = 8, kv_tokens = 2048 }\n"
        "layout = { devices = 1 }\n"
    )
    assert cmx.predict(cmx.load_scenario(file)).tpot_s == plain
    followed = cmx.sensitivity(job, "tpot").leaves
    memory = {e.path: e.elasticity for e in followed}["system.chip.memory_bytes_per_s"]
    assert -1.0 < memory < -0.5  # a decode step of a small batch waits for the memory


def test_stacked_layouts_are_predicted_as_one_by_one():
    p = cmx.build(cmx.load_scenario(DECODE), "none")
    layouts = [cmx.layout(p.machine, devices=d, ep=d) for d in (16, 32, 64)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layouts)
    tpot = lambda layout: cmx.metrics(p.machine, p.model, p.workload, layout).tpot_s
    many = jax.vmap(tpot)(stacked)
    np.testing.assert_allclose(many, [tpot(one) for one in layouts], rtol=1e-12)
    assert many[0] > many[1] > many[2]  # more ranks share the experts' weights


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tq": 3}, "layout: tq = 3: unknown key"),
        ({"tp": 3, "devices": 16}, "layout.devices = 16: not divisible by tp = 3"),
        ({"tp": 0}, "layout: tp = 0"),
        ({"pp": 4, "vpp": 2}, "layout: vpp = 2: belongs to the workload"),
        ({"tp": 4, "head": 2}, "layout: head = 2: only for whole heads"),
        ({"pp": 2, "stages": [30, 31]}, "layout: stages = [30, 31]: belongs"),
        (
            {"order": "tp-cp-dp-pp", "placement": {"tp": [2, 1, 1, 1]}},
            "layout.order: says nothing beside layout.placement",
        ),
        ({"devices": 10**7}, "layout"),
        ({"redundant_experts": -1.0}, "layout: redundant_experts = -1"),
    ],
)
def test_a_wrong_layout_is_refused_by_name(keys, said):
    p = cmx.build(cmx.load_scenario(DECODE), "none")
    with pytest.raises(ValueError, match=re.escape(said)):
        cmx.layout(p.machine, **keys)


def test_pictures_need_matplotlib_and_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'cmxjax\[plots\]'"):
        subplots(1)


def test_a_prediction_reads_as_numbers_text_dict_and_frame():
    answer = cmx.predict(cmx.load_scenario("llama-3.1-70b-decode-gb200-nvl72"))
    assert answer.tpot_s == answer.values["tpot_s"] == answer.to_dict()["tpot_s"]
    assert "  tpot_s  " in str(answer)
    assert str(answer).endswith("\nfeasible")
    frame = answer.to_frame()
    assert frame.loc[0, "system"] == "gb200-nvl72"
    assert frame.loc[0, "memory_bytes"] == answer.memory_bytes
    with pytest.raises(AttributeError, match="no metric 'tpot'; did you mean tpot_s"):
        _ = answer.tpot


@pytest.mark.parametrize(
    ("order", "said"),
    [((1, 0, 2, 3), "Machine came second"), ((0, 1, 3, 2), "Layout came third")],
)
def test_arguments_in_another_order_are_named(order, said):
    p = cmx.build(cmx.load_scenario(DECODE))
    arguments = [(p.machine, p.model, p.workload, p.layout)[k] for k in order]
    with pytest.raises(TypeError, match=said):
        cmx.metrics(*arguments)


@pytest.mark.slow
def test_comparisons_and_validations_are_frames():
    totals = cmx.compare(["cloudmatrix384", "gb200-nvl72"]).to_frame()
    assert totals.loc["cloudmatrix384", "packages"] == 384
    assert totals.loc["gb200-nvl72", "packages"] == 72
    found = cmx.validate("xdeepserve")
    rows = found.to_frame()
    assert len(rows) == len(found.rows)
    assert rows["relative_error"].abs().median() == pytest.approx(found.median)
