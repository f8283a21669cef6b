"""How much does the placement of experts matter under skew, and how good is it?

    python experiments/expert_placement/run.py

256 experts with Zipf-distributed load on 32 to 320 devices; greedy balancing improved by
exchanges against greedy balancing alone and round robin. The bound: of the heaviest
replicas some share a device, and none can be split. Writes
`results/expert_placement.csv` and `.svg`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
DEVICES_PER_NODE = 16


@dataclass(frozen=True)
class Options:
    exponents: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    devices: tuple[int, ...] = (32, 64, 144, 320)
    experts: int = 256
    spare: float = 0.1
    """Least share of slots beyond one for each expert."""
    seed: int = 0


def row_of(options: Options, exponent: float, devices: int) -> dict:
    """One layer's placement and its baselines."""
    rng = np.random.default_rng(options.seed)
    loads = np.arange(1, options.experts + 1, dtype=float) ** -exponent
    loads = rng.permutation(loads / loads.sum())
    per_device = int(np.ceil(options.experts * (1.0 + options.spare) / devices))
    plan = cmx.place_experts(
        loads, devices, per_device, nodes=devices // DEVICES_PER_NODE, seed=options.seed
    )
    ours, greedy, plain = plan.costs[0], plan.greedy[0], plan.round_robin[0]
    bound = plan.bounds[0]
    return {
        "zipf_exponent": exponent,
        "devices": devices,
        "slots_per_device": per_device,
        "spare_slots": devices * per_device - options.experts,
        "bound": round(bound, 4),
        "ours": round(ours.slowest, 4),
        "greedy": round(greedy.slowest, 4),
        "round_robin": round(plain.slowest, 4),
        "gap": round(ours.slowest / bound - 1.0, 4),
        "ours_traffic": round(ours.traffic, 4),
        "greedy_traffic": round(greedy.traffic, 4),
        "seconds": round(plan.seconds, 1),
    }


def main(options: Options) -> None:
    rows = [
        row_of(options, exponent, devices)
        for devices in options.devices
        for exponent in options.exponents
    ]
    write_rows(rows, RESULTS / "expert_placement.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """Slowest device over the skew, a panel for each number of devices."""
    size = len(options.devices)
    figure, axes = subplots(1, size, figsize=(3 * size, 3.4), sharey=True)
    for axis, devices in zip(np.atleast_1d(axes), options.devices):
        panel = [row for row in rows if row["devices"] == devices]
        lines = {"round_robin": "s", "greedy": "^", "ours": "o", "bound": ""}
        for name, marker in lines.items():
            axis.plot(
                [row["zipf_exponent"] for row in panel],
                [row[name] for row in panel],
                marker=marker,
                linestyle="--" if name == "bound" else "-",
                color="black" if name == "bound" else None,
                label=name.replace("_", " "),
            )
        slots = panel[0]["slots_per_device"]
        axis.set_title(f"{devices} devices x {slots} slots", fontsize=9)
        axis.set_xlabel("Zipf exponent of expert load")
        axis.set_yscale("log")
        axis.set_yticks((1, 3, 10, 30), ("1", "3", "10", "30"))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("slowest device over mean load")
    np.atleast_1d(axes)[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, RESULTS / "expert_placement.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
