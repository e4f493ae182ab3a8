"""Time in which nothing could be done: the deadlines of jobs and of waiting items move by it, each once.

Of a waiting item ``available_at`` says up to when its deadline was moved. Of jobs no column does: how far a move has
come among them is kept with each of its batches, in a row of ``passes`` that was neither asked for nor begun.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.store import daemons
from jobd.store.batches import BATCH, Pace, always, breathe
from jobd.store.deadlines import SINCE, TIMED

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store

# Progress never lies ahead: a clock that ran ahead for a while, and was put right, moves nothing beyond this.
_MOVED: Final = f"min(max(timeout_at, {SINCE} + job_timeout_ms) + ?, ? + job_timeout_ms)"
_OF_JOBS: Final = f"{TIMED} and timeout_at is not null and paused_at is null"
_MOVE_JOBS: Final = f"update jobs set timeout_at = {_MOVED} where {_OF_JOBS} and id in "
_MOVE_WAITING: Final = (
    "update job_items set deadline_at = deadline_at + max(0, ? - max(available_at, ?)),"
    " available_at = max(available_at, ?)"
    " where status = 'waiting' and deadline_at > 0 and id in "
)
_NAME: Final = "deadlines"
_KEEP: Final = (
    "insert into passes (name, options) values (?, ?) on conflict (name) do update set options = excluded.options"
)


class _Gap(NamedTuple):
    """A lost time, and the id of the last job that was moved by it, None when all are; the rest is in Unix ms.

    ``heard`` is the last sign of life of a daemon by then: until there is another, nothing has lived after ``until``.
    """

    heard: int
    since: int
    until: int
    after: int | None


def move(store: Store, since: int, *, now: int, go_on: Callable[[], bool] = always) -> None:
    """Move every deadline of open jobs that are not paused by the time from ``since`` until ``now``, both in Unix ms.

    What an earlier call left, killed or told to stop, is done first; and by what that one was to move them since the
    last sign of life of a daemon, they do not move again.
    """
    sign = daemons.last_sign(store)
    heard = 0 if sign is None else sign.at
    former = store.read(_former)
    if former is not None:
        if former.after is not None and not _carry_out(store, former, now, go_on):
            return
        if former.heard == heard:
            since = max(since, former.until)
    if since < now:
        _carry_out(store, _Gap(heard, since, now, after=0), now, go_on)


def move_waiting(store: Store, job_id: int, *, paused_at: int, now: int) -> None:
    """Move the deadlines of one job's waiting items by its pause until ``now``.

    Killed in between, the same again at any later time moves each by what it was not moved by before.
    """
    items = _ids(
        store, "select id from job_items where status = 'waiting' and deadline_at > 0 and +job_id = ?", (job_id,)
    )
    _in_batches(store, items, _MOVE_WAITING, (now, paused_at, now))


def move_job(connection: Connection, job_id: int, gap_ms: int, now: int) -> None:
    """Move one job's own deadline."""
    connection.execute(
        f"update jobs set timeout_at = {_MOVED} where {TIMED} and timeout_at is not null and id = ?",
        (gap_ms, now, job_id),
    )


def _former(connection: Connection) -> _Gap | None:
    found = connection.execute("select options from passes where name = ?", (_NAME,)).fetchone()
    return _Gap(*json.loads(found[0])) if found else None


def _carry_out(store: Store, gap: _Gap, now: int, go_on: Callable[[], bool]) -> bool:
    """Move what has not moved yet by a gap; say whether that is all of it."""

    def keep(connection: Connection, after: int | None) -> None:
        connection.execute(_KEEP, (_NAME, json.dumps(gap._replace(after=after))))

    jobs = _ids(store, f"select id from jobs where {_OF_JOBS} and id > ? order by id", (gap.after or 0,))
    items = _ids(
        store,
        "select i.id from job_items as i join jobs on jobs.id = i.job_id"
        " where i.status = 'waiting' and i.deadline_at > 0 and jobs.paused_at is null",
    )
    if not jobs and not items and not gap.after:
        return True
    if not _in_batches(store, jobs, _MOVE_JOBS, (gap.until - gap.since, now), go_on, keep):
        return False
    if not _in_batches(store, items, _MOVE_WAITING, (gap.until, gap.since, gap.until), go_on):
        return False
    store.write(lambda connection: keep(connection, None))
    return True


def _ids(store: Store, text: str, params: tuple[int, ...] = ()) -> array[int]:
    # All of them before the first is moved: by the index of deadlines each would come up again at its new one.
    return store.read(lambda connection: array("q", (row[0] for row in connection.execute(text, params))))


def _in_batches(
    store: Store,
    ids: array[int],
    statement: str,
    params: tuple[int, ...],
    go_on: Callable[[], bool] = always,
    keep: Callable[[Connection, int], None] = lambda connection, after: None,  # noqa: ARG005 - its shape
) -> bool:
    """Carry a statement out on rows, ``keep`` with each batch its last; say whether it was on all of them."""
    text = f"{statement} (select id from {store.rows('id')} as m)"
    pace, start = Pace(BATCH), 0

    def work(connection: Connection, size: int) -> int:
        batch = ids[start : start + size]
        connection.execute(text, (*params, store.pack([(one,) for one in batch])))
        keep(connection, batch[-1])
        return len(batch)

    while start < len(ids):
        start += pace.write(store, work)
        breathe()
        if not go_on():
            return False
    return True
