"""What a part of the soak has to tell."""

from __future__ import annotations

from typing import NamedTuple


class Told(NamedTuple):
    """Figures by name, and what was promised and not held."""

    figures: dict[str, float]
    wrong: list[str]


def percentile(values: list[float], share: float) -> float:
    """Return the value that so large a share of them does not pass; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
