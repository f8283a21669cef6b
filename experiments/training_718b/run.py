"""Which layout trains a 718B mixture of experts best on 6,000 and 8,192 NPUs?

    python experiments/training_718b/run.py

Pangu Ultra MoE (arXiv 2505.04519) on Atlas 800 A2, where an NPU is a device, and on
CloudMatrix384, where it is two dies. One sequence of 8,192 tokens a step for each NPU, so
that a batch divides by the same numbers as the cluster; nothing offloaded. The published
degrees (TP8 PP16 VPP2 EP32, 6K NPUs) are scored beside, where they divide the cluster.
Writes `results/training_718b.csv` and `.svg`.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
SCENARIO = "pangu-ultra-moe-train-cloudmatrix384"
AXES = ("tp", "cp", "dp", "pp", "etp", "ep", "edp")
PUBLISHED = {"tp": 8, "cp": 1, "pp": 16, "etp": 1, "ep": 32}
DEVICES = {"atlas-800-a2": 1, "cloudmatrix384": 2}
"""Devices of an NPU."""


@dataclass(frozen=True)
class Options:
    npus: tuple[int, ...] = (6000, 8192)
    chunks: tuple[int, ...] = (1, 2)
    """Virtual pipeline stages of a device."""
    sequences_per_npu: int = 1
    calibration: str | None = None
    """The one that ships for the system; `none` for the spec as printed."""
    seed: int = 0


def row_of(options: Options, system: str, npus: int, vpp: int, published: bool) -> dict:
    """The best layout, of all or of the published degrees."""
    changes = {
        "system": system,
        "workload.global_batch": options.sequences_per_npu * npus,
        "workload.offload": {},
        "layout": {
            "devices": npus * DEVICES[system],
            "vpp": vpp,
            "overlapped_microbatches": 2,
            "sequence_parallel": True,
        },
    }
    given = {"vpp": vpp, "schedule": "1f1b", "overlapped_microbatches": 2}
    given["sequence_parallel"] = 1
    answer = cmx.optimize(
        cmx.load_scenario(SCENARIO, changes),
        pinned=given | (PUBLISHED if published else {}),
        devices=(npus * DEVICES[system],),
        calibration=options.calibration,
        seed=options.seed,
    )
    row = {
        "system": system,
        "npus": npus,
        "vpp": vpp,
        "degrees": "published" if published else "free",
        "calibration": answer.job.problem.calibration,
        "feasible": answer.feasible,
        "reason": "; ".join(answer.reasons),
    }
    if not answer.feasible:
        return row
    chosen, c = answer.changes, answer.certificate
    best = cmx.load_scenario(SCENARIO, changes | chosen)
    prediction = cmx.predict(best, options.calibration)
    values = prediction.values
    usable = float(prediction.problem.system.chip.memory_usable_bytes)
    return row | {
        "tokens_per_s_per_npu": round(values["tokens_per_s_per_package"], 1),
        "mfu": round(values["mfu"], 4),
        "bubble": round(values["bubble"], 4),
        "memory_used": round(values["memory_bytes"] / usable, 3),
        **{axis: chosen[f"layout.{axis}"] for axis in AXES},
        "micro_batch": chosen["workload.micro_batch"],
        "recompute": chosen["workload.recompute"],
        "zero": chosen["workload.zero"],
        "schedule": chosen["workload.schedule"],
        "placement": chosen["layout.placement"],
        "certified_by": "bound" if c.optimum is None else "optimum",
        "gap": c.gap,
        "points": c.points,
        "evaluations": sum(c.evaluations.values()),
    }


def main(options: Options) -> None:
    rows = []
    for system in DEVICES:
        for npus in options.npus:
            for vpp in options.chunks:
                for published in (False, True):
                    if published and npus * DEVICES[system] % 128:
                        continue  # TP8 x PP16
                    rows.append(row_of(options, system, npus, vpp, published))
                    print(rows[-1], flush=True)
    write_rows(rows, RESULTS / "training_718b.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """MFU of every row, with its degrees."""
    rows = [row for row in rows if row["feasible"]]
    figure, axis = subplots(figsize=(7.5, 0.5 * len(rows) + 1.2))
    colors = ["C1" if row["degrees"] == "published" else "C0" for row in rows]
    places = range(len(rows))
    axis.barh(places, [row["mfu"] for row in rows], color=colors)
    for place, row in zip(places, rows):
        degrees = " ".join(f"{name}{row[name]}" for name in AXES if row[name] > 1)
        axis.text(0.005, place, degrees, va="center", fontsize=7, color="white")
    names = [f"{row['system']}, {row['npus']}, vpp {row['vpp']}" for row in rows]
    axis.set_yticks(list(places), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("model FLOP utilization (orange: published degrees)")
    axis.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    save(figure, RESULTS / "training_718b.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
