"""What would CloudMatrix384 look like if its 559 kW were spent best?

    python experiments/codesign_559kw/run.py

Co-design for decode, prefill and both, with 384 NPUs and with their number free, over
budgets. Writes `results/codesign.csv`, `.json` and `.svg` beside this file.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
BUDGET = "cloudmatrix384-power"
DECODE = "deepseek-r1-decode-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
CHIP = ("compute", "hbm_bandwidth", "hbm_size", "package_link")
PARTS = (*CHIP, "ub_bandwidth", "ub_speed")


@dataclass(frozen=True)
class Options:
    spend: str = "559.378 kW"
    tpot: str = "tpot=50ms"
    restarts: int = 4
    seed: int = 0


def design_rows(options: Options, name: str, mix: list, npus: str) -> tuple[list, dict]:
    """The path over budgets of one mix, and all of it for the JSON."""
    only = PARTS if npus == "384" else ()
    result = cmx.codesign(
        mix,
        BUDGET,
        spend=options.spend,
        only=only,
        restarts=options.restarts,
        seed=options.seed,
    )
    rows = []
    for design in result.path:
        row = {"mix": name, "npus": npus, "budget_kw": round(design.budget / 1e3, 1)}
        row |= {"gain": round(math.exp(design.mean - result.now.mean), 4)}
        row |= {key: round(value, 4) for key, value in design.multipliers.items()}
        row["feasible"] = design.feasible
        if design.certificate is not None:
            row["marginal_gain"] = round(design.certificate.budget_multiplier, 4)
            row["spread"] = float(f"{design.certificate.spread:.2g}")
        rows.append(row | {"best_exchange": float(f"{design.best_exchange:.2g}")})
    print(name, npus, rows[len(rows) // 2], f"{result.seconds:.0f} s", flush=True)
    details = result.as_json()
    del details["path"]  # the table has it
    if name == "decode" and npus == "any":
        details["layout"] = layout_again(options, result)
        print(details["layout"], flush=True)
    return rows, details


def layout_again(options: Options, result) -> dict:
    """Whether the published layout is still right on the best machine."""
    values = {k: v for k, v in result.best.values.items() if not k.endswith("latency_s")}
    size = "system.tiers.supernode.size"
    changes = values | {size: round(values[size])}
    answer = cmx.optimize(
        cmx.load_scenario(DECODE, changes),
        limits=(options.tpot,),
        pinned={"cp": 1, "pp": 1, "etp": 1},
        devices=(64, 128, 160, 256, 320, 384),
        certify=False,
        seed=options.seed,
    )
    npus = 8.0 * values[size]
    return {
        "published_tokens_per_s_per_npu": result.best.runs[0].metric / npus,
        "searched_tokens_per_s_per_npu": answer.value,
        "searched": answer.changes,
    }


def draw(rows: list[dict], spend_kw: float) -> None:
    """Best machines at the full budget; gain of each mix over the budget."""
    figure, axes = subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    names = (*PARTS, "size")
    best = [row for row in rows if abs(row["budget_kw"] - spend_kw) < 0.1]
    for k, row in enumerate(best):
        at = [i + 0.13 * (k - 0.5 * (len(best) - 1)) for i in range(len(names))]
        label = f"{row['mix']}, {row['npus']} NPUs: {row['gain']:.2f}x"
        axes[0].bar(at, [row[name] for name in names], 0.12, label=label)
    axes[0].axhline(1.0, color="gray", lw=0.8)
    axes[0].set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes[0].set(yscale="log", ylabel=f"times what it is, at {spend_kw:g} kW")
    axes[0].set_yticks((0.25, 0.5, 1, 2, 4), ("0.25", "0.5", "1", "2", "4"))
    axes[0].minorticks_off()
    axes[0].set_ylim(0.2, 9.0)
    axes[0].legend(fontsize=8, ncols=2, loc="upper center")
    for mix, npus in dict.fromkeys((row["mix"], row["npus"]) for row in rows):
        path = [row for row in rows if (row["mix"], row["npus"]) == (mix, npus)]
        good = [row for row in path if row["feasible"]]
        line = "-o" if npus == "384" else "--o"
        points = [row["budget_kw"] for row in good], [row["gain"] for row in good]
        axes[1].plot(*points, line, label=f"{mix}, {npus} NPUs")
    axes[1].plot([spend_kw], [1.0], "k*", ms=10, label="CloudMatrix384")
    axes[1].set(xlabel="all-in power, kW", ylabel="tokens/s, times what it is")
    axes[1].legend(fontsize=8)
    axes[1].grid(alpha=0.3)
    save(figure, RESULTS / "codesign.svg")


def main(options: Options) -> None:
    decode = cmx.Share(cmx.load_scenario(DECODE), limits=(options.tpot,))
    prefill = cmx.Share(cmx.load_scenario(PREFILL))
    mixes = {"decode": [decode], "prefill": [prefill], "both": [decode, prefill]}
    rows, details = [], {}
    for name, mix in mixes.items():
        for npus in ("384", "any"):
            path, details[f"{name}, {npus} NPUs"] = design_rows(options, name, mix, npus)
            rows += path
    write_rows(rows, RESULTS / "codesign.csv")
    (RESULTS / "codesign.json").write_text(json.dumps(details, indent=1) + "\n")
    draw(rows, float(options.spend.split()[0]))


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
