"""Each pass as the health of the whole shows it: when it last ran, what it has done, and what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.maintenance.doctor import BROKEN, OK, Check
from jobd.store.views import iso
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jobd.store.views import Runner
    from jobd.store.vitals import PassRow

# A pass that missed so many of its beats is overdue; one that was asked for is, when it has not begun after 30 s.
BEATS: Final = 3
ASKED_MS: Final = 30_000


class Beat(NamedTuple):
    """A pass, and every how many ms a daemon runs it."""

    name: str
    every_ms: int


class PassHealth(NamedTuple):
    """A pass; times in Unix ms. ``runs`` and ``counts`` are this daemon's since its start, ``last`` those of one run.

    ``trouble`` says what is wrong with it.
    """

    name: str
    every_ms: int | None
    requested_at: int | None
    started_at: int | None
    finished_at: int | None
    last: dict[str, int]
    runs: int
    counts: dict[str, int]
    trouble: str | None

    @property
    def ran_at(self) -> int | None:
        return self.finished_at if self.finished_at is not None else self.started_at

    def ago(self, now: int) -> str:
        """Return how long ago it last ran, in words."""
        return "not yet" if self.ran_at is None else f"{span(now - self.ran_at)} ago"

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "every_seconds": None if self.every_ms is None else self.every_ms / 1000,
            "requested_at": iso(self.requested_at),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "last_counts": self.last,
            "runs": self.runs,
            "counts": self.counts,
            "trouble": self.trouble,
        }


def passes(rows: Iterable[PassRow], beats: Sequence[Beat], *, runner: Runner, now: int) -> tuple[PassHealth, ...]:
    """Return the passes of ``beats`` in their order, and then what else has run; ``runner`` is who runs items."""
    by_name = {row.name: row for row in rows}
    every = {beat.name: beat.every_ms for beat in beats}
    names = [*every, *(name for name in by_name if name not in every)]
    return tuple(_health(name, every.get(name), by_name.get(name), runner, now) for name in names)


def checked(ran: Sequence[PassHealth], runner: Runner, now: int) -> Iterator[Check]:
    """Yield what is wrong with passes, or when each last ran."""
    for one in ran:
        if one.trouble:
            yield Check("passes", BROKEN, f"{one.name} {one.trouble}", "jobd start -v says why")
    if not any(one.trouble for one in ran):
        since = ", ".join(f"{one.name} {one.ago(now)}" for one in ran)
        yield Check("passes", OK, since if runner.alive or any(one.ran_at for one in ran) else "none has run yet")


def _health(name: str, every_ms: int | None, row: PassRow | None, runner: Runner, now: int) -> PassHealth:
    done = runner.state.get("passes", {}) if runner.alive else {}
    mine = done.get(name, {}) if isinstance(done, dict) else {}
    return PassHealth(
        name=name,
        every_ms=every_ms,
        requested_at=None if row is None else row.requested_at,
        started_at=None if row is None else row.started_at,
        finished_at=None if row is None else row.finished_at,
        last=_counts(None if row is None else row.report),
        runs=mine.get("runs", 0),
        counts=mine.get("counts", {}),
        trouble=_trouble(every_ms, row, mine.get("error"), runner, now),
    )


def _trouble(every_ms: int | None, row: PassRow | None, error: str | None, runner: Runner, now: int) -> str | None:
    """Say what is wrong with a pass of a live daemon. One that is not alive runs none, and that is told of itself."""
    if not runner.alive or runner.started_at is None or every_ms is None:
        return None
    if error:
        return f"failed: {error}"
    asked = row is not None and row.requested_at is not None and row.started_at is None
    if asked and row is not None and now - max(row.requested_at or 0, runner.started_at) > ASKED_MS:
        return f"was asked for {span(now - (row.requested_at or 0))} ago and has not begun"
    times = (None, None, None) if row is None else (row.started_at, row.finished_at, row.requested_at)
    last = max(runner.started_at, *(at for at in times if at is not None), 0)
    if now - last <= BEATS * every_ms:
        return None
    under_way = row is not None and row.started_at is not None and row.finished_at is None
    how = "has been under way for" if under_way and last != runner.started_at else "is overdue: it last ran before"
    return f"{how} {span(now - last)} (its beat is {span(every_ms)})"


def _counts(report: str | None) -> dict[str, int]:
    """Return what a report adds up to; of a damaged one nothing."""
    try:
        found = json.loads(report or "{}").get("counts", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}
