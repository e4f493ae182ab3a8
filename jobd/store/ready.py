"""Which jobs a claim looks at, and that it passes over no others.

There may be any number of open jobs that cannot be run now: of tasks that this daemon does not know, behind
``not_before``, with nothing but items that are due later. The write lock is held for 10 ms, so none of them may be
passed over again and again, in the claims of a busy daemon as little as in an idle one's.

The index ``jobs_claimable`` begins with the task, and a claim seeks in it for each task that it was asked for: jobs of
other tasks lie elsewhere. Then comes ``available_at``, before which nothing of a job is looked at. With 0 a job is
*ready*; the others are *held back*, and their order says which of them is due next. A submission holds its job back
until ``not_before``. Whatever a claim has looked at in vain it holds back until its next item is due, so that it is
looked at once and not at each turn, and not even after a restart; and a claim begins by lifting what is due.

What was learnt so is true until the job gets a queued item: :func:`~jobd.store.counters.count_moves` and an addition
set ``available_at`` back to 0 in their own transaction. ``held_back`` among the invariants tells who forgets it, and
nothing is held back for its items longer than an hour. Both are bounded: a claim that has held back or lifted ``MOST``
jobs says that it is ``tired``, and the next one goes on. If it has found nothing, ``scout`` goes ahead of it.

What does not wait for a time is no part of this: paused, requested, unsealed jobs are in no part of the index, nor
those that wait for others. A bound
of a task (its concurrency, its rate) leaves the task out of those that are asked for, and one of a job's own leaves the
job out while it is *full*; what else holds back a single job is one more term of the index, or ``hold_back`` where it
has a time.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jobd.store.base import Connection, Store

# The terms of the partial index jobs_claimable, to the letter: SQLite takes the index only then.
CLAIMABLE: Final = (
    f"{OPEN} and sealed_at is not null and paused_at is null"
    " and cancel_requested_at is null and fail_requested_at is null and deleted_at is null and blocked = 0"
    " and items_total > items_running + items_waiting + items_completed + items_failed"
    " + items_skipped + items_cancelled"
)
FAR: Final = 5_000  # jobs that one look outside the write lock passes over: 7 ms
FEW: Final = 8  # tasks for which it is not worth finding out which of them have jobs
_TASKS_AT_ONCE: Final = 32
COLUMNS: Final = (
    "id, task, params, priority, created_at, status, policy, not_before,"
    " items_total - items_running - items_waiting - items_completed - items_failed - items_skipped - items_cancelled"
    " as queued"
)


class ClaimedJob(NamedTuple):
    """What a claim needs to know of a job; ``policy`` and ``params`` are JSON text, times are Unix ms, and ``queued``
    is how many of its items are.
    """

    id: int
    task: str
    params: str
    priority: int
    created_at: int
    status: str
    policy: str
    not_before: int | None
    queued: int

    def waits(self, now: int) -> bool:
        """Say whether its time is still to come."""
        return self.not_before is not None and self.not_before > now


_NAMES: Final = ", ".join(ClaimedJob._fields)


class Turns:
    """Whose turn it is: the last job served, for each priority. Memory only: a restart begins a new round.

    Of the last claim, ``tired`` says that it stopped before it had seen everything that may be due, and ``due`` when
    the next of the jobs that are held back is, in Unix ms. ``scouted`` is how far :func:`scout` has come.
    """

    def __init__(self) -> None:
        self.tired = False
        self.due: int | None = None
        self.scouted = 0
        self._last: dict[int, int] = {}

    def last(self, priority: int) -> int:
        """Return the id of the last job served at ``priority``."""
        return self._last.get(priority, 0)

    def served(self, priority: int, job_id: int) -> None:
        """Remember the last job served."""
        self._last[priority] = job_id


class Standing(NamedTuple):
    """What a task has: the highest and the lowest priority of its ready jobs, and when the next of those held back is
    due (Unix ms).

    None where there is none.
    """

    task: str
    priority: int | None
    lowest: int | None
    later: int | None

    def is_due(self, now: int) -> bool:
        """Say whether any of those held back is due."""
        return self.later is not None and self.later <= now


def survey(store: Store, connection: Connection, tasks: Collection[str], full: Collection[int] = ()) -> list[Standing]:
    """Return how those of ``tasks`` stand that have open jobs, by three seeks each; jobs that are ``full`` aside."""
    if len(tasks) > FEW:
        tasks = _present(store, connection, tasks)
    params = (*_ids(store, full), *_ids(store, full), packed(store, tasks))
    source = _standing(store.rows("task"), _aside(store, full))
    found = store.gather(connection, "task, priority, lowest, later", source, params)
    return [Standing(*row) for row in found]


@functools.cache
def _standing(tasks: str, aside: str) -> str:
    jobs = f"from jobs where {CLAIMABLE} and task = t.task and available_at"
    ready = f"{jobs} = 0{aside} order by priority"
    return (
        f"from (select t.task as task, (select priority {ready} desc limit 1) as priority,"
        f" (select priority {ready} limit 1) as lowest,"
        f" (select available_at {jobs} > 0 order by available_at limit 1) as later"
        f" from {tasks} as t) as standing"
    )


def _aside(store: Store, full: Collection[int]) -> str:
    """Return the term that leaves jobs out: a few, which have items in flight, or wait for their rate."""
    return f" and id not in (select id from {store.rows('id')} as f)" if full else ""


def _ids(store: Store, full: Collection[int]) -> tuple[str, ...]:
    return (store.pack([(job_id,) for job_id in full]),) if full else ()


def _present(store: Store, connection: Connection, tasks: Collection[str]) -> Collection[str]:
    """Return those of ``tasks`` that have claimable jobs, or all where more tasks have some than are worth a look.

    Of the fifty tasks of a daemon few have any at a time.
    """
    first = f"select min(task) from jobs where {CLAIMABLE}"
    source = (
        f"from (with recursive p (task) as (select ({first}) union all"
        f" select ({first} and task > p.task) from p where p.task is not null limit {FEW})"
        " select task from p where task is not null) as p"
    )
    found = store.gather(connection, "task", source, ())
    return tasks if len(found) == FEW else [task for (task,) in found if task in tasks]


def in_turn(
    store: Store, connection: Connection, turns: Turns, tasks: Sequence[str], priority: int, most: int,
    full: Collection[int] = (),
) -> list[ClaimedJob]:  # fmt: skip
    """Return up to ``most`` ready jobs of ``tasks`` and one priority, from the one after the last served, round once.

    Those that are ``full`` are left out.

    Of several tasks each brings its own in their order, and SQLite merges them as far as they are asked for.
    """
    last = turns.last(priority)
    aside = _ids(store, full)
    jobs: list[ClaimedJob] = []
    for first in range(0, len(tasks), _TASKS_AT_ONCE):
        group = tasks[first : first + _TASKS_AT_ONCE]
        params = (*[value for task in group for value in (task, priority, last, *aside)], most)
        found = store.gather(connection, _NAMES, _both_sides(len(group), _aside(store, full)), (*params, *params, most))
        jobs += [ClaimedJob(*row) for row in found]
    if len(tasks) > _TASKS_AT_ONCE:
        # Of more tasks than fit into one statement: here the groups are merged.
        jobs = sorted(jobs, key=lambda job: (job.id <= last, job.id))[:most]
    return jobs


@functools.cache
def _both_sides(tasks: int, aside: str) -> str:
    """Return the jobs after one, and then those before it: the second side is only begun where the first has not
    brought enough.
    """
    own = f"select {COLUMNS} from jobs where {CLAIMABLE} and task = ? and available_at = 0 and priority = ?"
    of_all = [" union all ".join([f"{own} and id {side} ?{aside}"] * tasks) for side in (">", "<=")]
    sides = " union all ".join(f"select {_NAMES} from ({one} order by id limit ?) as s" for one in of_all)
    return f"from ({sides} limit ?) as j"


# An item that was interrupted has a way of its own and does not count.
ITEM: Final = (
    "from job_items as i where i.job_id = jobs.id and i.status = 'queued' and i.interruptions = 0 and i.available_at"
)


def scout(
    store: Store, connection: Connection, turns: Turns, tasks: Collection[str], now: int, full: Collection[int] = ()
) -> None:
    """Go ahead of a claim that was tired and found nothing, and if something is due give it the next turn.

    For a snapshot, outside the write lock: there ten times as many jobs can be passed over as a claim holds back.
    """
    standing = survey(store, connection, tasks, full)
    priority = max((task.priority for task in standing if task.priority is not None), default=None)
    if priority is None:
        return
    theirs = [task.task for task in standing if task.priority == priority][:_TASKS_AT_ONCE]
    one = (
        f"select id, not_before from jobs where {CLAIMABLE}"
        f" and task = ? and available_at = 0 and priority = ? and id > ?{_aside(store, full)}"
    )
    due = f"(jobs.not_before is null or jobs.not_before <= ?) and exists (select 1 {ITEM} <= ?)"
    found, last = connection.execute(
        f"select min(case when {due} then id end), max(id)"
        f" from ({' union all '.join([one] * len(theirs))} order by id limit ?) as jobs",
        (now, now, *(v for task in theirs for v in (task, priority, turns.scouted, *_ids(store, full))), FAR),
    ).fetchone()
    if found is not None:
        turns.served(priority, found - 1)
    turns.scouted = found or last or 0


def tasks_due(store: Store, connection: Connection, tasks: Collection[str], now: int) -> set[str]:
    """Return those of ``tasks`` that have something to claim, as far as is known without a look at their items."""
    found = survey(store, connection, tasks)
    return {task.task for task in found if task.priority is not None or task.is_due(now)}


def policies(store: Store, connection: Connection, jobs: Collection[int]) -> list[tuple[int, str]]:
    """Return what jobs say themselves by now, each with its id."""
    source = f"from jobs where id in (select id from {store.rows('id')} as f)"
    return [(job_id, text) for job_id, text in store.gather(connection, "id, policy", source, _ids(store, jobs))]


def has_jobs(connection: Connection, task: str) -> bool:
    """Say whether there has ever been a job of a task that is still kept."""
    return connection.execute("select 1 from jobs where task = ? limit 1", (task,)).fetchone() is not None


def next_due(store: Store, connection: Connection, tasks: Collection[str], now: int) -> int | None:
    """Return when the next thing that waits for its time is due, in Unix ms; None if nothing waits.

    Exactly, by a look at whatever is held back: for who asks once, not at each turn.
    """
    item = (
        "select min(i.available_at) from job_items as i"
        " where i.job_id = jobs.id and i.status = 'queued' and i.available_at > ?"
    )
    held = f"select id from jobs where {CLAIMABLE} and task = t.task and available_at > 0"
    found = connection.execute(
        f"select min(case when not_before > ? then not_before else ({item}) end) from {store.rows('task')} as t"
        f" join jobs on jobs.id in ({held})",
        (now, now, packed(store, tasks)),
    ).fetchone()
    return None if found[0] is None else int(found[0])


def packed(store: Store, tasks: Collection[str]) -> str:
    """Return the parameter of ``rows`` for tasks."""
    return store.pack([(task,) for task in tasks])
