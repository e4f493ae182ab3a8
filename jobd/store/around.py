"""Reading what stands around jobs in other tables: who holds their items, what they come after, what is due."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from jobd.process import Process, alive
from jobd.states import JOB_ENDS
from jobd.store.standing import SHORTEST_SPAN, Around, Holding, Parent, restarted, run_began

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.standing import JobRow
    from jobd.store.views import Runner


def surroundings(store: Store, connection: Connection, rows: Sequence[JobRow], runner: Runner) -> dict[int, Around]:
    """Read what the open jobs among ``rows`` need from other tables, each in one statement for all of them."""
    ids = store.pack([(row.id,) for row in rows])
    held = _holdings(store, connection, ids)
    parents = _parents(store, connection, ids)
    still = [row for row in rows if row.status not in JOB_ENDS]
    due = _next_due(store, connection, [row.id for row in still if not row.items_running and row.counts.queued])
    pace = {row.id: _pace(connection, row.id, run_began(row, runner)) for row in still if restarted(row, runner)}
    return {
        row.id: Around(
            holdings=tuple(held[row.id]),
            parents=tuple(parents[row.id]),
            next_due=due.get(row.id),
            pace=pace.get(row.id),
        )
        for row in rows
    }


def _holdings(store: Store, connection: Connection, ids: str) -> dict[int, list[Holding]]:
    found: dict[int, list[Holding]] = defaultdict(list)
    rows = connection.execute(
        "select h.job_id, h.daemon_id, h.items, d.pid, d.host, d.heartbeat_at from"
        " (select job_id, daemon_id, count(*) as items from job_items where status='running'"
        f" and job_id in (select id from {store.rows('id')} as m) group by job_id, daemon_id) as h"
        " left join daemons d on d.id = h.daemon_id order by h.job_id, h.daemon_id desc",
        (ids,),
    )
    for job_id, *holding in rows:
        found[job_id].append(Holding(*holding))
    return found


def _parents(store: Store, connection: Connection, ids: str) -> dict[int, list[Parent]]:
    found: dict[int, list[Parent]] = defaultdict(list)
    rows = connection.execute(
        "select d.job_id, j.id, j.status, d.on_status from job_dependencies d join jobs j on j.id = d.after_id"
        f" where d.job_id in (select id from {store.rows('id')} as m) order by d.job_id, j.id",
        (ids,),
    )
    for job_id, *parent in rows:
        found[job_id].append(Parent(*parent))
    return found


def _next_due(store: Store, connection: Connection, ids: list[int]) -> dict[int, int]:
    rows = connection.execute(
        "select m.id, (select min(available_at) from job_items where job_id=m.id and status='queued')"
        f" from {store.rows('id')} as m",
        (store.pack([(job_id,) for job_id in ids]),),
    )
    return {job_id: at for job_id, at in rows if at is not None}


# Items start in the order of their ids, so those just before the first queued one were settled last.
_RECENT: Final = (
    "select count(*), coalesce(max(completed_at) - min(completed_at), 0) from (select completed_at from job_items"
    " where +job_id = ? and id < ? and id > ? and completed_at >= ? order by id desc limit ?)"
)
# The quicker the items, the more of them it takes to fill a second.
_SAMPLES: Final = (256, 1_024, 4_096, 16_384, 65_536)


def _pace(connection: Connection, job_id: int, since: int) -> float | None:
    """Return the items a second that this run settled lately; None where they do not fill a second."""
    first = connection.execute(
        "select id from job_items where job_id=? and status='queued' order by available_at, id limit 1", (job_id,)
    ).fetchone()
    if first is None:
        return None
    for sample in _SAMPLES:
        params = (job_id, first[0], first[0] - 4 * sample, since, sample)
        count, took = map(int, connection.execute(_RECENT, params).fetchone())
        if took >= SHORTEST_SPAN:
            return round((count - 1) * 1000 / took, 3)
        if count < sample:
            break
    return None


def with_submitter(row: JobRow, around: Around) -> Around:
    """Return ``around`` with whether the job's submitter lives; it asks the machine, so outside any transaction."""
    # That costs 20 ms, which only the rare job that is being submitted may.
    if row.sealed_at is not None or row.submitter is None:
        return around
    submitter = Process.loads(row.submitter)
    return around if submitter is None else around._replace(submitter_alive=alive(submitter))
