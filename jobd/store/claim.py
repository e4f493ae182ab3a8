"""How queued items become running ones: by priority, jobs of one priority in turn, in few statements.

The dispatcher asks for a number of items in one of the lanes. ``FRESH`` items may be claimed ahead of a free slot;
an item that was interrupted once (``CAREFUL``) only into a free slot; one that was interrupted twice or more
(``ALONE``) only when nothing else runs, so that what kills the process is found out. Where each item has a process of
its own, what was interrupted however often goes into free slots (``INTERRUPTED``).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from jobd.states import RUNNING
from jobd.store.held import MOST, hold_back, lift, sweep
from jobd.store.ready import ClaimedJob, Standing, Turns, in_turn, survey
from jobd.store.start import start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.taken import Taken

__all__ = ["Claimed", "ClaimedJob", "Lane", "Turns", "claim", "claim_interrupted"]

_ITEM_COLUMNS: Final = (
    "i.id as id, i.job_id as job_id, i.key as key, i.payload as payload, i.attempt as attempt, i.failures as failures"
)
_JOBS_AT_ONCE: Final = 500


class Lane(enum.Enum):
    """Which queued items ``i`` a claim takes; ``?`` is the time.

    The two of interrupted items carry the terms of job_items_interrupted and keep the planner from job_items_queued
    (the sign): by that one it would pass over every fresh item of the job.
    """

    FRESH = "i.available_at <= ? and i.interruptions = 0"
    CAREFUL = "i.interruptions > 0 and i.interruptions = 1 and +i.available_at <= ?"
    ALONE = "i.interruptions > 0 and i.interruptions > 1 and +i.available_at <= ?"
    INTERRUPTED = "i.interruptions > 0 and +i.available_at <= ?"

    def __init__(self, where: str) -> None:
        # The order in which its index has them. Kept: an enumeration's value and properties are looked up in Python.
        order = "i.id" if "interruptions > 0" in where else "i.available_at, i.id"
        self.wanted = f"i.status = 'queued' and {where} order by {order} limit ?"


class Bounded(Protocol):
    """What a claim may take of jobs that have bounds of their own: nothing more of those that are ``full``."""

    full: set[int]

    def within(self, picked: list[tuple[ClaimedJob, Claimed]]) -> list[tuple[ClaimedJob, Claimed]]:
        """Return what of ``picked`` there is room for, and take it off; a job without room is full from then on."""


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
    refresh: bool = False  # its result takes its period over from an older one
    failures: int = 0  # of earlier attempts
    policy: str = "{}"  # what the job says itself, JSON


def claim(
    store: Store,
    connection: Connection,
    turns: Turns,
    *,
    limit: int,
    tasks: Collection[str],
    daemon_id: int,
    now: int,
    actor: str,
    taken: Taken | None = None,
    room: dict[str, int] | None = None,
    bounded: Bounded | None = None,
) -> list[Claimed]:
    """Start up to ``limit`` fresh items of ``tasks`` and return them in the order in which they should run.

    Of the tasks in ``room`` no more than that many are started; what is, is taken off it. ``bounded`` says the same of
    jobs.

    Fewer than ``limit`` means that no more of them are due before ``turns.due``, unless ``turns.tired`` says that there
    were too many jobs in the way to know, or ``taken``, which keeps what need not run from running, is full: then the
    next claim goes on behind them.
    """
    claimed: list[Claimed] = []
    budget = MOST
    turns.tired = False
    room = {} if room is None else room
    while len(claimed) < limit and not (taken is not None and taken.full):
        tasks = _with_room(tasks, room)
        full = bounded.full if bounded is not None else ()
        standing, budget = _survey(store, connection, turns, tasks, full, budget, now)
        priority = max((task.priority for task in standing if task.priority is not None), default=None)
        if priority is None:
            break
        theirs = [task.task for task in standing if task.priority == priority]
        most = min(limit - len(claimed), _JOBS_AT_ONCE)
        jobs = in_turn(store, connection, turns, theirs, priority, most, full)
        before = len(full)
        picked, barren = _pick(store, connection, jobs, limit - len(claimed), Lane.FRESH, now)
        picked = _within(picked, room, bounded)
        # They may come in crowds, too.
        budget -= len(full) - before
        if picked:
            turns.served(priority, picked[-1][0].id)
            claimed += start(store, connection, picked, taken, daemon_id=daemon_id, now=now, actor=actor)
            if not turns.tired and len(jobs) < most and _all(standing, jobs, picked):
                break
        elif budget <= 0:
            turns.tired = True
            break
        if barren and budget > 0:
            budget -= hold_back(store, connection, barren[:budget], now)
            if not picked:
                # They come in crowds.
                sweep(store, connection, theirs, priority, jobs[-1].id, budget, now)
                budget = 0
    return claimed


def claim_interrupted(
    store: Store,
    connection: Connection,
    turns: Turns,
    jobs: Iterable[ClaimedJob],
    *,
    limit: int,
    lane: Lane,
    daemon_id: int,
    now: int,
    actor: str,
    taken: Taken | None = None,
    room: dict[str, int] | None = None,
    bounded: Bounded | None = None,
) -> list[Claimed]:
    """Start up to ``limit`` items of ``lane`` of these jobs and return them in the order in which they should run."""
    claimed: list[Claimed] = []
    room = {} if room is None else room
    by_priority: dict[int, list[ClaimedJob]] = {}
    for job in jobs:
        by_priority.setdefault(job.priority, []).append(job)
    for priority in sorted(by_priority, reverse=True):
        group = by_priority[priority]
        while len(claimed) < limit and not (taken is not None and taken.full):
            last = turns.last(priority)
            group.sort(key=lambda job: (job.id <= last, job.id))
            full = bounded.full if bounded is not None else ()
            group = [job for job in group if room.get(job.task, 1) > 0 and job.id not in full]
            picked, _ = _pick(store, connection, group, limit - len(claimed), lane, now)
            before = len(full)
            picked = _within(picked, room, bounded)
            if not picked and len(full) > before:
                continue
            if not picked:
                break
            turns.served(priority, picked[-1][0].id)
            started = start(store, connection, picked, taken, daemon_id=daemon_id, now=now, actor=actor)
            claimed += started
            begun = {item.job_id for item in started}
            group = [job._replace(status=RUNNING) if job.id in begun else job for job in group]
    return claimed


def _survey(
    store: Store,
    connection: Connection,
    turns: Turns,
    tasks: Collection[str],
    full: Collection[int],
    budget: int,
    now: int,
) -> tuple[Sequence[Standing], int]:
    """Return how each task stands after what is due was lifted, and what that leaves of ``budget``.

    ``turns`` is told when the next that is held back is due.
    """
    standing = survey(store, connection, tasks, full)
    if budget > 0 and (due := [task.task for task in standing if task.is_due(now)]):
        budget -= lift(store, connection, due, budget, now)
        standing = survey(store, connection, tasks, full)
    turns.due = min((task.later for task in standing if task.later is not None), default=None)
    turns.tired = turns.due is not None and turns.due <= now
    return standing, budget


def _all(standing: Iterable[Standing], jobs: Sequence[ClaimedJob], picked: Sequence[object]) -> bool:
    """Say whether everything that was ready has been picked, where ``jobs`` are all of their priority: then there is
    no need to look again.
    """
    priorities = {priority for task in standing for priority in (task.priority, task.lowest)} - {None}
    return len(priorities) == 1 and len(picked) == sum([job.queued for job in jobs])


def _with_room(tasks: Collection[str], room: Mapping[str, int]) -> Collection[str]:
    return [task for task in tasks if room.get(task, 1) > 0] if room else tasks


def _within(
    picked: list[tuple[ClaimedJob, Claimed]], room: dict[str, int], bounded: Bounded | None
) -> list[tuple[ClaimedJob, Claimed]]:
    """Return what of a round there is room for, and take it off."""
    if bounded is not None:
        picked = bounded.within(picked)
    if not room:
        return picked
    kept = []
    for job, item in picked:
        left = room.get(job.task)
        if left is None or left > 0:
            kept.append((job, item))
            if left is not None:
                room[job.task] = left - 1
    return kept


def _pick(
    store: Store, connection: Connection, jobs: Sequence[ClaimedJob], limit: int, lane: Lane, now: int
) -> tuple[list[tuple[ClaimedJob, Claimed]], list[ClaimedJob]]:
    """Return one round, an equal share of each job, and those jobs of which nothing is due."""
    open_ = [job for job in jobs if not job.waits(now)]
    picked = _items(store, connection, open_, limit, lane, now)
    if len(picked) >= limit:
        # Whoever comes after the last one was not looked at.
        jobs = jobs[: jobs.index(picked[-1][0])]
    given = {job.id for job, _ in picked}
    return picked, [job for job in jobs if job.id not in given]


def _items(
    store: Store, connection: Connection, jobs: Sequence[ClaimedJob], limit: int, lane: Lane, now: int
) -> list[tuple[ClaimedJob, Claimed]]:
    """Return up to ``limit`` items in the order of ``jobs``, of each an equal share at most."""
    if not jobs:
        return []
    if len(jobs) == 1:
        source = f"from job_items as i where i.job_id = ? and {lane.wanted}"
        params: tuple[Any, ...] = (jobs[0].id, now, limit)
    else:
        chosen = f"select i.id from job_items as i where i.job_id = j.job and {lane.wanted}"
        source = f"from {store.rows('job')} as j join job_items as i on i.id in ({chosen}) limit ?"
        params = (store.pack([(job.id,) for job in jobs]), now, -(-limit // len(jobs)), limit)
    by_id = {job.id: job for job in jobs}
    found = []
    for item_id, job_id, key, payload, attempt, failures in store.gather(connection, _ITEM_COLUMNS, source, params):
        job = by_id[job_id]
        item = Claimed(
            item_id, job_id, key, payload, attempt + 1, job.task, job.params, job.created_at, lane, now,
            False, failures, job.policy,
        )  # fmt: skip
        found.append((job, item))
    return found
