"""A job seen from close: what of it contradicts itself, as far as partial indexes tell in a moment.

One job's page pays for this, a list does not. What would take a pass over all items is left to doctor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import FAILED, QUEUED, RUNNING, WAITING

if TYPE_CHECKING:
    from jobd.store.base import Connection

# So many rows of one status are counted, and of so many the result is looked for; beyond that doctor is to be asked.
MOST: Final = 5_000
LOOKED_FOR: Final = 500
# What is stored while its handler still runs is settled with it: only what stays so is worth a word.
STAYS: Final = 60_000


class Differs(NamedTuple):
    """A counter that does not say what the items say."""

    status: str
    counter: int
    items: int


class Closeup(NamedTuple):
    """What was found.

    ``stored`` counts, by status, the items that a stored result says are done; ``unstarted`` the running ones without a
    start or an attempt; ``overdue`` the waiting ones whose deadline has passed, ``deadline_at`` (Unix ms) the first.
    """

    differs: tuple[Differs, ...] = ()
    stored: tuple[tuple[str, int], ...] = ()
    unstarted: int = 0
    overdue: int = 0
    deadline_at: int | None = None


_COUNTERS: Final = (
    "select items_running, items_waiting, items_failed, items_total - items_running - items_waiting - items_completed"
    " - items_failed - items_skipped - items_cancelled from jobs where id = ?"
)
# Each status as text: only so does the planner take its partial index. That of the waiting ones is not in the order of
# jobs; by the job (the sign) it would pass over all of its items.
_OWN: Final = {
    RUNNING: "job_id = ? and status = 'running'",
    WAITING: "+job_id = ? and status = 'waiting'",
    FAILED: "job_id = ? and status = 'failed'",
    QUEUED: "job_id = ? and status = 'queued'",
}
_COUNT: Final = "select count(*) from (select 1 from job_items where {own} limit ?)"
_STORED: Final = (
    "select count(*) from (select id, attempt from job_items where {own} limit ?) as i cross join results as r"
    " where r.item_id = i.id and {said}"
)
# A failed result of a failed item is as it should be, and one of an attempt before says nothing of this one.
_SAID: Final = {
    RUNNING: "r.attempt = i.attempt and r.created_at <= ?",
    WAITING: "r.created_at <= ?",
    FAILED: "r.status = 'completed' and r.created_at <= ?",
    QUEUED: "r.created_at <= ?",
}
_UNSTARTED: Final = f"select count(*) from job_items where {_OWN[RUNNING]} and (started_at is null or attempt < 1)"
_OVERDUE: Final = f"select count(*), min(deadline_at) from job_items where {_OWN[WAITING]} and deadline_at < ?"


def look(connection: Connection, job_id: int, *, now: int, run: bool) -> Closeup:
    """Look at a job from close. ``run``: a live daemon may be about to settle what is running.

    At most 5,000 rows of each status are counted, and the results of 500 looked for.
    """
    counters = dict(zip(_OWN, connection.execute(_COUNTERS, (job_id,)).fetchone(), strict=True))
    found = {status: _count(connection, job_id, status) for status in _OWN}
    stored = {
        status: connection.execute(
            _STORED.format(own=own, said=_SAID[status]), (job_id, LOOKED_FOR, now - STAYS * (run and status == RUNNING))
        ).fetchone()[0]
        for status, own in _OWN.items()
        if found[status]
    }
    overdue, deadline_at = connection.execute(_OVERDUE, (job_id, now)).fetchone() if found[WAITING] else (0, None)
    return Closeup(
        differs=tuple(
            Differs(status, counters[status], found[status])
            for status in _OWN
            if min(counters[status], MOST) != found[status]
        ),
        stored=tuple((status, count) for status, count in stored.items() if count),
        unstarted=connection.execute(_UNSTARTED, (job_id,)).fetchone()[0] if found[RUNNING] else 0,
        overdue=overdue,
        deadline_at=deadline_at,
    )


def _count(connection: Connection, job_id: int, status: str) -> int:
    return int(connection.execute(_COUNT.format(own=_OWN[status]), (job_id, MOST)).fetchone()[0])
