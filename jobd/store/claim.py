"""How queued items become running ones: by priority, jobs of one priority in turn, in few statements.

The dispatcher asks for a number of items in one of three lanes. ``FRESH`` items may be claimed ahead of a free slot;
an item that was interrupted once (``CAREFUL``) only into a free slot; one that was interrupted twice or more
(``ALONE``) only when nothing else runs, so that what kills the process is found out.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.states import QUEUED, RUNNING
from jobd.store.transitions import OPEN, JobMove, Move, count_moves, job_move, move_jobs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jobd.store.base import Connection, Store

# The terms of the partial index jobs_claimable, to the letter: SQLite takes the index only then.
_CLAIMABLE: Final = (
    f"{OPEN} and sealed_at is not null and paused_at is null"
    " and cancel_requested_at is null and fail_requested_at is null and deleted_at is null"
    " and items_total > items_running + items_waiting + items_completed + items_failed"
    " + items_skipped + items_cancelled"
)
_DUE_OF_JOBS: Final = (
    re.sub("(status|completed_at)", r"jobs.\1", _CLAIMABLE) + " and (not_before is null or not_before <= ?)"
)
_JOB_COLUMNS: Final = "id, task, params, priority, created_at, status, policy"
_ITEM_COLUMNS: Final = "i.id as id, i.job_id as job_id, i.key as key, i.payload as payload, i.attempt as attempt"
_JOBS_AT_ONCE: Final = 500

_START: Final = Move(
    "job_items",
    "start",
    RUNNING,
    sets=("attempt=attempt+1", "daemon_id=?", "started_at=?", "completed_at=null", "progress=null", "available_at=0"),
)
_START_JOB: Final = job_move("start", RUNNING, "started_at=coalesce(started_at, ?)", "progress_at=?")


class Lane(enum.Enum):
    """Which queued items ``i`` a claim takes; ``?`` is the time.

    The two of interrupted items carry the terms of job_items_interrupted and keep the planner from job_items_queued
    (the sign): by that one it would pass over every fresh item of the job.
    """

    FRESH = "i.available_at <= ? and i.interruptions = 0"
    CAREFUL = "i.interruptions > 0 and i.interruptions = 1 and +i.available_at <= ?"
    ALONE = "i.interruptions > 0 and i.interruptions > 1 and +i.available_at <= ?"

    @property
    def order(self) -> str:
        """The order in which its index has them."""
        return "i.available_at, i.id" if self is Lane.FRESH else "i.id"


class Claimed(NamedTuple):
    """One attempt: an item that now runs, with what its handler needs. ``payload`` and ``params`` are JSON text."""

    item_id: int
    job_id: int
    key: str
    payload: str
    attempt: int
    task: str
    params: str
    job_created_at: int
    lane: Lane
    claimed_at: int


class _Job(NamedTuple):
    id: int
    task: str
    params: str
    priority: int
    created_at: int
    status: str
    policy: str


class Turns:
    """Whose turn it is: the last job served, for each priority. Memory only: a restart begins a new round."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def last(self, priority: int) -> int:
        """Return the id of the last job served at ``priority``."""
        return self._last.get(priority, 0)

    def served(self, priority: int, job_id: int) -> None:
        """Remember the last job served."""
        self._last[priority] = job_id


def claim(
    store: Store,
    connection: Connection,
    turns: Turns,
    *,
    limit: int,
    lane: Lane,
    tasks: Collection[str],
    daemon_id: int,
    now: int,
    actor: str,
) -> list[Claimed]:
    """Start up to ``limit`` items of ``lane`` and return them in the order in which they should run.

    Fewer than ``limit`` means that no more of them are due now.
    """
    claimed: list[Claimed] = []
    while len(claimed) < limit:
        picked = _pick(store, connection, turns, limit - len(claimed), lane, tasks, now)
        if not picked:
            break
        _start(store, connection, picked, daemon_id=daemon_id, now=now, actor=actor)
        claimed += [item for _, item in picked]
    return claimed


def _pick(
    store: Store, connection: Connection, turns: Turns, limit: int, lane: Lane, tasks: Collection[str], now: int
) -> list[tuple[_Job, Claimed]]:
    """Return one round: an equal share for each job whose turn it is, of the highest priority that has any."""
    ceiling: int | None = None
    while True:
        priority = _next_priority(store, connection, tasks, ceiling, now)
        if priority is None:
            return []
        picked: list[tuple[_Job, Claimed]] = []
        # Nearly always those whose turn it is have something. Where they have not (all of it is due later, or in
        # another lane), whoever has is looked for: its turn would not come while they keep theirs.
        for wanted in (None, lane):
            jobs = _in_turn(store, connection, turns, priority, limit, tasks, now, wanted)
            share = -(-limit // len(jobs)) if jobs else 0
            picked = _items(store, connection, jobs, share, lane, now)[:limit]
            if picked:
                turns.served(priority, picked[-1][0].id)
                return picked
        ceiling = priority


def tasks_due(store: Store, connection: Connection, tasks: Collection[str], now: int) -> set[str]:
    """Return those of ``tasks`` that have something to claim, as far as the first 500 jobs tell."""
    source = f"from jobs where {_due(store)} order by priority desc, id limit ?"
    found = connection.execute(
        f"select distinct task from (select task {source})",
        (now, store.pack([(task,) for task in tasks]), _JOBS_AT_ONCE),
    )
    return {row[0] for row in found.fetchall()}


def any_interrupted(connection: Connection) -> bool:
    """Say whether an item that was interrupted is queued."""
    return (
        connection.execute("select 1 from job_items where status = 'queued' and interruptions > 0 limit 1").fetchone()
        is not None
    )


def _due(store: Store) -> str:
    # An expression, not the column: the planner would take the index of (task, key) and pass over every job that the
    # task ever had.
    known = f"task || '' in (select task from {store.rows('task')} as t)"
    return f"{_CLAIMABLE} and (not_before is null or not_before <= ?) and {known}"


def _next_priority(
    store: Store, connection: Connection, tasks: Collection[str], below: int | None, now: int
) -> int | None:
    bound = "" if below is None else "and priority < ?"
    params = [now, store.pack([(task,) for task in tasks]), *([] if below is None else [below])]
    found = connection.execute(
        f"select priority from jobs where {_due(store)} {bound} order by priority desc limit 1",
        params,
    ).fetchone()
    return None if found is None else int(found[0])


def _in_turn(
    store: Store,
    connection: Connection,
    turns: Turns,
    priority: int,
    limit: int,
    tasks: Collection[str],
    now: int,
    lane: Lane | None,
) -> list[_Job]:
    """Return the jobs of one priority, from the one after the last served, round once.

    With ``lane`` only those of which an item of it is due.
    """
    last = turns.last(priority)
    known = store.pack([(task,) for task in tasks])
    most = min(limit, _JOBS_AT_ONCE)
    having = ""
    if lane is not None:
        item = f"select 1 from job_items as i where i.job_id = jobs.id and i.status = 'queued' and {lane.value}"
        having = f"and exists ({item})"
    jobs: list[_Job] = []
    for side in (">", "<="):
        source = f"from jobs where {_due(store)} and priority = ? and id {side} ? {having} order by id limit ?"
        params = (now, known, priority, last, *((now,) if having else ()), most - len(jobs))
        rows = store.gather(connection, _JOB_COLUMNS, source, params)
        jobs += [_Job(*row) for row in rows]
        if len(jobs) >= most:
            break
    return jobs


def _items(
    store: Store, connection: Connection, jobs: Sequence[_Job], share: int, lane: Lane, now: int
) -> list[tuple[_Job, Claimed]]:
    if not jobs:
        return []
    wanted = f"i.status = 'queued' and {lane.value} order by {lane.order} limit ?"
    if len(jobs) == 1:
        source = f"from job_items as i where i.job_id = ? and {wanted}"
        params: tuple[Any, ...] = (jobs[0].id, now, share)
    else:
        chosen = f"select i.id from job_items as i where i.job_id = j.job and {wanted}"
        source = f"from {store.rows('job')} as j join job_items as i on i.id in ({chosen})"
        params = (store.pack([(job.id,) for job in jobs]), now, share)
    by_id = {job.id: job for job in jobs}
    found = []
    for item_id, job_id, key, payload, attempt in store.gather(connection, _ITEM_COLUMNS, source, params):
        job = by_id[job_id]
        found.append(
            (
                job,
                Claimed(item_id, job_id, key, payload, attempt + 1, job.task, job.params, job.created_at, lane, now),
            )
        )
    return found


def _start(
    store: Store,
    connection: Connection,
    picked: Sequence[tuple[_Job, Claimed]],
    *,
    daemon_id: int,
    now: int,
    actor: str,
) -> None:
    _START.run(store, connection, [(item.item_id,) for _, item in picked], (daemon_id, now))
    first = {job.id: JobMove(job.id, job.status) for job, _ in picked if job.status == QUEUED}
    if first:
        move_jobs(store, connection, _START_JOB, list(first.values()), now=now, actor=actor, params=(now, now))
    counts = Counter(item.job_id for _, item in picked)
    count_moves(store, connection, counts, QUEUED, RUNNING, progress=None)


def queued_alone(store: Store, connection: Connection, tasks: Collection[str], now: int) -> bool:
    """Say whether an item that must run alone could be claimed now."""
    found = connection.execute(
        f"select 1 from job_items as i join jobs on jobs.id = i.job_id where i.status = 'queued' and {Lane.ALONE.value}"
        f" and {_DUE_OF_JOBS}"
        f" and task || '' in (select task from {store.rows('task')} as t) limit 1",
        (now, now, store.pack([(task,) for task in tasks])),
    ).fetchone()
    return found is not None


def next_due(connection: Connection, now: int) -> int | None:
    """Return when the next thing that waits for its time is due, in Unix ms; None if nothing waits."""
    item = connection.execute(
        "select min(available_at) from job_items where status = 'queued' and available_at > 0 and available_at > ?",
        (now,),
    ).fetchone()[0]
    job = connection.execute(
        "select min(not_before) from jobs where not_before is not null and completed_at is null and not_before > ?",
        (now,),
    ).fetchone()[0]
    return min((due for due in (item, job) if due is not None), default=None)
