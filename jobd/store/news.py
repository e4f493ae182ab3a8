"""What a transaction moves: a line in the log for each event, and a count of every move, once it has committed.

Told at the doors through which all moves go, so that no verb and no pass can forget to; and after the commit, so that
the log never speaks of what was rolled back. What happy items do is only counted.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobd.store.events import Event

log = logging.getLogger("jobd.history")

Table: TypeAlias = Literal["jobs", "items"]
_Many: TypeAlias = "tuple[Table, Sequence[int]]"
# A refused answer is the one event that somebody may have to look into.
_WARNINGS: Final = frozenset({"late"})
_LONGEST: Final = 500


class News(threading.local):
    """What this thread's transaction has moved so far; it belongs to nobody before the commit."""

    def __init__(self, totals: dict[tuple[Table, str], int]) -> None:
        # Of the whole process: how many jobs and items moved into each status since the store was opened.
        self.totals = totals
        self._lines: list[tuple[Event, _Many | None]] = []
        self._moves: list[tuple[Table, str, int]] = []
        self._committed: list[tuple[Event, _Many | None]] = []
        # A job moved that others come after: whoever runs items has to look, whoever moved it.
        self.linked = False
        self.rings = False

    def happened(self, events: Iterable[Event]) -> None:
        """Keep events for the log, where it wants them."""
        if log.isEnabledFor(logging.INFO):
            self._lines += [(event, None) for event in events]
        elif log.isEnabledFor(logging.WARNING):
            self._lines += [(event, None) for event in events if event.name in _WARNINGS]

    def happened_alike(self, event: Event, table: Table, ids: Sequence[int]) -> None:
        """Keep one event that is the same for many jobs or items but for who it is of."""
        if log.isEnabledFor(logging.INFO):
            self._lines.append((event, (table, ids)))

    def moved(self, table: Table, status: str, count: int) -> None:
        """Count rows that moved into ``status``."""
        self._moves.append((table, status, count))

    # -- the transaction's end ------------------------------------------------------------------------------------

    def mark(self) -> tuple[int, int]:
        """Return what a savepoint is to be rolled back to."""
        return len(self._lines), len(self._moves)

    def undo(self, mark: tuple[int, int] = (0, 0)) -> None:
        """Forget what came after ``mark``: it was rolled back."""
        del self._lines[mark[0] :]
        del self._moves[mark[1] :]

    def commit(self) -> None:
        """Count what has committed. Whoever calls holds the process's write mutex."""
        for table, status, count in self._moves:
            self.totals[table, status] = self.totals.get((table, status), 0) + count
        self._committed += self._lines
        self.rings = self.rings or self.linked
        self.linked = False
        self.undo()

    def tell(self) -> None:
        """Write the lines of what has committed; outside the mutex, for whoever reads the log may be slow."""
        if not self._committed:
            return
        told, self._committed = self._committed, []
        for event, many in told:
            level = logging.WARNING if event.name in _WARNINGS else logging.INFO
            for subject in _subjects(event, many):
                log.log(level, "%s %s", subject, _said(event))


def _subjects(event: Event, many: _Many | None) -> Iterable[str]:
    if many is not None:
        table, ids = many
        yield from (f"job {identity}" if table == "jobs" else f"item #{identity}" for identity in ids)
    elif event.item_id is None:
        yield f"job {event.job_id}"
    else:
        yield f"item {event.job_id}:#{event.item_id}"


def _said(event: Event) -> str:
    """Return the rest of an event's line: what moved from where to where, by whom, why."""
    count = "" if event.count is None else f"{event.count:,} items "
    attempt = "" if event.attempt is None else f" of attempt {event.attempt}"
    moved = (
        event.to_status if event.from_status in {None, event.to_status} else f"{event.from_status} -> {event.to_status}"
    )
    why = f": {_line(event.message)}" if event.message else ""
    return f"{event.name}{attempt}: {count}{moved} by {event.actor}{why}"


def _line(text: str) -> str:
    """Return stored text as a part of one line: what could forge another, or act on a terminal, as an escape."""
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return text if text.isprintable() else repr(text)[1:-1]
