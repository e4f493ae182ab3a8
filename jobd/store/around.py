"""Reading what stands around jobs in other tables: who holds their items, what they come after, what is due."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from jobd.process import Process, alive
from jobd.states import JOB_ENDS, RUNNING
from jobd.store.pace import RECENT, recent_pace
from jobd.store.standing import Around, Holding, Parent, clocked_until, restarted, run_began
from jobd.store.verbs import WAITED_FOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.standing import JobRow
    from jobd.store.views import Runner


def surroundings(
    store: Store, connection: Connection, rows: Sequence[JobRow], runner: Runner, now: int
) -> dict[int, Around]:
    """Read what the open jobs among ``rows`` need from other tables, each in one statement for all of them."""
    ids = store.pack([(row.id,) for row in rows])
    held = _holdings(store, connection, ids)
    parents = _parents(store, connection, ids)
    waited_for = _waited_for(store, connection, ids)
    still = [row for row in rows if row.status not in JOB_ENDS]
    due = _next_due(store, connection, [row.id for row in still if not row.items_running and row.counts.queued])
    pace = {row.id: _pace(connection, row, runner, now) for row in still}
    return {
        row.id: Around(
            holdings=tuple(held[row.id]),
            parents=tuple(parents[row.id]),
            next_due=due.get(row.id),
            pace=pace.get(row.id),
            waited_for=row.id in waited_for,
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
        "select d.job_id, j.id, j.status, d.on_status, j.deleted_at is not null"
        " from job_dependencies d join jobs j on j.id = d.after_id"
        f" where d.job_id in (select id from {store.rows('id')} as m) order by d.job_id, j.id",
        (ids,),
    )
    for job_id, *parent in rows:
        found[job_id].append(Parent(*parent))
    return found


def _waited_for(store: Store, connection: Connection, ids: str) -> set[int]:
    """Return those that a job which has not ended comes after."""
    statement = f"select id from jobs where id in (select id from {store.rows('id')} as m) and {WAITED_FOR}"
    return {row[0] for row in connection.execute(statement, (ids,))}


def _next_due(store: Store, connection: Connection, ids: list[int]) -> dict[int, int]:
    rows = connection.execute(
        "select m.id, (select min(available_at) from job_items where job_id=m.id and status='queued')"
        f" from {store.rows('id')} as m",
        (store.pack([(job_id,) for job_id in ids]),),
    )
    return {job_id: at for job_id, at in rows if at is not None}


def _pace(connection: Connection, row: JobRow, runner: Runner, now: int) -> float | None:
    """Return a job's recent pace, where its counters and its start do not tell as much."""
    began, until = run_began(row, runner), clocked_until(row, runner, now)
    if row.status != RUNNING or until is None or not row.counts.settled:
        return None
    if not restarted(row, runner) and until - began <= RECENT:
        return None
    return recent_pace(connection, row.id, since=began, until=until)


def with_submitter(row: JobRow, around: Around) -> Around:
    """Return ``around`` with whether the job's submitter lives; it asks the machine, so outside any transaction."""
    # That costs 20 ms, which only the rare job that is being submitted may.
    if row.sealed_at is not None or row.submitter is None:
        return around
    submitter = Process.loads(row.submitter)
    return around if submitter is None else around._replace(submitter_alive=alive(submitter))
