"""Reading: one import for everything that is read of jobs. Nothing here writes.

A page costs the same at 1,000,000 rows: newest first by keyset on the id, and where a filter allows it through a
partial index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.errors import NotFound, UsageError
from jobd.store.around import surroundings, with_submitter
from jobd.store.chain import has_children, phases
from jobd.store.closeup import look
from jobd.store.details import errors, events, item, items, output
from jobd.store.figures import attempts, durations
from jobd.store.filters import BY_KEY, LARGEST, Condition, Filters, conditions
from jobd.store.results import latest_result, results, results_of
from jobd.store.standing import STALL_AFTER, JobRow, Standing, parsed
from jobd.store.strip import strip
from jobd.store.transitions import OPEN
from jobd.store.views import Counts, DaemonView, JobView, Progress
from jobd.store.warnings import warnings
from jobd.store.wording import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.standing import Around
    from jobd.store.views import Runner

__all__ = [
    "attempts", "daemon", "durations", "errors", "events", "find_job", "in_progress", "item", "items", "job", "jobs",
    "latest_result", "open_jobs", "output", "progress", "results", "results_of", "strip",
]  # fmt: skip

_COLUMNS: Final = ", ".join(JobRow._fields)
_JOBS_HINT: Final = "jobd list shows the jobs"


# -- one job, or a page ---------------------------------------------------------------------------------------------


def job(store: Store, job_id: int, *, now: int, runner: Runner, stall_after: float = STALL_AFTER) -> JobView:
    """Return one job as it stands at ``now``; ``stall_after`` (seconds) is for a job whose task has none of its own.

    Raises:
        NotFound: there is no such job.
    """
    one = Condition("where id=?", (job_id,))
    found = _views(store, [one], 1, now=now, runner=runner, stall_after=stall_after, close=True)
    if not found:
        raise NotFound(f"there is no job {job_id}", hint=_JOBS_HINT)
    return found[0]


def jobs(
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
    filters = Filters(status, task, since, key, external, stalled, orphaned, before)
    tries = conditions(filters, now=now, runner=runner, stall_after=stall_after, limit=limit)
    return _views(store, tries, limit, now=now, runner=runner, stall_after=stall_after)


def open_jobs(store: Store, *, now: int, runner: Runner, stall_after: float = STALL_AFTER, limit: int) -> list[JobView]:
    """Return the oldest jobs that have not ended, oldest first."""
    oldest = Condition(f"where {OPEN} order by id", ())
    return _views(store, [oldest], limit, now=now, runner=runner, stall_after=stall_after)


def _views(
    store: Store,
    tries: Sequence[Condition],
    limit: int,
    *,
    now: int,
    runner: Runner,
    stall_after: float,
    close: bool = False,
) -> list[JobView]:
    """Return the jobs of the first condition that fills the page, else those of the last; looked at from ``close``."""

    def work(connection: Connection) -> tuple[list[JobRow], dict[int, Around]]:
        rows: list[JobRow] = []
        for condition in tries:
            text = f"select {_COLUMNS} from jobs {condition.text} limit ?"
            rows = [JobRow(*row) for row in connection.execute(text, (*condition.params, limit))]
            if len(rows) == limit:
                break
        around = surroundings(store, connection, rows, runner, now)
        if close:
            around = {
                job_id: seen._replace(
                    closeup=look(connection, job_id, now=now, run=runner.alive),
                    phases=phases(connection, job_id) if seen.parents or has_children(connection, job_id) else None,
                )
                for job_id, seen in around.items()
            }
        return rows, around

    rows, around = store.read(work)
    return [_view(Standing(row, with_submitter(row, around[row.id]), runner, now, stall_after)) for row in rows]


def _view(at: Standing) -> JobView:
    row, counts = at.row, at.row.counts
    return JobView(
        id=row.id,
        task=row.task,
        key=row.key,
        target=row.target,
        status=row.status,
        status_description=sentence(at),
        status_message=row.status_message,
        status_updated_at=row.status_updated_at,
        version=row.version,
        health=at.health,
        operations=at.operations,
        progress_percent=counts.progress_percent,
        counts=counts,
        rate_per_second=at.rate,
        eta_seconds=at.eta_seconds,
        warnings=tuple(warnings(at)),
        retry_count=row.retry_count,
        last_error=row.last_error,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        timeout_at=at.timeout_at,
        # A clock that was set back must not make anything younger than nothing.
        age_seconds=max(0, at.now - row.created_at) // 1000,
        in_status_seconds=max(0, at.now - row.status_updated_at) // 1000,
        daemon=at.daemon,
        after=tuple(parent.id for parent in at.around.parents),
        phases=at.around.phases,
        params=parsed(row.params),
        priority=row.priority,
        progress_at=row.progress_at,
        paused_at=row.paused_at,
        sealed_at=row.sealed_at,
        not_before=row.not_before,
        blocked_by=at.blocked_by,
    )


# -- finding, progress, daemons ---------------------------------------------------------------------------------------


def find_job(store: Store, name: str) -> int:
    """Return the id of the job that ``7``, ``=KEY``, ``@last`` or ``@failed`` names.

    Raises:
        NotFound: there is none.
        UsageError: the name has none of these forms, or two tasks have a job of that key.
    """
    params: tuple[Any, ...] = ()
    if name.isdecimal() and name.isascii():
        text, params = "select id from jobs where id=?", (min(int(name[:19]), LARGEST),)
    elif name == "@last":
        text = "select max(id) from jobs"
    elif name == "@failed":
        text = "select max(id) from jobs where status='failed' and completed_at is not null"
    elif name.startswith("=") and len(name) > 1:
        text, params = f"{BY_KEY} order by jobs.id", (name[1:],)
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
_PROGRESS: Final = f"select {_PROGRESS_COLUMNS} from jobs where id=?"
_IN_PROGRESS: Final = f"select {_PROGRESS_COLUMNS} from jobs where {OPEN} order by id desc limit ?"


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


# Text: every reading asks who runs items, and the models cost a cold start 5 ms.
_DAEMON: Final = (
    "select id, host, boot, pid, process_started_at, started_at, heartbeat_at, heartbeats, stopped_at, state, tasks,"
    " version from daemons order by id desc limit 1"
)


def daemon(store: Store) -> DaemonView | None:
    """Return the newest row of ``daemons``; whether it lives only the lock can say."""
    row = store.read(lambda connection: connection.execute(_DAEMON).fetchone())
    if row is None:
        return None
    state, tasks = parsed(row[9]), parsed(row[10])
    state = state if isinstance(state, dict) else {}
    tasks = tuple(map(str, tasks)) if isinstance(tasks, list) else ()
    return DaemonView._make((*row[:9], state, tasks, row[11]))
