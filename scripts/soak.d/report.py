"""What a part of the soak has to tell."""

from __future__ import annotations

import sys
from typing import NamedTuple


class Told(NamedTuple):
    """Figures by name, and what was promised and not held."""

    figures: dict[str, float]
    wrong: list[str]


def going(at: int, whole: int, what: str) -> None:
    """Tell how far it is, in place on a terminal; elsewhere only each tenth."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{at:,} of {whole:,} {what}", end="\n" if at == whole else "", file=sys.stderr, flush=True)
    elif at * 10 // whole > (at - 1) * 10 // whole:
        print(f"{at:,} of {whole:,} {what}", file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    """Return the value that so large a share of them does not pass; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
