"""Deadlines of jobs and of waiting items: which have passed, and what follows.

A job's deadline is the latest of three: ``timeout_at``, its last progress and the start of an item that runs, the last
two and its ``job_timeout_ms``. Only the first is kept, so that progress costs no write of it; what has passed by it is
put off to the latest when it is looked at. No deadline is ever later than its time-out from now.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import FAILED, WAITING
from jobd.store.counters import count_moves, last_errors
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record
from jobd.store.halting import halt
from jobd.store.ready import CLAIMABLE
from jobd.store.transitions import Move

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from jobd.store.base import Connection, Store

JOBS_AT_ONCE: Final = 500
_NO_ANSWER: Final = "no answer from outside by its deadline"

# -- items that wait --------------------------------------------------------------------------------------------------


class Overdue(NamedTuple):
    """A waiting item past its deadline (Unix ms)."""

    id: int
    job_id: int
    key: str
    attempt: int
    deadline_at: int
    external_id: str | None


UNHINDERED: Final = (
    "paused_at is null and deleted_at is null and cancel_requested_at is null and fail_requested_at is null"
)
_OVERDUE: Final = (
    "select i.id, i.job_id, i.key, i.attempt, i.deadline_at, i.external_id"
    " from job_items as i join jobs on jobs.id = i.job_id"
    " where i.status = 'waiting' and i.deadline_at <= ? and (i.deadline_at, i.id) > (?, ?)"
    f" and {UNHINDERED} order by i.deadline_at, i.id limit ?"
)
_FAIL_WAITING: Final = Move(
    "job_items", "time_out", FAILED, source=WAITING, fenced=True, columns=("deadline_at",),
    sets=("completed_at=?", "error_type='TimeOut'", "error=?", "failures=failures+1"),
    also="job_items.deadline_at <= ?",
)  # fmt: skip


def overdue_items(connection: Connection, at: int, limit: int, after: tuple[int, int] = (0, 0)) -> list[Overdue]:
    """Return up to ``limit`` waiting items that were due ``at``, by their deadline, after (deadline, id)."""
    return [Overdue(*row) for row in connection.execute(_OVERDUE, (at, *after, limit)).fetchall()]


def next_deadline(store: Store) -> int | None:
    """Return when (Unix ms) the next thing is due to time out: an item that waits, or a job of which something runs.

    None where nothing is; in the past what the next pass is to judge.
    """
    found = store.read(lambda connection: connection.execute(_NEXT).fetchone())
    return None if found[0] is None else int(found[0])


def fail_items(
    store: Store, connection: Connection, found: Sequence[Overdue], *, at: int, now: int, actor: str
) -> None:
    """Fail items that were due ``at``, as this transaction sees them, and end their jobs."""
    rows = [(item.id, item.attempt, item.deadline_at) for item in found]
    if _FAIL_WAITING.run(store, connection, rows, (now, _NO_ANSWER), (at,)) != len(rows):
        raise AssertionError("what was just read has moved")
    words = f"TimeOut: {_NO_ANSWER}"
    events = [
        Event(
            item.job_id, item.id, "time_out", WAITING, FAILED, now, actor,
            attempt=item.attempt, external_id=item.external_id, message=words,
        )
        for item in found
    ]  # fmt: skip
    jobs = Counter(item.job_id for item in found)
    record(store, connection, events)
    count_moves(store, connection, jobs, WAITING, FAILED, progress=now)
    last_errors(store, connection, dict.fromkeys(jobs, words))
    halt(store, connection, jobs, now=now, actor=actor)
    end_jobs(store, connection, jobs, now=now, actor=actor)


# -- jobs without progress --------------------------------------------------------------------------------------------


class Late(NamedTuple):
    """An open job past the deadline that it keeps. Times are Unix ms; ``since`` is its last progress or start."""

    id: int
    status: str
    timeout_ms: int
    timeout_at: int
    retry_count: int
    requested: int
    since: int


class Held(NamedTuple):
    """A running item of such a job, and in whose name it runs."""

    id: int
    job_id: int
    key: str
    attempt: int
    daemon_id: int | None
    started_at: int | None
    task: str


_NEWEST_START: Final = (
    "(select max(i.started_at) from job_items as i where i.status = 'running' and i.job_id = jobs.id)"
)
SINCE: Final = f"max(coalesce(progress_at, 0), coalesce({_NEWEST_START}, 0))"
# The terms of the partial index jobs_timed.
TIMED: Final = "job_timeout_ms is not null and completed_at is null"
_LATE: Final = (
    "select id, status, job_timeout_ms, timeout_at, retry_count,"
    f" cancel_requested_at is not null or fail_requested_at is not null, {SINCE} from jobs"
    f" where {TIMED} and timeout_at <= ? and (timeout_at, id) > (?, ?)"
    " and paused_at is null and sealed_at is not null and deleted_at is null order by timeout_at, id limit ?"
)
# While it waited for other jobs, nothing of it could run: at the latest since their ends it could.
_FREE_SINCE: Final = (
    "coalesce((select max(p.completed_at) from job_dependencies as d cross join jobs as p on p.id = d.after_id"
    " where d.job_id = jobs.id), 0)"
)
_NO_RATE: Final = "case when policy <> '{{}}' and json_valid(policy) then json_extract(policy, '$.rate') end is null"
# Nothing of it has run for the whole time, though an item was due and nothing held it back.
_NEGLECTED: Final = (
    "select id, status, timeout, coalesce(timeout_at, 0), retry_count, 0, since from"
    " (select id, task, status, timeout_at, retry_count, coalesce(job_timeout_ms, ?) as timeout,"
    f" max(coalesce(progress_at, 0), status_updated_at, sealed_at, coalesce(not_before, 0), {_FREE_SINCE}) as since"
    " from {known} as known join jobs on jobs.id in (select id from jobs"
    f" where {CLAIMABLE} and task = known.name and available_at = 0 and items_running = 0 and {_NO_RATE}"
    " order by priority desc, id limit ?)) as jobs"
    " where coalesce(timeout_at, 0) <= ? and since <= ? - timeout and ? <= ? - timeout"
    " and exists (select 1 from job_items as i"
    " where i.status = 'queued' and i.job_id = jobs.id and i.available_at <= ? - timeout)"
)


_NEXT: Final = (
    "select min(at) from (select at from (select i.deadline_at as at"
    " from job_items as i join jobs on jobs.id = i.job_id"
    f" where i.status = 'waiting' and i.deadline_at > 0 and {UNHINDERED} order by i.deadline_at limit 1)"
    f" union all select max(timeout_at, {SINCE} + job_timeout_ms) from jobs where {TIMED} and timeout_at > 0"
    " and items_running > 0 and paused_at is null and sealed_at is not null and deleted_at is null)"
)


def late_jobs(connection: Connection, now: int, limit: int, after: tuple[int, int] = (0, 0)) -> list[Late]:
    """Return up to ``limit`` jobs with a time-out of their own whose kept deadline has passed, after (deadline, id)."""
    return [Late(*row) for row in connection.execute(_LATE, (now, *after, limit)).fetchall()]


def neglected_jobs(
    store: Store, connection: Connection, now: int, *, timeout_ms: int, free_since: int, tasks: Collection[str]
) -> list[Late]:
    """Return the jobs that are due among the first 500 with something to claim, of which nothing runs: of each task
    the first of its share.

    ``timeout_ms`` is that of a job without its own. Since ``free_since`` (Unix ms) there was a free slot at any moment.
    """
    known = store.pack([(task,) for task in tasks])
    share = max(1, JOBS_AT_ONCE // max(1, len(tasks)))
    params = (timeout_ms, known, share, now, now, free_since, now, now)
    return [Late(*row) for row in connection.execute(_NEGLECTED.format(known=store.rows("name")), params).fetchall()]


def held_items(store: Store, connection: Connection, job_ids: Iterable[int]) -> list[Held]:
    """Return the running items of jobs."""
    rows = connection.execute(
        "select i.id, i.job_id, i.key, i.attempt, i.daemon_id, i.started_at, jobs.task"
        f" from {store.rows('id')} as m cross join job_items as i join jobs on jobs.id = i.job_id"
        " where i.status = 'running' and i.job_id = m.id",
        (store.pack([(job_id,) for job_id in job_ids]),),
    )
    return [Held(*row) for row in rows.fetchall()]


def put_off(store: Store, connection: Connection, deadlines: Sequence[tuple[int, int]]) -> None:
    """Keep other deadlines (Unix ms), by job: that is no event, only the clock."""
    if deadlines:
        connection.execute(
            f"update jobs set timeout_at = m.at from {store.rows('id', 'at')} as m where jobs.id = m.id and {TIMED}",
            (store.pack(deadlines),),
        )


def time_out_jobs(
    store: Store, connection: Connection, jobs: Sequence[tuple[Late, str]], *, now: int, actor: str
) -> None:
    """Count a time-out of open jobs, each with why, and set their next deadline."""
    if not jobs:
        return
    connection.execute(
        "update jobs set retry_count = retry_count + 1, version = version + 1, timeout_at = m.at"
        f" from {store.rows('id', 'at')} as m where jobs.id = m.id",
        (store.pack([(job.id, now + job.timeout_ms) for job, _ in jobs]),),
    )
    events = [Event(job.id, None, "time_out", job.status, job.status, now, actor, message=why) for job, why in jobs]
    record(store, connection, events)


def name_cause(connection: Connection, job_id: int, why: str) -> None:
    """Let a job that is about to fail say why, where no item of it has."""
    connection.execute("update jobs set last_error = coalesce(last_error, ?) where id = ?", (why, job_id))
