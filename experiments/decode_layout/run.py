"""Which layout decodes DeepSeek-R1 best on CloudMatrix384 under each latency limit?

    python experiments/decode_layout/run.py

Instances of 32 to 384 dies, all degrees, placements and batches free; each answer is
compared with the exhaustive sweep. Writes
`results/decode_layout.csv` and `.svg` beside this file.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
SCENARIO = "deepseek-r1-decode-cloudmatrix384"
KEYS = ("tp", "dp", "pp", "ep", "edp")


@dataclass(frozen=True)
class Options:
    limits_ms: tuple[float, ...] = (15.0, 30.0, 50.0)
    devices: tuple[int, ...] = (32, 64, 96, 128, 160, 192, 256, 288, 320, 384)
    calibration: str | None = None
    """The one that ships for the system; `none` for the spec as printed."""
    seed: int = 0


def row_of(options: Options, limit_ms: float, devices: int) -> dict:
    """The best layout of an instance of this size."""
    answer = cmx.optimize(
        cmx.load_scenario(SCENARIO),
        limits=(f"tpot={limit_ms}ms",),
        pinned={"cp": 1, "etp": 1},
        devices=(devices,),
        certify=True,
        calibration=options.calibration,
        seed=options.seed,
    )
    row = {"limit_ms": limit_ms, "dies": devices, "feasible": answer.feasible}
    if not answer.feasible or answer.value is None:
        return row
    changes, c = answer.changes, answer.certificate
    batch = changes["workload.sequences_per_device"]
    assert isinstance(batch, float)
    row |= {
        "tokens_per_s_per_npu": round(answer.value, 1),
        "tpot_ms": round(1e3 * answer.metrics["tpot_s"], 2),
        "batch_per_npu": 2 * batch,
        **{key: changes[f"layout.{key}"] for key in KEYS},
        "experts_per_die": changes["routing.experts_per_device"],
        "shared_replicas": changes["routing.shared_replicas"],
        "redundant_experts": changes["routing.redundant_experts"],
        "optimum": c.optimum and round(c.optimum, 1),
        "gap": c.gap,
        "points": c.points,
        "evaluations": sum(c.evaluations.values()),
    }
    return row


def main(options: Options) -> None:
    rows = []
    for limit_ms in options.limits_ms:
        for devices in options.devices:
            rows.append(row_of(options, limit_ms, devices))
            print(rows[-1], flush=True)
    write_rows(rows, RESULTS / "decode_layout.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """Throughput over the size of an instance, a line for each limit."""
    figure, axis = subplots(figsize=(6, 3.6))
    for limit_ms in options.limits_ms:
        line = [row for row in rows if row["limit_ms"] == limit_ms and row["feasible"]]
        axis.plot(
            [row["dies"] for row in line],
            [row["tokens_per_s_per_npu"] for row in line],
            marker="o",
            label=f"TPOT {limit_ms:g} ms",
        )
    axis.set_xlabel("dies of an instance")
    axis.set_ylabel("tokens/s per NPU")
    axis.legend()
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    save(figure, RESULTS / "decode_layout.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
