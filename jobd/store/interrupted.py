"""Items that were interrupted and are queued again: found by themselves, not among the fresh ones.

They are few, what was under way at a crash, but nothing says that any of them may run: their jobs may be paused, their
tasks unknown here. So they are looked at ``JOBS`` jobs at a time, and the next look goes on behind the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.store.claim import Lane
from jobd.store.ready import CLAIMABLE, COLUMNS, ClaimedJob

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobd.store.base import Connection, Store

JOBS: Final = 200  # in one look: 1 ms

_FIRST: Final = "select min(job_id) from job_items where status = 'queued' and interruptions > 0 and job_id >"
_ITEM: Final = "select 1 from job_items as i where i.job_id = jobs.id and i.status = 'queued' and"
_COLUMNS: Final = (
    f"{COLUMNS}, exists ({_ITEM} {Lane.CAREFUL.value}) as careful, exists ({_ITEM} {Lane.ALONE.value}) as alone"
)


class Interrupted(NamedTuple):
    """What one look has found: how many jobs it looked at, those of which items of either lane may run now, and the
    last one that it looked at; 0 where no more come after it.
    """

    jobs: int
    careful: list[ClaimedJob]
    alone: list[ClaimedJob]
    last: int


class Change(NamedTuple):
    """What tells that another look may find something else: the last event, and when the next of them is due."""

    event: int | None
    due: int | None


def interrupted(store: Store, connection: Connection, tasks: Collection[str], *, after: int, now: int) -> Interrupted:
    """Look at the next jobs ``after`` one, by their ids, that have queued items which were interrupted."""
    distinct = (
        f"from (with recursive j (id) as (select ({_FIRST} ?) union all"
        f" select ({_FIRST} j.id) from j where j.id is not null limit ?) select id from j where id is not null) as j"
    )
    ids = store.gather(connection, "id", distinct, (after, JOBS))
    if not ids:
        return Interrupted(0, [], [], 0)
    # From the ids to the jobs: the other way SQLite would pass over all jobs of these tasks.
    source = (
        f"from {store.rows('job')} as j cross join jobs where jobs.id = j.job and {CLAIMABLE}"
        f" and task || '' in (select task from {store.rows('task')} as t) and (not_before is null or not_before <= ?)"
    )
    params = (now, now, store.pack(ids), store.pack([(task,) for task in tasks]), now)
    rows = store.gather(connection, _COLUMNS, source, params)
    found = [(ClaimedJob(*row), once, twice) for *row, once, twice in rows]
    careful, alone = [job for job, once, _ in found if once], [job for job, _, twice in found if twice]
    return Interrupted(len(ids), careful, alone, ids[-1][0] if len(ids) == JOBS else 0)


def changed(connection: Connection, now: int) -> Change:
    """Return what differs once an interrupted item may run that could not before.

    Whatever interrupts an item or makes its job claimable leaves an event, or is a time that comes.
    """
    row = connection.execute(
        "select (select max(id) from job_events), (select min(available_at) from job_items"
        " where status = 'queued' and interruptions > 0 and available_at > 0 and available_at > ?)",
        (now,),
    ).fetchone()
    return Change(*row)
