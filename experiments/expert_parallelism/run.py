"""Is EP320 the best expert parallelism for decoding DeepSeek-R1, and why?

    python experiments/expert_parallelism/run.py

320 dies of CloudMatrix384 as published, attention data-parallel, TPOT within 50 ms. For
each EP degree the best batch, spare slots and placement by an exhaustive sweep; copies
of the experts fill the dies. Writes `results/expert_parallelism.csv` and `.svg`.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
SCENARIO = "deepseek-r1-decode-cloudmatrix384"
TIMES = {
    "attention stream": "attention_stream_time_s",
    "dispatch": "dispatch_time_s",
    "combine": "combine_time_s",
    "whole MoE stream": "moe_stream_time_s",
}
"""Of a layer and micro-batch, at the published batch and with two micro-batches."""

PUBLISHED = {
    "workload.sequences_per_device": 48,
    "layout.overlapped_microbatches": 2,
}


@dataclass(frozen=True)
class Options:
    degrees: tuple[int, ...] = (8, 16, 20, 32, 40, 64, 80, 160, 320)
    dies: int = 320
    tpot_limit_ms: float = 50.0
    calibration: str | None = None
    """The one that ships for the system; `none` for the spec as printed."""


def row_of(options: Options, ep: int) -> dict:
    """The best settings at this EP degree."""
    answer = cmx.optimize(
        cmx.load_scenario(SCENARIO),
        limits=(f"tpot={options.tpot_limit_ms}ms",),
        pinned={"tp": 1, "cp": 1, "pp": 1, "etp": 1, "ep": ep},
        devices=(options.dies,),
        method="enumerate",
        calibration=options.calibration,
    )
    row = {"ep": ep, "feasible": answer.feasible, "reason": "; ".join(answer.reasons)}
    if not answer.feasible:
        return row
    changes = answer.changes
    batch = changes["workload.sequences_per_device"]
    assert isinstance(batch, float)
    best = cmx.predict(cmx.load_scenario(SCENARIO, changes), options.calibration)
    even = cmx.load_scenario(SCENARIO, changes | {"routing.balance": "uniform"})
    balanced = cmx.predict(even, options.calibration).values["tokens_per_s_per_package"]
    rate = best.values["tokens_per_s_per_package"]
    usable = float(best.problem.system.chip.memory_usable_bytes)
    row |= {
        "tokens_per_s_per_npu": round(rate, 1),
        "tpot_ms": round(1e3 * best.values["tpot_s"], 2),
        "batch_per_npu": 2 * batch,
        "experts_per_die": changes["routing.experts_per_device"],
        "redundant_experts": changes["routing.redundant_experts"],
        "shared_replicas": changes["routing.shared_replicas"],
        "memory_used": round(best.values["memory_bytes"] / usable, 3),
        "lost_to_imbalance": round(1.0 - rate / balanced, 4),
        "gap": answer.certificate.gap,
        "points": answer.certificate.points,
    }
    alike = cmx.predict(
        cmx.load_scenario(SCENARIO, changes | PUBLISHED), options.calibration
    )
    for name, field in TIMES.items():
        row[f"{name} (us)"] = round(1e6 * alike.values[field], 1)
    return row


def main(options: Options) -> None:
    rows = []
    for ep in options.degrees:
        rows.append(row_of(options, ep))
        print(rows[-1], flush=True)
    write_rows(rows, RESULTS / "expert_parallelism.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """Throughput at each EP degree, and what a die is busy with."""
    feasible = [row for row in rows if row["feasible"]]
    figure, (rate, cost) = subplots(1, 2, figsize=(9, 3.6))
    places = range(len(feasible))
    rate.bar(places, [row["tokens_per_s_per_npu"] for row in feasible])
    for place, row in zip(places, feasible):
        rate.annotate(
            f"{row['batch_per_npu']:g}\n{row['memory_used']:.0%}",
            (place, row["tokens_per_s_per_npu"]),
            ha="center",
            va="bottom",
            fontsize=7,
        )
    rate.set_ylabel("tokens/s per NPU")
    rate.set_title("best at each EP (batch per NPU, memory used)", fontsize=9)
    rate.margins(y=0.15)
    for name, marker in zip(TIMES, "os^v"):
        times = [row[f"{name} (us)"] for row in feasible]
        cost.plot(places, times, marker=marker, label=name)
    cost.set_ylabel("us of a layer and micro-batch")
    cost.set_title("at batch 96 per NPU", fontsize=9)
    cost.set_ylim(bottom=0)
    cost.grid(alpha=0.3)
    cost.legend(fontsize=7)
    for axis in (rate, cost):
        axis.set_xlabel("EP degree")
        axis.set_xticks(list(places), [str(row["ep"]) for row in feasible])
    figure.tight_layout()
    save(figure, RESULTS / "expert_parallelism.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
