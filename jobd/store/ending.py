"""How a job ends: decided in the transaction that settles its last open item, and nowhere else."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import CANCELLED, COMPLETED, FAILED, RUNNING
from jobd.store.contradicted import bring_in_line, failed_of
from jobd.store.counters import count_moves
from jobd.store.links import freed_empty, leave_untold
from jobd.store.transitions import OPEN, JobMove, Move, job_move, move_alike, move_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobd.store.base import Connection, Store

# What completed without a warning has no error to show.
_HAPPY: Final = (
    "completed_at=?", "status_message=null", "timeout_at=null",
    "last_error=case when items_failed > 0 then last_error end",
)  # fmt: skip
_COMPLETE: Final = job_move("complete", COMPLETED, *_HAPPY)
_COMPLETE_WITH: Final = job_move(
    "complete", COMPLETED, *_HAPPY,
    "items_running=items_running-?", "items_completed=items_completed+?", "progress_at=?",
)  # fmt: skip
_FAIL: Final = job_move("fail", FAILED, "completed_at=?", "timeout_at=null")
_CANCEL: Final = job_move("cancel", CANCELLED, "completed_at=?", "timeout_at=null")

_OPEN: Final = "items_total > items_completed + items_failed + items_skipped + items_cancelled"
# What was asked to end does not wait any more; and what has had its items, has had them.
_MAY: Final = "(blocked = 0 or items_total > 0 or cancel_requested_at is not null or fail_requested_at is not null)"
_GENERATIONS: Final = 50
_COLUMNS: Final = (
    "id, status, items_total, items_failed, items_cancelled, tolerance, "
    "cancel_requested_at is not null as cancelling, fail_requested_at is not null as failing, blocked"
)


class _Job(NamedTuple):
    id: int
    status: str
    total: int
    failed: int
    cancelled: int
    tolerance: str
    cancelling: int
    failing: int
    blocked: int

    @property
    def in_vain(self) -> bool:
        """Whether it has no items, and waits for another job still: then it was asked to end."""
        return not self.total and self.blocked > 0


class Ended(NamedTuple):
    """A job that ended: what it was before, and how."""

    job_id: int
    before: str
    status: str
    message: str | None


# Whose last open items these are, so many of each, and of which nothing can be said but that it completed: were one
# failed, waiting or queued, the sum would be less.
_WHOLE: Final = (
    f"status = 'running' and {OPEN} and sealed_at is not null and deleted_at is null"
    " and cancel_requested_at is null and fail_requested_at is null"
    " and items_total = items_completed + items_skipped + items_cancelled + ?"
)


def count_completed(
    store: Store, connection: Connection, completed: Mapping[int, int], *, now: int, actor: str
) -> list[Ended]:
    """Move the counters of jobs with so many of their running items, which have completed; return the jobs that end
    with them, as nothing of them has failed and nobody has asked for anything.

    Of jobs of one item each that is all of them, and one statement for what counters and an end take apart. The others
    are :func:`end_jobs`'s.
    """
    alike: dict[int, list[tuple[int]]] = {}
    for job_id, count in completed.items():
        alike.setdefault(count, []).append((job_id,))
    source = f"from jobs where id in (select id from {store.rows('id')} as m) and {_WHOLE}"
    ended: list[Ended] = []
    for count, ids in alike.items():
        whole = [row[0] for row in store.gather(connection, "id", source, (store.pack(ids), count))]
        if whole:
            params = (now, count, count, now)
            move_alike(store, connection, _COMPLETE_WITH, whole, RUNNING, now=now, actor=actor, params=params)
            store.news.moved("items", COMPLETED, count * len(whole))
            ended += [Ended(job_id, RUNNING, COMPLETED, None) for job_id in whole]
    left = dict(completed)
    for job in ended:
        del left[job.job_id]
    if left:
        count_moves(store, connection, left, RUNNING, COMPLETED, progress=now)
    return ended


def end_jobs(
    store: Store, connection: Connection, job_ids: Iterable[int], *, now: int, actor: str, check_only: bool = False,
    before: Sequence[Ended] = (),
) -> list[Ended]:  # fmt: skip
    """End those of ``job_ids`` that have nothing open, and return them; with ``check_only`` those that would end.

    ``before`` have ended in this transaction already: they are returned, too, and what comes after them is looked at.

    A job whose items are still being submitted, or that is being deleted, does not end. One without items ends when
    what it comes after has, in the same transaction; of a long row of those the rest follows as those do that fall.
    """
    found = _end(store, connection, job_ids, now=now, actor=actor, check_only=check_only)
    ended = found = [*before, *found]
    for _ in range(_GENERATIONS):
        if check_only or not found or not store.news.linked:
            break
        freed = freed_empty(store, connection, [job.job_id for job in found])
        found = _end(store, connection, freed, now=now, actor=actor, check_only=False)
        ended = ended + found
    else:
        leave_untold(store, connection, [job.job_id for job in found], now)
    return ended


def _end(
    store: Store, connection: Connection, job_ids: Iterable[int], *, now: int, actor: str, check_only: bool
) -> list[Ended]:
    ids = [(job_id,) for job_id in job_ids]
    if not ids:
        return []
    params = (store.pack(ids),)
    source = (
        f"from jobs where id in (select id from {store.rows('id')} as m) and {OPEN}"
        f" and sealed_at is not null and deleted_at is null and not ({_OPEN}) and {_MAY}"
    )
    found = [_Job(*row) for row in store.gather(connection, _COLUMNS, source, params)]
    found = _healed(store, connection, found, now=now, actor=actor, check_only=check_only)
    moves: dict[Move, list[JobMove]] = {_COMPLETE: [], _FAIL: [], _CANCEL: []}
    ended = []
    for job in found:
        move, message = _ending(job)
        moves[move].append(JobMove(job.id, job.status, message))
        ended.append(Ended(job.id, job.status, move.target, message))
    for move, jobs in moves.items():
        if jobs and not check_only:
            move_jobs(store, connection, move, jobs, now=now, actor=actor, params=(now,))
    return ended


def _healed(
    store: Store, connection: Connection, found: list[_Job], *, now: int, actor: str, check_only: bool
) -> list[_Job]:
    """Return jobs that are about to end without the failures that were none: those items' results are stored."""
    doubtful = [job.id for job in found if job.failed]
    falsely = failed_of(store, connection, doubtful) if doubtful else []
    if not check_only:
        falsely = bring_in_line(store, connection, falsely, now=now, actor=actor)
    counts = Counter(item.job_id for item in falsely)
    return [job._replace(failed=job.failed - counts[job.id]) for job in found]


_AGAIN: Final = {
    COMPLETED: job_move(
        "reconcile", COMPLETED, "status_message=null", "last_error=case when items_failed > 0 then last_error end"
    ),
    FAILED: job_move("reconcile", FAILED),
}


def decide_anew(store: Store, connection: Connection, job_ids: Iterable[int], *, now: int, actor: str) -> None:
    """Let jobs that have completed or failed end as their items now say; a cancelled one stays."""
    source = (
        f"from jobs where id in (select id from {store.rows('id')} as m)"
        f" and (status = 'completed' or status = 'failed') and deleted_at is null and not ({_OPEN})"
    )
    params = (store.pack([(job_id,) for job_id in job_ids]),)
    for row in store.gather(connection, _COLUMNS, source, params):
        job = _Job(*row)
        end, message = _ending(job)
        if end.target != job.status and end.target in _AGAIN:
            move = _AGAIN[end.target]
            move_jobs(store, connection, move, [JobMove(job.id, job.status, message)], now=now, actor=actor)
            if store.news.linked:
                end_jobs(store, connection, freed_empty(store, connection, [job.id]), now=now, actor=actor)


def finished_but_open(store: Store) -> list[int]:
    """Return the jobs that have not ended though nothing of them is open. Of 100,000 open jobs it takes 40 ms."""
    text = (
        f"select id from jobs where {OPEN} and sealed_at is not null and deleted_at is null"
        f" and not ({_OPEN}) and {_MAY}"
    )
    return [row[0] for row in store.read(lambda connection: connection.execute(text).fetchall())]


def _ending(job: _Job) -> tuple[Move, str | None]:
    failed = f"{job.failed:,} of {job.total:,} items failed"
    if job.failing and (job.failed or job.cancelled or job.in_vain):
        return _FAIL, "by request"
    if job.cancelling and job.cancelled:
        return _CANCEL, f"{job.cancelled:,} of {job.total:,} items cancelled"
    if job.cancelling and job.in_vain:
        return _CANCEL, "no items"
    if exceeds(job.tolerance, job.failed, job.total):
        return _FAIL, failed
    if not job.total:
        return _COMPLETE, "no items"
    return _COMPLETE, f"with warnings: {failed}" if job.failed else None


def exceeds(tolerance: str, failed: int, total: int) -> bool:
    """Say whether more items failed than ``tolerance`` allows: a count, or a percentage of all of them."""
    if tolerance.endswith("%"):
        # In whole numbers: as floats 0.57 % of 10,000 items are a little less than 57 of them.
        whole, _, part = tolerance[:-1].partition(".")
        return failed * int("100" + "0" * len(part)) > int(whole + part) * total
    return failed > int(tolerance)
