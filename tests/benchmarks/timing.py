"""What benchmarks share: times of rounds, and the table of results.

Times are the least of several rounds, of the clock on the wall and of the processor (all
threads). Where others use the machine too the latter tells more, and so the table says
how busy it was.
"""

import csv
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results" / "speed.csv"
WHAT, CASE = "what", "case"


def processor() -> str:
    """The processor's name and how many of its cores this process may use."""
    names = [platform.processor() or platform.machine()]
    if (info := Path("/proc/cpuinfo")).exists():
        lines = info.read_text().splitlines()
        names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
    return f"{names[0]}, {len(os.sched_getaffinity(0))} cores"


def record(what: str, case: str, **values: object) -> None:
    """Put a row of results into the table in place of an older one, and print it."""
    rows: list[dict[str, object]] = []
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    rows = [row for row in rows if (row[WHAT], row[CASE]) != (what, case)]
    short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values.items()}
    others = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    rows.append(
        {WHAT: what, CASE: case}
        | dict.fromkeys(("wall_s", "cpu_s", "rounds", "per_s", "per_cpu_s", "mb"), "")
        | short
        | {"jax": jax.__version__, "processor": processor(), "load": f"{others:.1f}"}
    )
    rows.sort(key=lambda row: (str(row[WHAT]), str(row[CASE])))
    write_rows(rows, RESULTS)
    print(f"\n{what}, {case}: {short}", flush=True)


def timed(
    benchmark: Any,
    run: Callable[[], object],
    what: str,
    case: str,
    *,
    rounds: int = 5,
    warmup: int = 1,
    count: int = 0,
    children: bool = False,
    **more: object,
) -> None:
    """Time a function, and record the least of its rounds.

    Args:
        count: how many things it does; rates of them are recorded.
        children: its work is done by processes that it starts and waits for.
    """
    spent: list[float] = []

    def cpu_s() -> float:
        if not children:
            return time.process_time()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def once() -> None:
        before = cpu_s()
        run()
        spent.append(cpu_s() - before)

    benchmark.pedantic(once, rounds=rounds, warmup_rounds=warmup)
    wall, cpu = benchmark.stats.stats.min, min(spent[warmup:])
    rates = {"per_s": count / wall, "per_cpu_s": count / cpu} if count else {}
    benchmark.extra_info |= rates
    record(what, case, wall_s=wall, cpu_s=cpu, rounds=rounds, **rates, **more)
