"""Which axes should go over RDMA when a training job spans many CloudMatrix384?

    python experiments/many_supernodes/run.py

Pangu Ultra MoE 718B on 1 to 32 supernodes of 384 NPUs, the batch growing with them. The
best layout of each; then its degrees with each axis in turn pushed outward, so that it
crosses RDMA as much as it can. Writes `results/many_supernodes.csv` and `.svg`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
SCENARIO = "pangu-ultra-moe-train-cloudmatrix384"
AXES = ("tp", "cp", "dp", "pp", "etp", "ep", "edp")
FOLDINGS = {"attention": ("tp", "cp", "dp", "pp"), "expert": ("etp", "ep", "edp", "pp")}
FROM_INSIDE = ("tp", "cp", "etp", "ep", "pp", "dp", "edp")
DIES = 768
"""Of a supernode."""


@dataclass(frozen=True)
class Options:
    supernodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    sequences_per_supernode: int = 768
    calibration: str | None = None
    """The one that ships for the system; `none` for the spec as printed."""
    seed: int = 0


def outward(units: list[int], changes: dict, last: str) -> dict[str, list[int]] | None:
    """The same degrees with one axis outermost, the others filling tiers from inside.

    Returns:
        For each axis the ways it splits within each tier; None where the degrees don't
        divide the tiers that way.
    """
    degrees = {axis: changes[f"layout.{axis}"] for axis in AXES}
    inside = [axis for axis in FROM_INSIDE if axis != last]
    free = {side: list(units) for side in FOLDINGS}
    placed: dict[str, list[int]] = {}
    for axis in [*inside, last]:
        # a pipeline splits the devices of both foldings
        sides = [name for name, axes in FOLDINGS.items() if axis in axes]
        left, row = degrees[axis], [1] * len(units)
        for tier in range(len(units)):
            row[tier] = math.gcd(left, *(free[side][tier] for side in sides))
            left //= row[tier]
            for side in sides:
                free[side][tier] //= row[tier]
        if left > 1:
            return None
        placed[axis] = row
    return placed


def rows_of(options: Options, count: int) -> list[dict]:
    """The best layout on some supernodes, and its variants."""
    job = {
        "workload.global_batch": options.sequences_per_supernode * count,
        "workload.offload": {},
        "layout": {
            "devices": DIES * count,
            "vpp": 2,
            "overlapped_microbatches": 2,
            "sequence_parallel": True,
        },
    }
    answer = cmx.optimize(
        cmx.load_scenario(SCENARIO, job),
        devices=(DIES * count,),
        calibration=options.calibration,
        seed=options.seed,
    )
    if not answer.feasible:
        return [{"supernodes": count, "outermost": "best", "feasible": False}]
    chosen, c = answer.changes, answer.certificate
    units = [2, 8, 48, count]
    placement = chosen["layout.placement"]
    assert isinstance(placement, dict)
    variants = {"best": placement}
    if count > 1:
        for axis in AXES:
            split = outward(units, chosen, axis)
            if split and split[axis][-1] > 1 and split not in variants.values():
                variants[axis] = split
    rows = []
    for name, split in variants.items():
        split = {axis: row for axis, row in split.items() if max(row) > 1}
        changes = job | chosen | {"layout.placement": split}
        values = cmx.predict(
            cmx.load_scenario(SCENARIO, changes), options.calibration
        ).values
        over = [f"{axis}{row[-1]}" for axis, row in split.items() if row[-1] > 1]
        row = {
            "supernodes": count,
            "outermost": name,
            "feasible": True,
            "over_rdma": " ".join(over),
            "tokens_per_s_per_npu": round(values["tokens_per_s_per_package"], 1),
            "mfu": round(values["mfu"], 4),
            "step_time_s": round(values["step_time_s"], 3),
            **{axis: chosen[f"layout.{axis}"] for axis in AXES},
            "micro_batch": chosen["workload.micro_batch"],
            "recompute": chosen["workload.recompute"],
            "zero": chosen["workload.zero"],
            "schedule": chosen["workload.schedule"],
        }
        if name == "best":
            row["certified_by"] = "bound" if c.optimum is None else "optimum"
            row |= {"gap": c.gap, "points": c.points}
            row["evaluations"] = sum(c.evaluations.values())
        rows.append(row)
    return rows


def main(options: Options) -> None:
    rows = []
    for count in options.supernodes:
        rows += rows_of(options, count)
        print(*rows[-3:], sep="\n", flush=True)
    write_rows(rows, RESULTS / "many_supernodes.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """Throughput over the supernodes, a line for each axis pushed outward."""
    figure, axis = subplots(figsize=(6, 3.6))
    rows = [row for row in rows if row["feasible"]]
    for name in dict.fromkeys(row["outermost"] for row in rows):
        line = [row for row in rows if row["outermost"] == name]
        axis.plot(
            [row["supernodes"] for row in line],
            [row["tokens_per_s_per_npu"] for row in line],
            marker="o",
            linewidth=2.5 if name == "best" else 1,
            label=name if name == "best" else f"{name} outermost",
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(options.supernodes, [str(n) for n in options.supernodes])
    axis.set_xlabel("supernodes of 384 NPUs")
    axis.set_ylabel("tokens/s per NPU")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    save(figure, RESULTS / "many_supernodes.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
