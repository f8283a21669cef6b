"""How should 384 NPUs be split into prefill and decode over prompt and output lengths?

    python experiments/pool_ratio/run.py

Instances as published for CloudMatrix384: prefill on 16 NPUs, decode on 160; and decode
on 64, which leaves more splits. Writes `results/pool_ratio.csv` and `.svg`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import tyro

import cmxjax as cmx

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
DECODE = "deepseek-r1-decode-cloudmatrix384"
INSTANCES = {
    160: {},
    64: {
        "layout.devices": 128,
        "layout.dp": 128,
        "layout.ep": 128,
        "routing.experts_per_device": 3,
        "routing.redundant_experts": 90,
        "routing.shared_replicas": 38,
    },
}


@dataclass(frozen=True)
class Options:
    prompts: tuple[int, ...] = (1024, 2048, 4096, 8192)
    outputs: tuple[int, ...] = (256, 1024, 2048)
    npus: int = 384
    tpot_limit_s: float = 0.05
    ttft_limit_s: float = 4.0
    calibration: str = "none"


def row_of(options: Options, npus: int, prompt: int, output: int) -> dict:
    """The best split for requests of these lengths."""
    prefill = cmx.load_scenario(
        PREFILL, {"workload.prompt_tokens": prompt, "workload.tokens_per_device": 8192}
    )
    context = {"workload.kv_tokens": prompt + output / 2}
    pools = cmx.split_pools(
        prefill,
        cmx.load_scenario(DECODE, INSTANCES[npus] | context),
        2 * options.npus,
        output_tokens=output,
        ttft_limit_s=options.ttft_limit_s,
        tpot_limit_s=options.tpot_limit_s,
        calibration=options.calibration,
    )
    published = next((s for s in pools.splits if s.prefill == 6), None)
    return {
        "decode_instance_npus": npus,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "prefill_share": round(pools.share, 4),
        "prefill_instances": pools.best.prefill,
        "decode_instances": pools.best.decode,
        "requests_per_s": round(pools.best.requests_per_s, 2),
        "relaxed_requests_per_s": round(pools.relaxed_requests_per_s, 2),
        "six_prefill_requests_per_s": published and round(published.requests_per_s, 2),
        "batch_per_npu": 2 * pools.decode.batch,
        "prefill_utilization": round(pools.prefill.utilization, 3),
    }


def main(options: Options) -> None:
    rows = [
        row_of(options, npus, prompt, output)
        for npus in INSTANCES
        for output in options.outputs
        for prompt in options.prompts
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "pool_ratio.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for output in options.outputs:
        own = [
            row
            for row in rows
            if row["output_tokens"] == output and row["decode_instance_npus"] == 160
        ]
        axis.plot(
            [row["prompt_tokens"] for row in own],
            [row["prefill_share"] for row in own],
            marker="o",
            label=f"{output} output tokens",
        )
    published = 6 * 16 / (6 * 16 + 160)
    axis.axhline(published, color="gray", linestyle="--", label="published 6 x 16 + 160")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("prompt tokens")
    axis.set_ylabel("best share of NPUs in prefill")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / "pool_ratio.svg")


if __name__ == "__main__":
    cmx.setup()
    main(tyro.cli(Options))
