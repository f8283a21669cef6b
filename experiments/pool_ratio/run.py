"""How should 384 NPUs be split into prefill and decode over prompt and output lengths?

    python experiments/pool_ratio/run.py

Instances as published for CloudMatrix384: prefill on 16 NPUs, decode on 160; and decode
on 64, which leaves more splits. Writes `results/pool_ratio.csv` and `.svg`.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import cmxjax as cmx
from cmxjax.report.pictures import save, subplots
from cmxjax.report.rows import write_rows

RESULTS = Path(__file__).parent / "results"
SERVE = "deepseek-r1-serve-cloudmatrix384"
SMALLER = {"devices": 128, "dp": 128, "ep": 128, "overlapped_microbatches": 2}
INSTANCES = {
    160: {},
    64: {"pools.1.devices": 128, "pools.1.layout": SMALLER},
}


@dataclass(frozen=True)
class Options:
    prompts: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    outputs: tuple[int, ...] = (256, 1024, 2048, 4096)
    npus: int = 384
    tpot_limit_s: float = 0.05
    ttft_limit_s: float = 4.0
    calibration: str | None = None
    """The one that ships if left out."""


def row_of(options: Options, npus: int, prompt: int, output: int) -> dict:
    """The best split for requests of these lengths, and six prefill instances."""
    changes = INSTANCES[npus] | {
        "workload.prompt_tokens": prompt,
        "workload.output_tokens": output,
        "workload.ttft_limit": f"{options.ttft_limit_s} s",
        "workload.tpot_limit": f"{options.tpot_limit_s} s",
    }
    scenario = cmx.load_scenario(SERVE, changes)
    split = cmx.split_pools(scenario, 2 * options.npus, calibration=options.calibration)
    pools = split.metrics.pools
    six = 6.0 * pools["prefill"].requests_per_s / pools["prefill"].instances
    tokens = split.metrics.prefill_tokens_per_device
    assert tokens is not None
    one = pools["decode"].requests_per_s / pools["decode"].instances
    return {
        "decode_instance_npus": npus,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "prefill_share": round(split.share["prefill"], 4),
        "prefill_instances": split.best.instances["prefill"],
        "decode_instances": split.best.instances["decode"],
        "idle_npus": split.idle_devices // 2,
        "requests_per_s": round(split.best.requests_per_s, 2),
        "relaxed_requests_per_s": round(split.relaxed_requests_per_s, 2),
        "rounded_requests_per_s": round(split.rounded.requests_per_s, 2),
        "splits": split.evaluations["exhaustive"],
        "six_prefill_requests_per_s": round(float(six), 2),
        "one_decode_requests_per_s": round(float(one), 2),
        "prefill_tokens_per_npu": 2 * float(tokens),
        "decode_bound": max(
            pools["decode"].limits, key=lambda k: float(pools["decode"].limits[k])
        ),
    }


def main(options: Options) -> None:
    rows = [
        row_of(options, npus, prompt, output)
        for npus in INSTANCES
        for output in options.outputs
        for prompt in options.prompts
    ]
    write_rows(rows, RESULTS / "pool_ratio.csv")
    draw(options, rows)


def draw(options: Options, rows: list[dict]) -> None:
    """The best share over the prompt, for instances as published."""
    figure, axis = subplots(figsize=(7.6, 3.8))
    for output in options.outputs:
        line = [
            row
            for row in rows
            if row["output_tokens"] == output and row["decode_instance_npus"] == 160
        ]
        axis.plot(
            [row["prompt_tokens"] for row in line],
            [row["prefill_share"] for row in line],
            marker="o",
            label=f"{output} output tokens",
        )
    published = 6 * 16 / (6 * 16 + 160)
    axis.axhline(published, color="gray", linestyle="--", label="published 6 x 16 + 160")
    axis.set_xscale("log", base=2)
    axis.set_xticks(options.prompts, [f"{prompt:,}" for prompt in options.prompts])
    axis.set_ylim(0.0, 1.0)
    axis.set_xlabel("prompt tokens")
    axis.set_ylabel("best share of NPUs in prefill")
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    axis.grid(alpha=0.3)
    figure.tight_layout()
    save(figure, RESULTS / "pool_ratio.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
