"""Reading jobs: one, a page of them, one row of progress, and who runs them. Nothing here writes.

A page costs the same at 1,000,000 rows: newest first by keyset on the id, and where a filter allows it through a
partial index. SQLite takes a partial index only where its condition stands in the query word for word, so statuses
are text here and never bound.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobd.errors import NotFound, UsageError
from jobd.process import Process, alive
from jobd.states import COMPLETED, JOB_ENDS, JOB_STATUSES
from jobd.store.details import (
    errors,
    events,
    item,
    items,
    latest_result,
    output,
    results,
    results_of,
)
from jobd.store.models import Daemon
from jobd.store.standing import STALL_AFTER, Around, Holding, JobRow, Parent, job_view, parsed, restarted, run_began
from jobd.store.views import Counts, DaemonView, Progress, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.views import JobView

__all__ = [
    "daemon", "errors", "events", "find_job", "in_progress", "item", "items", "job", "jobs", "latest_result", "output",
    "progress", "results", "results_of",
]  # fmt: skip

_COLUMNS: Final = ", ".join(JobRow._fields)
_OPEN: Final = "status in ('queued', 'running')"
_JOBS_HINT: Final = "jobd list shows the jobs"
_SAMPLE: Final = 256


# -- one job, or a page ---------------------------------------------------------------------------------------------


def job(store: Store, job_id: int, *, now: int, runner: Runner, stall_after: float = STALL_AFTER) -> JobView:
    """Return one job as it stands at ``now``.

    Raises:
        NotFound: there is no such job.
    """
    found = _views(store, "where id=?", (job_id,), now=now, runner=runner, stall_after=stall_after)
    if not found:
        raise NotFound(f"there is no job {job_id}", hint=_JOBS_HINT)
    return found[0]


def jobs(  # noqa: PLR0913 - one for each filter of the contract
    store: Store,
    *,
    now: int,
    runner: Runner,
    status: str | None = None,
    task: str | None = None,
    since: int | None = None,
    key: str | None = None,
    external: str | None = None,
    stalled: bool = False,
    orphaned: bool = False,
    limit: int = 20,
    before: int | None = None,
    stall_after: float = STALL_AFTER,
) -> list[JobView]:
    """Return a page of the jobs that meet all filters, newest first; the next one is that ``before`` the last id.

    ``since`` is Unix ms of the submission; ``key`` is the job's; ``external`` the id that an attempt of one of its
    items was deferred under, now or before.

    Raises:
        UsageError: an unknown status.
    """
    where = _Where()
    if before is not None:
        where.add("id < ?", before)
    if status is not None:
        _add_status(where, status)
    if key is not None:
        where.add("key = ?" if task is not None else f"id in ({_BY_KEY})", key)
    if task is not None:
        where.add("task = ?", task)
    if since is not None:
        where.add("created_at >= ?", since)
    if external is not None:
        where.add(_BY_EXTERNAL, external, external)
    if stalled:
        where.add(_STALLED, now - int(stall_after * 1000))
    if orphaned:
        _add_orphaned(where, runner)
    if where.terms[before is not None :] == ["task = ?"]:
        return _jobs_of_task(
            store, task or "", before or _LARGEST, limit, now=now, runner=runner, stall_after=stall_after
        )
    text = f"{where.text()} order by id desc limit ?"
    return _views(store, text, (*where.params, limit), now=now, runner=runner, stall_after=stall_after)


_LARGEST: Final = 2**63 - 1
# The newest jobs of all tasks are mostly enough for a page of a busy one.
_NEAR: Final = "select id from (select id, task from jobs where id < ? order by id desc limit 2000) as n where task = ?"
# For a rare one: the only index with a task in it has its jobs in the order of their keys, those without one in the
# order of ids. Each half passes at worst over that task's part of the index, never over all jobs.
_OF_TASK: Final = (
    "select id from (select id from jobs where task=? and key is null and id < ? order by id desc limit ?) as free"
    " union all"
    " select id from (select id from jobs where task=? and key is not null and id < ? order by id desc limit ?) as keyed"
)
# The same index by its second column: from task to task, and in each to the key.
_BY_KEY: Final = (
    "with recursive each_task(task) as (select min(task) from jobs union all"
    " select (select min(task) from jobs where task > each_task.task) from each_task where each_task.task is not null)"
    " select jobs.id from each_task join jobs on jobs.task = each_task.task and jobs.key = ?"
)
_BY_EXTERNAL: Final = (
    "id in (select job_id from job_items where external_id=? union select job_id from job_events where external_id=?)"
)
_STALLED: Final = (
    f"{_OPEN} and status='running' and paused_at is null"
    " and max(coalesce(progress_at, 0), coalesce(started_at, 0), status_updated_at) <= ?"
)


def _jobs_of_task(store: Store, task: str, before: int, limit: int, **at: Any) -> list[JobView]:
    near = _views(store, f"where id in ({_NEAR}) order by id desc limit ?", (before, task, limit), **at)
    if len(near) == limit:
        return near
    half = (task, before, limit)
    return _views(store, f"where id in ({_OF_TASK}) order by id desc limit ?", (*half, *half, limit), **at)


class _Where:
    """The terms of a condition and their parameters."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.params: list[Any] = []

    def add(self, term: str, *params: Any) -> None:
        self.terms.append(f"({term})" if " or " in term else term)
        self.params += params

    def text(self) -> str:
        return f"where {' and '.join(self.terms)}" if self.terms else ""


def _add_status(where: _Where, status: str) -> None:
    if status not in JOB_STATUSES:
        raise UsageError(f"unknown status of a job: {status!a}", hint=f"one of {', '.join(JOB_STATUSES)}")
    if status not in JOB_ENDS:
        where.add(_OPEN)
    elif status != COMPLETED:
        # Through the small index of what ended; what completed is most of all jobs, and found soonest by id.
        where.add(f"id in (select id from jobs where status='{status}' and completed_at is not null)")
    where.add(f"status = '{status}'")


def _add_orphaned(where: _Where, runner: Runner) -> None:
    where.add(_OPEN)
    if not runner.alive:
        where.add("status = 'running' or items_running > 0")
        return
    where.add("items_running > 0")
    where.add(
        "exists (select 1 from job_items as i where i.job_id = jobs.id and i.status = 'running'"
        " and (i.daemon_id is null or i.daemon_id <> ?))",
        runner.id or 0,
    )


def _views(  # noqa: PLR0913 - a condition, and what a view needs
    store: Store, where: str, params: Sequence[Any], *, now: int, runner: Runner, stall_after: float
) -> list[JobView]:
    def work(connection: Connection) -> tuple[list[JobRow], dict[int, Around]]:
        found = connection.execute(f"select {_COLUMNS} from jobs {where}", params)  # noqa: S608 - text of this module
        rows = [JobRow(*row) for row in found]
        return rows, _surroundings(store, connection, rows, runner)

    rows, around = store.read(work)
    return [
        job_view(row, _with_submitter(row, around[row.id]), runner, now=now, stall_after=stall_after) for row in rows
    ]


# -- what stands around jobs ------------------------------------------------------------------------------------------


def _surroundings(store: Store, connection: Connection, rows: list[JobRow], runner: Runner) -> dict[int, Around]:
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
        "select h.job_id, h.daemon_id, h.items, d.pid, d.host, d.heartbeat_at from"  # noqa: S608 - text of this module
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
        "select d.job_id, j.id, j.status, d.on_status from job_dependencies d join jobs j on j.id = d.after_id"  # noqa: S608
        f" where d.job_id in (select id from {store.rows('id')} as m) order by d.job_id, j.id",
        (ids,),
    )
    for job_id, *parent in rows:
        found[job_id].append(Parent(*parent))
    return found


def _next_due(store: Store, connection: Connection, ids: list[int]) -> dict[int, int]:
    rows = connection.execute(
        "select m.id, (select min(available_at) from job_items where job_id=m.id and status='queued')"  # noqa: S608
        f" from {store.rows('id')} as m",
        (store.pack([(job_id,) for job_id in ids]),),
    )
    return {job_id: at for job_id, at in rows if at is not None}


# Items start in the order of their ids, so those just before the first queued one were settled last.
_RECENT: Final = (
    "select count(*), max(completed_at) - min(completed_at) from (select completed_at from job_items"
    " where +job_id = ? and id < ? and id > ? and completed_at >= ? order by id desc limit ?)"
)
_WINDOW: Final = 4 * _SAMPLE


def _pace(connection: Connection, job_id: int, since: int) -> float | None:
    """Return the items a second that this run settled lately; None where too few show it."""
    first = connection.execute(
        "select id from job_items where job_id=? and status='queued' order by available_at, id limit 1", (job_id,)
    ).fetchone()
    if first is None:
        return None
    params = (job_id, first[0], first[0] - _WINDOW, since, _SAMPLE)
    count, took = connection.execute(_RECENT, params).fetchone()
    return round((count - 1) * 1000 / took, 3) if count > 1 and took else None


def _with_submitter(row: JobRow, around: Around) -> Around:
    # Only here, and only for the rare job that is being submitted, is the machine asked who lives.
    if row.sealed_at is not None or row.submitter is None:
        return around
    submitter = Process.loads(row.submitter)
    return around if submitter is None else around._replace(submitter_alive=alive(submitter))


# -- finding, progress, daemons ---------------------------------------------------------------------------------------


def find_job(store: Store, name: str) -> int:
    """Return the id of the job that ``7``, ``=KEY``, ``@last`` or ``@failed`` names.

    Raises:
        NotFound: there is none.
        UsageError: the name has none of these forms, or two tasks have a job of that key.
    """
    if name.isdecimal() and name.isascii():
        text, params = "select id from jobs where id=?", (min(int(name[:19]), _LARGEST),)
    elif name == "@last":
        text, params = "select max(id) from jobs", ()
    elif name == "@failed":
        text, params = "select max(id) from jobs where status='failed'", ()
    elif name.startswith("=") and len(name) > 1:
        text, params = f"{_BY_KEY} order by jobs.id", (name[1:],)
    else:
        raise UsageError(f"not a job: {name!a}", hint="a job is 7, =KEY, @last or @failed")
    found = [row[0] for row in store.read(lambda c: c.execute(text, params).fetchall()) if row[0] is not None]
    if not found:
        raise NotFound(_missing(name), hint=_JOBS_HINT)
    if len(found) > 1:
        raise UsageError(f"jobs {', '.join(map(str, found))} have the key {name[1:]!a}", hint="name one by its id")
    return int(found[0])


def _missing(name: str) -> str:
    if name.startswith("@"):
        return "there are no jobs" if name == "@last" else "no job has failed"
    return f"there is no job with the key {name[1:]!a}" if name.startswith("=") else f"there is no job {name}"


_PROGRESS_COLUMNS: Final = (
    "id, task, status, version, items_total, items_total - items_running - items_waiting - items_completed"
    " - items_failed - items_skipped - items_cancelled, items_running, items_waiting, items_completed, items_failed,"
    " items_skipped, items_cancelled, started_at, progress_at, completed_at"
)
# Text: a watcher asks this many times a second, and a query object would cost more than the row.
_PROGRESS: Final = f"select {_PROGRESS_COLUMNS} from jobs where id=?"  # noqa: S608 - columns of this module
_IN_PROGRESS: Final = f"select {_PROGRESS_COLUMNS} from jobs where {_OPEN} order by id desc limit ?"  # noqa: S608


def progress(store: Store, job_id: int) -> Progress:
    """Return a job's counters: one row, whatever the size of the job.

    Raises:
        NotFound: there is no such job.
    """
    row = store.read(lambda connection: connection.execute(_PROGRESS, (job_id,)).fetchone())
    if row is None:
        raise NotFound(f"there is no job {job_id}", hint=_JOBS_HINT)
    return _progress(row)


def in_progress(store: Store, *, limit: int = 1_000) -> list[Progress]:
    """Return the counters of the jobs that have not ended, newest first."""
    rows = store.read(lambda connection: connection.execute(_IN_PROGRESS, (limit,)).fetchall())
    return [_progress(row) for row in rows]


def _progress(row: Sequence[Any]) -> Progress:
    return Progress(row[0], row[1], row[2], row[3], Counts(*row[4:12]), row[12], row[13], row[14])


def daemon(store: Store) -> DaemonView | None:
    """Return the newest row of ``daemons``; whether it lives only the lock can say."""
    query = Daemon.select().order_by(Daemon.id.desc()).limit(1).dicts()
    found = store.read(lambda _: list(query.execute(store.database)))
    if not found:
        return None
    row = found[0]
    state, tasks = parsed(row.pop("state")), parsed(row.pop("tasks"))
    return DaemonView(
        **row,
        state=state if isinstance(state, dict) else {},
        tasks=tuple(map(str, tasks)) if isinstance(tasks, list) else (),
    )
