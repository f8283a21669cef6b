"""What would make CloudMatrix384 match GB200 NVL72 in tokens/s per kW?

    python experiments/codesign_559kw/match.py

Decode of DeepSeek-R1 within 50 ms. Every part of the machine alone and the least change
of several, in the sum of squared logs; then the energies of their work, which newer
processes, memories and optics change. What can't reach it is given at its best. Writes
`results/match.csv` and `.svg` beside this file.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ENERGY = str(HERE / "energy.toml")
DECODE, RIVAL = "deepseek-r1-decode-cloudmatrix384", "deepseek-r1-decode-gb200-nvl72"
CHIP = ("compute", "hbm_bandwidth", "hbm_size", "package_link")
FABRIC = ("ub_bandwidth", "ub_speed")
ENERGIES = ("compute_energy", "hbm_energy", "ub_energy", "rest_energy")
TOGETHER = {
    "chip": CHIP,
    "fabric": FABRIC,
    "chip and fabric": CHIP + FABRIC,
    "energies": ENERGIES,
    "everything": CHIP + FABRIC + ENERGIES,
}


@dataclass(frozen=True)
class Options:
    tpot: str = "tpot=50ms"
    rival_kw: float = 145.0
    rival_gpus: int = 72


def rows_of(options: Options) -> list[dict]:
    """What brings decode to the rival's tokens/s per kW: parts together and alone."""
    share = cmx.Share(cmx.load_scenario(DECODE), limits=(options.tpot,))
    against = cmx.versus(
        share.scenario,
        cmx.load_scenario(RIVAL),
        "tokens_rate_per_package",
        limits=share.limits,
        scale=(1.0, options.rival_gpus / (1e3 * options.rival_kw)),
    )
    rows = []
    for name, only in TOGETHER.items():
        result = cmx.match([share], ENERGY, against.second.value, only=only)
        now = result.now / result.target
        changed = {key: result.joint[key] for key in only}
        row = {
            "what": name,
            "now": round(now, 4),
            "reached": round(result.joint_ratio, 4),
        }
        rows.append(row | {key: round(value, 4) for key, value in changed.items()})
        if name == "everything":
            for single in result.singles:
                row = {"what": f"{single.resource} alone", "now": round(now, 4)}
                row["reached"] = round(min(single.best, 1.0), 4)
                factor = single.multiplier or single.best_multiplier
                rows.append(row | {single.resource: round(factor, 4)})
    return rows


def draw(rows: list[dict]) -> None:
    """How far each way goes, and what it takes."""
    figure, axis = subplots(figsize=(10, 5.6), layout="constrained")
    for y, row in enumerate(reversed(rows)):
        axis.barh(
            y, row["reached"], color="tab:green" if row["reached"] >= 1.0 else "0.7"
        )
        parts = [f"{k} {row[k]:.2f}x" for k in CHIP + FABRIC + ENERGIES if k in row]
        moved = [part for part in parts if abs(float(part.split()[1][:-1]) - 1.0) > 0.02]
        lines = [", ".join(moved[i : i + 3]) for i in range(0, len(moved), 3)]
        axis.text(1.03, y, "\n".join(lines), va="center", fontsize=6.5)
    axis.axvline(rows[0]["now"], color="tab:red", lw=1.0, label="CloudMatrix384")
    axis.axvline(1.0, color="k", lw=1.0, label="GB200 NVL72")
    axis.set_yticks(range(len(rows)), [row["what"] for row in rows][::-1], fontsize=8)
    axis.set(xlim=(0.0, 2.1), xlabel="tokens/s per kW within 50 ms, over GB200 NVL72")
    axis.set_xticks((0.0, 0.25, 0.5, 0.75, 1.0))
    axis.legend(fontsize=8, loc="lower right")
    save(figure, RESULTS / "match.svg")


def main(options: Options) -> None:
    rows = rows_of(options)
    write_rows(rows, RESULTS / "match.csv")
    draw(rows)


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
