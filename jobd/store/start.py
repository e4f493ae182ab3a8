"""How what a claim has picked becomes running: its items, and with their first items their jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import QUEUED, RUNNING
from jobd.store.counters import count_moves
from jobd.store.transitions import Move, job_move, move_alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.claim import Claimed, ClaimedJob
    from jobd.store.taken import Taken

_START: Final = Move(
    "job_items",
    "start",
    RUNNING,
    sets=("attempt=attempt+1", "daemon_id=?", "started_at=?", "completed_at=null", "progress=null", "available_at=0"),
)
_START_JOB: Final = job_move(
    "start", RUNNING, "started_at=coalesce(started_at, ?)", "progress_at=?", "timeout_at=? + job_timeout_ms",
    # Not by count_moves: a job of one item is written once where it starts with its item.
    "items_running=items_running+?",
)  # fmt: skip


def start(
    store: Store,
    connection: Connection,
    picked: Sequence[tuple[ClaimedJob, Claimed]],
    taken: Taken | None,
    *,
    daemon_id: int,
    now: int,
    actor: str,
) -> list[Claimed]:
    """Start what is picked, but for what ``taken`` leaves out, and return it."""
    if taken is not None:
        picked = taken.without(picked)
    if not picked:
        return []
    _START.run(store, connection, [(item.item_id,) for _, item in picked], (daemon_id, now))
    counts: dict[int, int] = {}
    for _, item in picked:
        counts[item.job_id] = counts.get(item.job_id, 0) + 1
    _start_jobs(store, connection, picked, counts, now=now, actor=actor)
    if counts:
        count_moves(store, connection, counts, QUEUED, RUNNING, progress=None)
    return [item for _, item in picked]


def _start_jobs(
    store: Store,
    connection: Connection,
    picked: Sequence[tuple[ClaimedJob, Claimed]],
    counts: dict[int, int],
    *,
    now: int,
    actor: str,
) -> None:
    """Start the jobs of which these are the first items, each in one statement with its counter, and take them off
    ``counts``.
    """
    alike: dict[int, list[int]] = {}
    for job_id in {job.id: None for job, _ in picked if job.status == QUEUED}:
        alike.setdefault(counts.pop(job_id), []).append(job_id)
    for count, jobs in alike.items():
        params = (now, now, now, count)
        move_alike(store, connection, _START_JOB, jobs, QUEUED, now=now, actor=actor, params=params)
        store.news.moved("items", RUNNING, count * len(jobs))
