"""Traces of requests: when they arrived, and how long they were.

Read are CSV files with a heading: `arrival_s, prompt_tokens, output_tokens`, or that of
the Azure LLM inference traces (`TIMESTAMP, ContextTokens, GeneratedTokens`); and files of
one JSON object a line as Mooncake publishes them (`timestamp` in milliseconds,
`input_length`, `output_length`).
"""

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import SpecError, shown
from .files import read_text

OWN = ("arrival_s", "prompt_tokens", "output_tokens")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE = ("timestamp", "input_length", "output_length")

FEWEST = 20
"""Requests that say something of rates and lengths."""


class Trace(NamedTuple):
    """Requests in the order of their arrival; columns of one length."""

    arrival_s: np.ndarray
    """From the first one on."""
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray

    @property
    def per_s(self) -> float:
        return (len(self.arrival_s) - 1) / float(self.arrival_s[-1])

    @property
    def arrival_cv(self) -> float:
        """Coefficient of variation of the gaps between requests."""
        gaps = np.diff(self.arrival_s)
        return float(gaps.std() / gaps.mean())


def load_trace(name: str) -> Trace:
    """A trace by the path of its file.

    Raises:
        SpecError: naming the file, the line and what is wrong with it.
    """
    rows, mistakes = [], []
    read = _of_lines if Path(name).suffix in (".jsonl", ".json") else _of_table
    for line, values in read(name, read_text(Path(name))):
        try:
            rows.append(_row(values))
        except (ValueError, TypeError, AttributeError) as error:
            mistakes.append(f"{name}: line {line}: {error}")
    if mistakes:
        raise SpecError(mistakes)
    if len(rows) < FEWEST:
        said = f"{name}: {len(rows)} requests are too few; give at least {FEWEST}"
        raise SpecError([said])
    table = np.array(sorted(rows))
    if not table[-1, 0] > table[0, 0]:
        raise SpecError([f"{name}: all requests arrive at once; their times say no rate"])
    return Trace(table[:, 0] - table[0, 0], table[:, 1], table[:, 2])


def _of_table(name: str, text: str) -> Iterator[tuple[int, tuple]]:
    reader = csv.reader(StringIO(text))
    heading = [column.strip() for column in next(reader, [])]
    known = next((k for k in (OWN, AZURE) if set(k) <= set(heading)), None)
    if known is None:
        raise SpecError(
            [
                f"{name}: the first line must name the columns {', '.join(OWN)}, or"
                f" {', '.join(AZURE)}"
            ]
        )
    places = [heading.index(column) for column in known]
    for row in reader:
        if row:
            yield reader.line_num, tuple(row[i] if i < len(row) else "" for i in places)


def _of_lines(name: str, text: str) -> Iterator[tuple[int, tuple]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            values = tuple(raw[key] for key in MOONCAKE)
        except (ValueError, TypeError, KeyError):
            keys = ", ".join(MOONCAKE)
            said = f"{name}: line {number}: write one JSON object with {keys}"
            raise SpecError([said]) from None
        yield number, (values[0] / 1000.0, *values[1:])


def _row(values: tuple) -> tuple[float, float, float]:
    arrival, *tokens = values
    try:
        second = float(arrival)
    except ValueError:
        # Azure's have seven digits of a second, of which Python reads six
        stamp, _, part = str(arrival).strip().partition(".")
        second = datetime.fromisoformat(stamp).timestamp() + float(f"0.{part[:6] or 0}")
    prompt, output = map(float, tokens)
    for key, value, least in (("prompt", prompt, 1.0), ("output", output, 0.0)):
        if not (np.isfinite(value) and value >= least):
            raise ValueError(f"{key} tokens{shown(value)}: use {least:g} or more")
    return second, prompt, max(output, 1.0)
