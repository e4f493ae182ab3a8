"""Work that goes on outside: its item waits, without a slot, under the id by which the outside knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import CANCELLED, RUNNING, WAITING
from jobd.store.attempt import lost
from jobd.store.counters import count_moves
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record
from jobd.store.transitions import Move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

EXTERNAL_LIMIT: Final = 4096
POLL_AFTER_MS: Final = 10_000
_REQUESTED: Final = "its job is being cancelled; the work outside goes on"


class Deferral(NamedTuple):
    """What is left waiting. ``poll_after_ms`` and ``deadline_ms`` count from now, ``deadline_at`` is Unix ms.

    ``polled``: its task asks the outside about it.
    """

    external_id: str
    poll_after_ms: int | None = None
    deadline_ms: int | None = None
    deadline_at: int | None = None
    polled: bool = False

    def due_at(self, now: int) -> int | None:
        """Return its deadline in Unix ms; None where it has none."""
        return self.deadline_at if self.deadline_ms is None else now + self.deadline_ms


_MINE: Final = (
    "select i.job_id, j.cancel_requested_at is not null or j.fail_requested_at is not null,"
    " exists (select 1 from results as r"
    " where r.item_id = i.id and r.attempt = i.attempt and r.status = 'completed')"
    " from job_items as i join jobs as j on j.id = i.job_id"
    " where i.id = ? and i.attempt = ? and i.status = 'running'"
)
# A pause that is on now began before: of it only what is left moves the deadline.
_DEFER: Final = Move(
    "job_items", "defer", WAITING, fenced=True,
    sets=("external_id=?", "available_at=?", "deadline_at=?", "poll_at=?", "poll_gap_ms=?"),
)  # fmt: skip
_CANCEL: Final = Move(
    "job_items", "cancel", CANCELLED, source=WAITING, fenced=True, sets=("completed_at=?", "deadline_at=null")
)


def defer(
    store: Store,
    item_id: int,
    attempt: int,
    deferral: Deferral,
    *,
    now: int,
    actor: str,
    patience: float,
) -> bool:
    """Leave an attempt's item waiting; false where it has stored a result, which wins.

    Raises:
        Lost: the attempt is no longer the item's.
    """

    def work(connection: Connection) -> bool:
        return defer_in(store, connection, item_id, attempt, deferral, now=now, actor=actor)

    return store.share(work, patience=patience)


def defer_in(
    store: Store,
    connection: Connection,
    item_id: int,
    attempt: int,
    deferral: Deferral,
    *,
    now: int,
    actor: str,
) -> bool:
    """Do what :func:`defer` does in the caller's transaction."""
    found = connection.execute(_MINE, (item_id, attempt)).fetchone()
    if found is None:
        raise lost(item_id, attempt)
    job_id, requested, saved = found
    if saved:
        return False
    gap = deferral.poll_after_ms or POLL_AFTER_MS
    # Of a task without a poll each would only be in the way of those that are asked about.
    asked = deferral.polled or deferral.poll_after_ms is not None
    poll_at = now + gap if asked else None
    values = (deferral.external_id, now, deferral.due_at(now), poll_at, gap)
    if _DEFER.run(store, connection, [(item_id, attempt)], values) != 1:
        raise lost(item_id, attempt)
    event = Event(
        job_id, item_id, "defer", RUNNING, WAITING, now, actor, attempt=attempt, external_id=deferral.external_id
    )
    record(store, connection, [event])
    count_moves(store, connection, {job_id: 1}, RUNNING, WAITING, progress=now)
    if requested:
        # Whoever works the request off may have passed already. The id stays in the history.
        _CANCEL.run(store, connection, [(item_id, attempt)], (now,))
        gone = event._replace(name="cancel", from_status=WAITING, to_status=CANCELLED, message=_REQUESTED)
        record(store, connection, [gone])
        count_moves(store, connection, {job_id: 1}, WAITING, CANCELLED, progress=now)
        end_jobs(store, connection, [job_id], now=now, actor=actor)
    return True


_RUNS: Final = (
    "from {rows} as m cross join job_items as i where i.id = m.id and i.attempt = m.attempt and i.status = 'running'"
)


def not_written(store: Store, connection: Connection, attempts: Sequence[tuple[int, int]]) -> set[int]:
    """Return the items of (item id, attempt) that have left their handlers as deferred, and run still in the store.

    The store could not be written then, or the handler had a transaction open, which was rolled back.
    """
    source = _RUNS.format(rows=store.rows("id", "attempt"))
    return {row[0] for row in store.gather(connection, "i.id as id", source, (store.pack(attempts),))}
