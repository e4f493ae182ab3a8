"""Figures over all jobs: what is active, what ended lately, and how long items take, task by task.

Of a million jobs the counters are not added up: everything here is of the newest so many, and says so where there are
more.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.states import CANCELLED, COMPLETED, FAILED, JOB_ENDS, SKIPPED
from jobd.store.figures import spread
from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.store.base import Connection, Store

OPEN_JOBS: Final = 5_000
ENDED_JOBS: Final = 5_000
DURATIONS: Final = 5_000
# Of a task that none of those is of.
OF_TASK: Final = 1_000


class Tally(NamedTuple):
    """How many jobs and items, by status."""

    jobs: Mapping[str, int]
    items: Mapping[str, int]


class TaskStats(NamedTuple):
    """One task. ``recent`` are its jobs that ended within the window and the items of these and of open ones.

    ``p50_ms`` and ``p95_ms`` are of ``samples`` completed items, None without any.
    """

    task: str
    active: Tally
    recent: Tally
    p50_ms: int | None
    p95_ms: int | None
    samples: int


class Stats(NamedTuple):
    """Every task that has jobs or results; ``complete`` is false where there were more rows than are looked at."""

    tasks: tuple[TaskStats, ...]
    complete: bool


_COUNTERS: Final = "items_running, items_waiting, items_completed, items_failed, items_skipped, items_cancelled"
_COLUMNS: Final = f"task, status, paused_at is not null, sealed_at is null, items_total, {_COUNTERS}, completed_at"


class _Row(NamedTuple):
    task: str
    status: str
    paused: int
    submitting: int
    total: int
    running: int
    waiting: int
    completed: int
    failed: int
    skipped: int
    cancelled: int
    completed_at: int | None

    def active_items(self) -> dict[str, int]:
        ended = self.completed + self.failed + self.skipped + self.cancelled
        queued = self.total - self.running - self.waiting - ended
        return {"queued": queued, "running": self.running, "waiting": self.waiting}

    def ended_items(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in (COMPLETED, FAILED, SKIPPED, CANCELLED)}

    @property
    def word(self) -> str:
        """Return how an open job stands: what keeps it comes before its status."""
        return "submitting" if self.submitting else "paused" if self.paused else self.status


class _Found(NamedTuple):
    open: list[_Row]
    ended: list[_Row]
    took: dict[str, list[int]]
    complete: bool


def stats(store: Store, *, since: int, task: str | None = None) -> Stats:
    """Return the figures of every task, or of one; ``since`` (Unix ms) is where the window of what is recent begins."""
    found = store.read(lambda connection: _read(connection, since, task))
    names = {row.task for row in (*found.open, *found.ended)} | found.took.keys()
    tasks = tuple(_of(name, found) for name in sorted(names))
    return Stats(tasks, found.complete)


def _of(task: str, found: _Found) -> TaskStats:
    still = [row for row in found.open if row.task == task]
    ended = [row for row in found.ended if row.task == task]
    took = found.took.get(task, [])
    p50, p95 = spread(took) or (None, None)
    return TaskStats(
        task,
        Tally(dict(Counter(row.word for row in still)), _sum(row.active_items() for row in still)),
        Tally(dict(Counter(row.status for row in ended)), _sum(row.ended_items() for row in (*still, *ended))),
        p50,
        p95,
        len(took),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


# -- reading ----------------------------------------------------------------------------------------------------------

_STILL: Final = f"select {_COLUMNS} from jobs where {OPEN} and deleted_at is null"
# Each of the two values apart, and the status as text: only so does the planner take the index of jobs by their end.
_ENDED: Final = (
    f"select {_COLUMNS} from jobs where completed_at is not null and deleted_at is null and status = '{{status}}'"
    " and (values_pruned_at is null) = {kept} and completed_at >= :since"
)
# The index of tasks has a task's jobs in the order of their keys, those without one in the order of ids: each half is
# read backwards, at worst over that task's part of it.
_OF_TASK: Final = (
    "id in (select id from (select id from jobs where task = :task and key is null order by id desc limit :most)"
    " union all"
    " select id from (select id from jobs where task = :task and key is not null order by id desc limit :most))"
)


def _read(connection: Connection, since: int, task: str | None) -> _Found:
    params = {"task": task, "since": since}
    texts = [_ENDED.format(status=status, kept=kept) for status in JOB_ENDS for kept in (1, 0)]
    if task is None:
        still = _rows(connection, f"{_STILL} order by id desc", OPEN_JOBS, params)
        ended = [_rows(connection, f"{text} order by completed_at desc", ENDED_JOBS, params) for text in texts]
    else:
        # The sign keeps the planner on the jobs of the task.
        texts = [text.replace(" status =", " +status =") for text in texts]
        still = _rows(connection, f"{_STILL} and {_OF_TASK}", OPEN_JOBS, params)
        ended = [_rows(connection, f"{text} and {_OF_TASK}", ENDED_JOBS, params) for text in texts]
    complete = len(still) < OPEN_JOBS and all(len(rows) < ENDED_JOBS for rows in ended)
    return _Found(still, [row for rows in ended for row in rows], _took(connection, task), complete)


def _rows(connection: Connection, text: str, most: int, params: dict[str, Any]) -> list[_Row]:
    return [_Row(*row) for row in connection.execute(f"{text} limit :most", {**params, "most": most}).fetchall()]


_TOOK: Final = (
    "select r.task, i.completed_at - i.started_at from ({newest}) as r cross join job_items as i"
    " where i.id = r.item_id and i.status = 'completed' and i.started_at is not null and i.completed_at is not null"
)
_OF_ALL: Final = _TOOK.format(newest="select item_id, task from results order by item_id desc limit :most")
_OF_ONE: Final = _TOOK.format(newest="select item_id, task from results where task = :task limit :most")
# From task to task by the index: as many steps as there are tasks.
_TASKS: Final = (
    "with recursive each(task) as (select min(task) from results union all"
    " select (select min(task) from results where task > each.task) from each where each.task is not null)"
    " select task from each where task is not null"
)


def _took(connection: Connection, task: str | None) -> dict[str, list[int]]:
    """Return how long completed items took in ms, by task: of the newest there are, and of rarer tasks of any."""
    found: dict[str, list[int]] = {}
    for name, took in connection.execute(_OF_ALL, {"most": DURATIONS}).fetchall():
        if task in {None, name}:
            found.setdefault(name, []).append(took)
    names = [task] if task is not None else [row[0] for row in connection.execute(_TASKS).fetchall()]
    for name in names:
        if name not in found:
            rows = connection.execute(_OF_ONE, {"task": name, "most": OF_TASK}).fetchall()
            found[name] = [took for _, took in rows]
    return {name: took for name, took in found.items() if took}
