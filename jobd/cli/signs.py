"""The signs of the statuses, a glyph and a colour each, and a job's items as a strip of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobd.cli.screen import Screen

GLYPHS: Final = {
    "queued": ("·", ""),
    "running": ("▶", "cyan"),
    "waiting": ("⧖", "blue"),
    "completed": ("✔", "green"),
    "failed": ("✗", "red"),
    "skipped": ("↷", "dim"),
    "cancelled": ("⊘", "yellow"),
}
_CELLS: Final = {
    "completed": "█",
    "skipped": "↷",
    "failed": "✗",
    "cancelled": "⊘",
    "waiting": "⧖",
    "running": "▶",
    "queued": "░",
}


def mark(status: str) -> str:
    """Return the glyph and the word of a status."""
    return f"{GLYPHS[status][0]} {status}"


def strip_columns(screen: Screen) -> int:
    """Return how many cells the strip of a page has."""
    return min(screen.columns - 4, 72)


def strip(statuses: Iterable[str], screen: Screen) -> str:
    """Return a cell for each of ``statuses``: a job's items in their order, the worst status of each stretch."""
    return "".join(
        screen.paint(_CELLS[name] * len(list(cells)), GLYPHS[name][1] or "dim")
        for name, cells in itertools.groupby(statuses)
    )


def shares(counts: dict[str, Any], columns: int) -> list[str]:
    """Return a status for each cell: not where its items are but how many; what exists shows, however few."""
    if not counts["total"]:
        return []
    shares = {name: counts[name] * columns / counts["total"] for name in _CELLS}
    lengths = {name: max(1, int(share)) if share else 0 for name, share in shares.items()}
    while sum(lengths.values()) > columns:
        lengths[max(lengths, key=lambda name: lengths[name])] -= 1
    for name in sorted(_CELLS, key=lambda name: shares[name] - lengths[name], reverse=True)[
        : columns - sum(lengths.values())
    ]:
        lengths[name] += 1
    return [name for name in _CELLS for _ in range(lengths[name])]
