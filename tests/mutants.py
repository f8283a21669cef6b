"""Plant faults in the physics, one at a time, and say which the fast tests catch.

Finds every place where one of eight kinds of fault fits in the rooms below, draws 60 by
a seed taken from the commit, evenly over the kinds, and runs the fast tests on each, in
two hours or so. `mutants.toml` says why known survivors survive.
"""

import ast
import os
import random
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

HERE, COUNT = Path(__file__).parent, 60
ROOMS = "energy.py goodput.py memory model phases rates serve smooth.py step work".split()
FIRST = "golden collectives expert_exchange pipeline train_state serve_together".split()
SERVE, AXES = "tests/test_serve.py", "tp cp dp pp ep etp edp".split()
COLLECTIVES = "all_reduce all_gather reduce_scatter all_to_all dispatch combine".split()
EXTREMA = "maximum minimum larger smaller overlap_s maximum_of".split()
SHARE = re.compile(r"(share|fraction|efficiency|exposed|overlapped|busiest|load)$")
STAGE = re.compile(r"(^|\.)(stages|position|pp|chunks|microbatches|inner|behind)$")
WAIT = re.compile(r"wait|stretch|slow|spread|several|jitter|skew|excess|beside")
PASSES = {"forward": "backward", "backward": "forward", "weight": "backward"}


class Fault(NamedTuple):
    kind: str
    file: str
    line: int
    was: str
    now: str
    place: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.was!r} -> {self.now!r}"


def _fitting(node: ast.expr, computes: bool) -> Iterator[tuple[str, str]]:
    """Kinds of fault that fit an expression, each with the text it would be."""
    text = ast.unparse(node)
    if isinstance(node, ast.BinOp):
        sides = [*map(ast.unparse, (node.left, node.right))]
        listed = any(side.startswith(("'", '"', "f'", "[", "(")) for side in sides)
        if isinstance(node.op, ast.Add | ast.Sub) and not listed:
            kept = 2 if isinstance(node.op, ast.Add) else 1
            yield from (("dropped term", side) for side in sides[:kept])
        if isinstance(node.op, ast.Mult):
            lost = (i for i in (0, 1) if WAIT.search(sides[i]))
            yield from (("lost wait factor", sides[1 - i]) for i in lost)
    elif isinstance(node, ast.Call):
        name, args = ast.unparse(node.func).split(".")[-1], node.args
        if name in EXTREMA:
            many = args[0].elts if isinstance(args[0], ast.List) else args[:2]
            if name != "maximum_of" or isinstance(args[0], ast.List):
                yield from (("one argument", ast.unparse(each)) for each in many)
        if name == "PassTimes" and len({*map(ast.unparse, args[:2])}) == 2:
            a, b, c = map(ast.unparse, args)
            yield "swapped passes", f"PassTimes({b}, {a}, {c})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        for kind, names in (("axis", AXES), ("collective", COLLECTIVES)):
            if node.value in names:
                yield f"another {kind}", repr(names[names.index(node.value) - 1])
    elif isinstance(node, ast.Attribute | ast.Name):
        if computes and SHARE.search(text):
            yield "1 for a share", "1.0"
        if computes and STAGE.search(text):
            yield "stage off by one", f"{text} + 1.0"
        *base, last = text.split(".")
        if base and base[-1] != "dtypes" and last in PASSES:
            yield "swapped passes", ".".join([*base, PASSES[last]])


def faults_of(root: Path) -> Iterator[Fault]:
    """Every place where a fault fits, with the offsets of the text it replaces."""
    for file in sorted((root / "cmxjax").rglob("*.py")):
        source, name = file.read_text(), str(file.relative_to(root))
        starts = [0, *(match.end() for match in re.finditer("\n", source))]
        for parent in ast.walk(ast.parse(source if name.split("/")[1] in ROOMS else "")):
            computes = isinstance(parent, ast.BinOp | ast.Call | ast.Return)
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, ast.expr) and node is not getattr(parent, "func", 0):
                    start = starts[node.lineno - 1] + node.col_offset
                    end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
                    place = name, node.lineno, source[start:end]
                    for kind, now in _fitting(node, computes):
                        yield Fault(kind, *place, now, (start, end))


def drawn(found: list[Fault], seed: str) -> list[Fault]:
    """One of each kind in turn, without replacement."""
    by_kind, chosen = {}, []
    for fault in random.Random(seed).sample(found, len(found)):
        by_kind.setdefault(fault.kind, []).append(fault)
    while len(chosen) < min(COUNT, len(found)):
        chosen += [by_kind[kind].pop() for kind in sorted(by_kind) if by_kind[kind]]
    return chosen[:COUNT]


def caught(copy: Path, fault: Fault | None) -> str:
    """The first fast test that fails with a fault in place; empty where none does."""
    source = (path := copy / (fault.file if fault else "README.md")).read_text()
    if fault:
        start, end = fault.place
        path.write_text(f"{source[:start]}({fault.now}){source[end:]}")
    env = os.environ | {"PYTHONPATH": str(copy)}
    for tests in ([f"tests/test_{name}.py" for name in FIRST], [SERVE], ["tests"]):
        command = [sys.executable, "-m", "pytest", "-xq", *tests]
        run = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
        if run.returncode:
            break
    path.write_text(source)
    said = re.findall("^(?:FAILED|ERROR).*", run.stdout, re.M) or [run.stdout]
    return said[0] if run.returncode else ""


def main() -> int:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=HERE, text=True)
    reasons = tomllib.loads((HERE / "mutants.toml").read_text())
    copies: Queue[Path] = Queue()

    def tried(fault: Fault | None) -> str:
        found = caught(copy := copies.get(), fault)
        copies.put(copy)
        print(f"{fault or 'no fault'}\n    {found or 'all pass'}", flush=True)
        return found

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for name in "ab":
            copies.put(Path(folder) / name)
            subprocess.run(["git", "clone", "-q", HERE.parent, f"{folder}/{name}"])
        chosen = drawn([*faults_of(Path(folder) / "a")], [*sys.argv[1:], commit][0])
        sound, *found = pool.map(tried, [None, *chosen])
    survivors = [fault for fault, test in zip(chosen, found, strict=True) if not test]
    for fault in survivors:
        why = reasons.get(f"{fault.file}: {fault.was} -> {fault.now}", "no reason known")
        print(f"survives: {fault}\n    {why}")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults are caught")
    return 2 if sound else int(10 * len(survivors) > len(chosen))


if __name__ == "__main__":
    sys.exit(main())
