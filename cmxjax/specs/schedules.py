"""Which pipeline schedules there are for how many chunks, stages and micro-batches.

GPipe has one chunk of the model on a device. The zero-bubble schedules have one (ZB-H1)
or two (ZB-V). DualPipe has one, and feeds micro-batches from both ends: its devices and
its micro-batches are even in number, at least two micro-batches for each device. Only
interleaved 1F1B takes any number of chunks.

Reference: Huang et al., arXiv 1811.06965; Qi et al., arXiv 2401.10241; DualPipe's
published program, github.com/deepseek-ai/DualPipe, `dualpipe.py`.
"""

MOST_CHUNKS = {"gpipe": 1, "zero_bubble": 2, "dualpipe": 1}
"""Chunks on a device; interleaved 1F1B isn't here."""

DUALPIPE_EACH = 2
"""Micro-batches of DualPipe for each stage, at least."""


def schedule_of(schedule: str, chunks: int | float) -> str:
    """1F1B of several chunks is the interleaved schedule, and that of one is 1F1B."""
    if schedule in ("1f1b", "interleaved"):
        return "interleaved" if chunks > 1 else "1f1b"
    return schedule


def program_of(schedule: str) -> str:
    """What programs are keyed on: 1F1B of one chunk and of several are one."""
    return "1f1b" if schedule == "interleaved" else schedule


def schedule_mistakes(
    schedule: str, chunks: int, pp: int, count: int | float
) -> list[str]:
    """Why a schedule can't run, as `key = value: remedy`. A single stage has any number
    of micro-batches.

    Args:
        count: micro-batches of a data-parallel rank.
    """
    mistakes, most = [], MOST_CHUNKS.get(schedule, chunks)
    if chunks > most:
        mistakes.append(
            f"layout.vpp = {chunks}: schedule {schedule} has at most {most} on a device;"
            f" use {most} or another workload.schedule"
        )
    if schedule != "dualpipe" or pp == 1:
        return mistakes
    if pp % 2:
        mistakes.append(
            f"layout.pp = {pp}: schedule dualpipe needs an even number of stages; use"
            f" {pp + 1} or another workload.schedule"
        )
    least = DUALPIPE_EACH * pp
    if count < least or count % 2:
        mistakes.append(
            f"workload.global_batch: makes {count:g} micro-batches of a data-parallel"
            f" rank; schedule dualpipe needs an even number, at least {least} for"
            f" pp = {pp}; change the batch or use another workload.schedule"
        )
    return mistakes
