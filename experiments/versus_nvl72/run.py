"""CloudMatrix384 against GB200 NVL72 on DeepSeek-R1, with both calibrations' error bars.

    python experiments/versus_nvl72/run.py

Decode under two TPOT limits and prefill; per NPU or GPU, per system, per kW of all-in
power; with the shipped layouts and with the layouts that a search finds. Writes
`results/versus.csv` and `.svg` beside this file.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
AUTO = {"layout.overlapped_microbatches": "auto"}
FP8 = {f"dtypes.{name}": "fp8" for name in ("weight", "activation", "dispatch")}
# No prefill deployment on a whole rack is published in full: eight GPUs, experts spread
# over them, as many tokens a GPU as a package of two dies has.
RACK_PREFILL = {
    "system": "gb200-nvl72",
    "engine": "trtllm",
    "workload.tokens_per_device": 16384,
    "layout.devices": 8,
    "layout.tp": 1,
    "layout.ep": 8,
    "layout.attention": "dp",
    "routing.experts_per_device": 36,
    **AUTO,
    **FP8,
}
JOBS = {
    "decode": (
        ("deepseek-r1-decode-cloudmatrix384", AUTO),
        ("deepseek-r1-decode-gb200-nvl72", AUTO),
    ),
    "prefill": (
        ("deepseek-r1-prefill-cloudmatrix384", AUTO),
        ("deepseek-r1-prefill-cloudmatrix384", RACK_PREFILL),
    ),
}
DEVICES = ((32, 64, 128, 160, 256, 320, 384), (8, 16, 32, 64, 72))


@dataclass(frozen=True)
class Options:
    tpot_ms: tuple[float, ...] = (50.0, 15.0)
    ttft_s: float = 3.0
    """Limit of the searched prefill layouts; the shipped ones keep their batch."""
    packages: tuple[int, int] = (384, 72)
    power_kw: tuple[float, float] = (559.378, 145.0)
    """All-in, as SemiAnalysis counted both in April 2025."""
    kv_tokens_sigma: float = 0.2
    acceptance_sigma: float = 0.1
    """What is not known of the workload, relative; the same for both machines."""
    seed: int = 0


def sides(options: Options, phase: str, limit: str, layouts: str) -> list:
    """Both scenarios, with the layouts that ship or the best under the limit."""
    scenarios = []
    for (name, changes), devices in zip(JOBS[phase], DEVICES):
        scenario = cmx.load_scenario(name, changes)
        if layouts == "searched":
            answer = cmx.optimize(
                scenario,
                limits=(limit or f"ttft={options.ttft_s}s",),
                pinned={"cp": 1, "pp": 1, "etp": 1},
                devices=devices,
                certify=False,
                seed=options.seed,
            )
            kept = {k: v for k, v in changes.items() if not k.startswith("routing")}
            scenario = cmx.load_scenario(name, kept | answer.changes)
        scenarios.append(scenario)
    return scenarios


def rows_of(options: Options, phase: str, limit: str, layouts: str) -> list[dict]:
    """One row for each way to count."""
    first, second = sides(options, phase, limit, layouts)
    kilowatts = [n / power for n, power in zip(options.packages, options.power_kw)]
    ways = {"npu or gpu": (1.0, 1.0), "system": options.packages, "kW": kilowatts}
    sigmas = {
        "kv_tokens": options.kv_tokens_sigma,
        "acceptance": options.acceptance_sigma,
    }
    rows = []
    for per, scale in ways.items():
        result = cmx.versus(
            first,
            second,
            "tokens_rate_per_package",
            limits=(limit,) if limit else (),
            scale=(float(scale[0]), float(scale[1])),
            workload_sigmas=sigmas if phase == "decode" else {},
        )
        row = {"phase": phase, "limit": limit or "-", "layouts": layouts, "per": per}
        for name, side in (("cloudmatrix384", result.first), ("nvl72", result.second)):
            row |= {
                f"{name}_tokens_per_s": round(side.value, 1),
                f"{name}_sigma": round(side.sigma, 4),
                f"{name}_devices": side.problem.scenario.layout.devices,
                f"{name}_batch": side.batch and round(side.batch, 1),
            }
        row |= {"ratio": round(result.ratio, 4), "sigma": round(result.sigma, 4)}
        rows.append(row | {"probability": float(f"{result.probability:.3g}")})
    return rows


def draw(rows: list[dict]) -> None:
    """Ratios with one and two standard errors."""
    figure, axis = subplots(figsize=(8, 0.36 * len(rows) + 1.4), layout="constrained")
    colors = {"npu or gpu": "tab:blue", "system": "tab:green", "kW": "tab:red"}
    for y, row in enumerate(reversed(rows)):
        for width, line in ((1.0, 5.0), (2.0, 1.5)):
            spread = 2.718281828 ** (width * row["sigma"])
            ends = row["ratio"] / spread, row["ratio"] * spread
            axis.plot(ends, (y, y), color=colors[row["per"]], lw=line, alpha=0.6)
        axis.plot(row["ratio"], y, "ko", ms=4)
        # nobody should read more than three digits off the tails of a normal law
        p = min(max(row["probability"], 1e-3), 1.0 - 1e-3)
        sign = "=" if p == row["probability"] else "<>"[p > 0.5]
        axis.text(5.5, y, f"P {sign} {p:.3f}", va="center", fontsize=8)
    jobs = [f"{r['phase']} {r['limit']}".removesuffix(" -") for r in rows]
    labels = [f"{job}, {r['layouts']}, per {r['per']}" for job, r in zip(jobs, rows)]
    axis.set_yticks(range(len(rows)), labels[::-1], fontsize=8)
    axis.axvline(1.0, color="gray", lw=0.8)
    axis.set(xscale="log", xlim=(0.03, 11.0))
    ticks = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("tokens/s of CloudMatrix384 over GB200 NVL72, one and two sigma")
    axis.grid(alpha=0.3, axis="x")
    save(figure, RESULTS / "versus.svg")


def main(options: Options) -> None:
    cases = [("decode", f"tpot={limit:g}ms") for limit in options.tpot_ms]
    rows = []
    for layouts in ("shipped", "searched"):
        for phase, limit in [*cases, ("prefill", "")]:
            rows += rows_of(options, phase, limit, layouts)
            print(rows[-3:], flush=True)
    write_rows(rows, RESULTS / "versus.csv")
    draw(rows)


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
