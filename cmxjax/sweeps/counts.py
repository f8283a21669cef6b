"""What became of the points of a sweep."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Counts:
    """What became of points."""

    points: int = 0
    refused: int = 0
    """That the builder refuses, or constraints leave out."""
    infeasible: int = 0
    missing: int = 0
    """With a metric that has no finite value."""
    kept: int = 0
    reasons: Counter = field(default_factory=Counter)
    """Why points are refused."""

    def add(self, other: "Counts") -> None:
        for name in ("points", "refused", "infeasible", "missing", "kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons += other.reasons

    def refuse(self, points: np.ndarray, reason: str) -> None:
        """Count points, one or more at each place, as refused for a reason."""
        if total := int(points.sum()):
            self.refused += total
            self.reasons[reason] += total

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> "Counts":
        """Counts as `as_json` gives them."""
        return Counts(**{**told, "reasons": Counter(told["reasons"])})

    def as_json(self) -> dict[str, object]:
        """Counts and the first reasons."""
        return {**vars(self), "reasons": dict(self.reasons.most_common(MOST_REASONS))}


MOST_REASONS = 20
BY_CONSTRAINT = "constraints"
"""The reason that is no message of the builder."""
