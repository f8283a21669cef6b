"""Everything that users' scripts may rely on, as lists of names of which none may vanish.

`python -m golden.capabilities` (in `tests/`) adds what is new to the committed list; a
name is only taken out by hand, with its line in the changelog.
"""

import ast
import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.parameters import leaf_paths
from cmxjax.specs.files import load, shipped
from cmxjax.specs.measurement_file import QUANTITIES, Measurement, MeasurementSpec
from cmxjax.specs.model_load import model_leaves, read_model_file
from cmxjax.specs.scenario_file import schema_keys
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.units import UNITS

COMMITTED = Path(__file__).parent / "capabilities.json"
LISTS = ("systems", "models", "measurements", "scenarios", "recipes", "budgets")
PACKAGE = Path(cmx.__file__).parent

JOBS: dict[str, str] = {
    "op": 'system = "hgx-h200"\nphase = "op"\n'
    'op = { kind = "gemm", m = 64, n = 64, k = 64 }',
    "collective": 'system = "hgx-h200"\nphase = "collective"\n'
    'collective = { kind = "all_gather", ranks = 8 }',
    "decode": 'system = "hgx-h200"\nmodel = "llama-3.1-8b"\nphase = "decode"\n'
    "layout = { devices = 2, tp = 2 }\n"
    "workload = { sequences_per_device = 8, kv_tokens = 1024 }",
    "train": 'system = "dgx-h100"\nmodel = "llama-3.1-8b"\nphase = "train"\n'
    "layout = { devices = 8, tp = 2, pp = 2 }\n"
    "workload = { global_batch = 16, sequence_tokens = 2048 }",
}
"""Small scenarios, whose answers show the keys of JSON."""


def printed(*arguments: str) -> str:
    """What a command prints on stdout; help ends the process, which is caught."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.suppress(SystemExit),
    ):
        main(list(arguments))
    return out.getvalue()


BY_PATH = ("elasticities", "one_sided", "with_20_percent_more")
"""Tables whose keys are paths of leaves."""


def keys_of(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of an answer; entries of lists count as one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{prefix}{key}"
            if key not in BY_PATH:
                yield from keys_of(item, f"{prefix}{key}.")
    elif isinstance(value, list) and value:
        yield from keys_of(value[0], prefix)


def answers(folder: Path) -> dict[str, Any]:
    """JSON of one run of each command."""
    files = {name: folder / f"{name}.toml" for name in JOBS}
    for name, text in JOBS.items():
        files[name].write_text(text, encoding="utf-8")
    decode, train = str(files["decode"]), str(files["train"])
    op, quick = str(files["op"]), "--no-certify"
    runs = {
        **{f"predict {name}": ("predict", str(path)) for name, path in files.items()},
        "validate": ("validate", "press"),
        "compare": ("compare", "cloudmatrix384", "gb200-nvl72"),
        "sensitivity": ("sensitivity", op),
        "sensitivity --solve": (
            *("sensitivity", op, "--solve", "system.chip.gemm_efficiency"),
            *("--for", "time=@" + op),
        ),
        "optimize decode": ("optimize", decode, quick, "--emit", "vllm"),
        "optimize train": ("optimize", train, quick, "--emit", "megatron"),
    }
    return {name: json.loads(printed(*run, "--json")) for name, run in runs.items()}


def commands() -> list[str]:
    """`command` and `command --option`, as the help texts list them."""
    found = []
    names = re.findall(r"[{,]([a-z-]+)(?=[,}])", printed("--help"))
    for name in dict.fromkeys(names):
        options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", printed(name, "--help"))
        found += [name, *(f"{name} {option}" for option in dict.fromkeys(options))]
    return found


def launch_flags() -> list[str]:
    """Options of other tools that an answer can be written as."""
    found = set()
    for path in (PACKAGE / "interop").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"(?<![\w-])--[a-z][\w-]+", node.value))
    return sorted(found)


def paths() -> list[str]:
    """Leaves that can be set, and parameters that calibrations hold."""
    found = set()
    for name in shipped("systems"):
        found |= {
            f"system.{path}" for path in leaf_paths(load_system(Reference(name)).system)
        }
    for name in shipped("models"):
        leaves = model_leaves(read_model_file(name))
        found |= {f"model.{path}" for path in leaves}
    return sorted(found)


def names() -> list[str]:
    """Everything that ships, alternatives of systems included."""
    found = []
    for group in (*LISTS, "calibrations"):
        for name in json.loads(printed("list", group, "--json")):
            found.append(f"{group} {name}")
            if group == "systems":
                alternatives = load("systems", name)[0].get("alternatives", {})
                found += [f"{group} {name} {other}" for other in alternatives]
    return found


def capabilities(folder: Path) -> dict[str, list[str]]:
    found: dict[str, Any] = {
        "commands": commands(),
        "public names": cmx.__all__,
        "scenario keys": schema_keys(),
        "measurement keys": [*MeasurementSpec.model_fields, *Measurement._fields],
        "paths": paths(),
        "quantities": QUANTITIES,
        "units": UNITS,
        "launch flags": launch_flags(),
        "shipped": names(),
    }
    for run, answer in answers(folder).items():
        found[f"JSON of {run}"] = keys_of(answer)
    return {kind: sorted(set(values)) for kind, values in found.items()}


def committed() -> dict[str, list[str]]:
    return json.loads(COMMITTED.read_text("utf-8"))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        now = capabilities(Path(temporary))
    held = committed() if COMMITTED.exists() else {}
    both = {k: sorted({*held.get(k, []), *now.get(k, [])}) for k in {**held, **now}}
    COMMITTED.write_text(json.dumps(both, indent=1) + "\n", encoding="utf-8")
    print({kind: len(values) for kind, values in both.items()}, file=sys.stderr)
