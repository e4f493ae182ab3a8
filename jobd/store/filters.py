"""Which jobs a page shows: every filter as a condition that an index answers, where there is one.

SQLite takes a partial index only where its condition stands in the query word for word, so statuses are text here and
never bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import UsageError
from jobd.states import JOB_ENDS, JOB_STATUSES
from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from jobd.store.views import Runner

LARGEST: Final = 2**63 - 1


class Filters(NamedTuple):
    """What the jobs of a page have in common. ``stalled_since`` and ``since`` are Unix ms; ``before`` is an id."""

    status: str | None = None
    task: str | None = None
    since: int | None = None
    key: str | None = None
    external: str | None = None
    stalled: bool = False
    orphaned: bool = False
    before: int | None = None


class Condition(NamedTuple):
    """The text after ``from jobs``, without its limit, and the parameters of the text."""

    text: str
    params: tuple[Any, ...]


def conditions(filters: Filters, *, now: int, runner: Runner, stall_after: float, limit: int) -> list[Condition]:
    """Return one condition, or two where the first is quicker and enough if it fills a page of ``limit``.

    Raises:
        UsageError: an unknown status.
    """
    if filters == Filters(task=filters.task, before=filters.before) and filters.task is not None:
        return _of_task(filters.task, LARGEST if filters.before is None else filters.before, limit)
    where = _Where()
    if filters.before is not None:
        where.add("id < ?", filters.before)
    if filters.status is not None:
        _add_status(where, filters.status)
    if filters.key is not None:
        where.add("key = ?" if filters.task is not None else f"id in ({BY_KEY})", filters.key)
    if filters.task is not None:
        # The sign keeps the planner off the index of tasks, where it would sort all jobs of one, but for a key.
        where.add("task = ?" if filters.key is not None else "+task = ?", filters.task)
    if filters.since is not None:
        where.add("created_at >= ?", filters.since)
    if filters.external is not None:
        where.add(_BY_EXTERNAL, filters.external, filters.external)
    if filters.stalled:
        where.add(_STALLED, stall_after, now)
    if filters.orphaned:
        _add_orphaned(where, runner)
    return [where.condition()]


# The newest jobs of all tasks are mostly enough for a page of a busy one.
_NEAR: Final = "select id from (select id, task from jobs where id < ? order by id desc limit 2000) as n where task = ?"
# For a rare one: the only index with a task in it has its jobs in the order of their keys, those without one in the
# order of ids. Each half passes at worst over that task's part of the index, never over all jobs.
_OF_TASK: Final = (
    "select id from (select id from jobs where task=? and key is null and id < ? order by id desc limit ?) as f"
    " union all"
    " select id from (select id from jobs where task=? and key is not null and id < ? order by id desc limit ?) as k"
)
# The same index by its second column: from task to task, and in each to the key.
BY_KEY: Final = (
    "with recursive each_task(task) as (select min(task) from jobs union all"
    " select (select min(task) from jobs where task > each_task.task) from each_task where each_task.task is not null)"
    " select jobs.id from each_task join jobs on jobs.task = each_task.task and jobs.key = ?"
)
_BY_EXTERNAL: Final = (
    "id in (select job_id from job_items where external_id=? union select job_id from job_events where external_id=?)"
)
_STALLED: Final = (
    f"{OPEN} and status = 'running' and paused_at is null"
    " and max(coalesce(progress_at, 0), coalesce(started_at, 0), status_updated_at)"
    " + 1000 * coalesce(case when json_valid(policy) then json_extract(policy, '$.stall_after') end, ?) <= ?"
)


def _of_task(task: str, before: int, limit: int) -> list[Condition]:
    half = (task, before, limit)
    return [
        Condition(f"where id in ({_NEAR}) order by id desc", (before, task)),
        Condition(f"where id in ({_OF_TASK}) order by id desc", (*half, *half)),
    ]


class _Where:
    """The terms of a condition and their parameters."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.params: list[Any] = []

    def add(self, term: str, *params: Any) -> None:
        self.terms.append(f"({term})" if " or " in term else term)
        self.params += params

    def condition(self) -> Condition:
        text = f"where {' and '.join(self.terms)}" if self.terms else ""
        return Condition(f"{text} order by id desc", tuple(self.params))


def _add_status(where: _Where, status: str) -> None:
    if status not in JOB_STATUSES:
        raise UsageError(f"unknown status of a job: {status!a}", hint=f"one of {', '.join(JOB_STATUSES)}")
    if status not in JOB_ENDS:
        where.add(OPEN)
    else:
        where.add("completed_at is not null")
    where.add(f"status = '{status}'")


def _add_orphaned(where: _Where, runner: Runner) -> None:
    where.add(OPEN)
    if not runner.alive:
        where.add("items_running > 0 or (status = 'running' and paused_at is null)")
        return
    where.add("items_running > 0")
    where.add(
        "exists (select 1 from job_items as i where i.job_id = jobs.id and i.status = 'running'"
        " and (i.daemon_id is null or i.daemon_id <> ?))",
        runner.id or 0,
    )
