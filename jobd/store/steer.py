"""What people ask of a whole job that has not ended: cancel, fail.

A request is committed first, which stops claiming; the items follow in batches, each its own transaction with its
counters and its event. A kill between two batches leaves a state that the same call, or the daemon, finishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import CANCELLED, FAILED, QUEUED, WAITING
from jobd.store.batches import BATCH, Pace, always, in_batches
from jobd.store.counters import count_moves
from jobd.store.ending import end_jobs
from jobd.store.events import Event, note_job, record
from jobd.store.transitions import OPEN, Answer, Move
from jobd.store.verbs import asked, refusal, refuse_halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store

_CANCEL_SETS: Final = ("completed_at=?", "deadline_at=null")
_CANCEL_QUEUED: Final = Move("job_items", "cancel", CANCELLED, sets=_CANCEL_SETS, source=QUEUED)
_CANCEL_WAITING: Final = Move("job_items", "cancel", CANCELLED, sets=_CANCEL_SETS, source=WAITING)

# The guards are in the statements: where several daemons share a store, two requests may meet between look and write.
_ASK_CANCEL: Final = (
    "update jobs set cancel_requested_at=?"
    f" where id=? and cancel_requested_at is null and fail_requested_at is null and {OPEN}"
)
_ASK_FAIL: Final = (
    f"update jobs set fail_requested_at=?, status_message=? where id=? and fail_requested_at is null and {OPEN}"
)


# -- requests ---------------------------------------------------------------------------------------------------------


def request_cancel(store: Store, job_id: int, *, now: int, actor: str, reason: str | None = None) -> Answer:
    """Commit the request, which stops claiming; :func:`work_off` does the work. A second request is replayed.

    So is one for a job that is being failed: what a cancel asks for is under way.

    Raises:
        NotFound: there is no such job.
        Conflict: the job is being submitted or deleted.
        IllegalTransition: it ended, and not as cancelled.
    """

    def request(connection: Connection) -> Answer:
        return _request(store, connection, job_id, "cancel", CANCELLED, now=now, actor=actor, reason=reason)

    answer = store.write(request)
    store.wake()
    return answer


def request_fail(store: Store, job_id: int, *, now: int, actor: str, reason: str) -> Answer:
    """Commit the request, which stops claiming; :func:`work_off` does the work. A second request is replayed.

    A job that is being cancelled is failed instead.

    Raises:
        NotFound: there is no such job.
        Conflict: the job is being submitted or deleted.
        IllegalTransition: it ended, and not as failed.
    """
    answer = store.write(
        lambda connection: fail_in(store, connection, job_id, now=now, actor=actor, reason=reason),
    )
    store.wake()
    return answer


def fail_in(store: Store, connection: Connection, job_id: int, *, now: int, actor: str, reason: str) -> Answer:
    """Do what :func:`request_fail` does in the caller's transaction; nobody is woken."""
    return _request(store, connection, job_id, "fail", FAILED, now=now, actor=actor, reason=reason)


def _request(
    store: Store,
    connection: Connection,
    job_id: int,
    verb: str,
    target: str,
    *,
    now: int,
    actor: str,
    reason: str | None,
) -> Answer:
    job = asked(connection, job_id)
    # If it fell with a job that it comes after, it would come back with that: what a person asks for stays.
    connection.execute("update job_dependencies set cancelled_at = null where job_id = ?", (job_id,))
    if job.status == target:
        return Answer.REPLAYED
    if not job.open:
        raise refusal(job_id, job, verb)
    refuse_halves(job_id, job)
    if verb == "fail":
        changed = connection.execute(_ASK_FAIL, (now, reason, job_id)).rowcount
    else:
        changed = connection.execute(_ASK_CANCEL, (now, job_id)).rowcount
    if not changed:
        return Answer.REPLAYED
    note_job(store, connection, job_id, verb, now=now, actor=actor, message=reason)
    return Answer.APPLIED


def open_requests(store: Store) -> list[int]:
    """Return the jobs whose cancel or fail request is not worked off yet."""

    def find(connection: Connection) -> list[int]:
        # The condition in brackets is that of the index jobs_requested, word for word: only so is it used.
        rows = connection.execute(
            f"select id from jobs where (deleted_at is not null or sealed_at is null or (completed_at is null"
            " and (cancel_requested_at is not null or fail_requested_at is not null)))"
            f" and {OPEN} and coalesce(cancel_requested_at, fail_requested_at) is not null"
            " and sealed_at is not null and deleted_at is null order by id"
        ).fetchall()
        return [row[0] for row in rows]

    return store.read(find)


# -- the work ---------------------------------------------------------------------------------------------------------


def work_off(
    store: Store,
    job_id: int,
    *,
    now: int,
    actor: str,
    progress: Callable[[int], None] | None = None,
    go_on: Callable[[], bool] = always,
) -> int:
    """Cancel what a cancel or fail request finds queued or waiting, and return how many items that were.

    Running items are left to their daemon: they end by their own outcome. The job ends with its last open item, here
    or there. A job without such a request, or that ended, is left alone. ``progress`` is told the count so far after
    each commit. Where ``go_on`` says no between two of them, the rest is left to the next call.
    """
    pace = Pace(BATCH)

    def cancel(connection: Connection, size: int) -> int:
        return cancel_in(store, connection, job_id, size, now=now, actor=actor)

    count = in_batches(lambda: pace.write(store, cancel), go_on=go_on, progress=progress)
    store.wake()
    return count


def cancel_in(store: Store, connection: Connection, job_id: int, size: int, *, now: int, actor: str) -> int:
    """Do one batch of :func:`work_off`, of up to ``size`` items, in the caller's transaction."""
    for source, move in ((QUEUED, _CANCEL_QUEUED), (WAITING, _CANCEL_WAITING)):
        moved = _cancel_batch(store, connection, job_id, source, move, size, now=now, actor=actor)
        if moved:
            return moved
    return 0


def _cancel_batch(
    store: Store, connection: Connection, job_id: int, source: str, move: Move, size: int, *, now: int, actor: str
) -> int:
    job = asked(connection, job_id)
    if not job.open or not job.requested or job.submitting or job.deleting:
        return 0
    # The sign keeps the planner on the small index of waiting items: by the job it would pass over all its items.
    belongs = "job_id=?" if source == QUEUED else "+job_id=?"
    found = f"from job_items where {belongs} and status='{source}' limit {size}"
    items = store.gather(connection, "id", found, (job_id,))
    moved = move.run(store, connection, items, (now,)) if items else 0
    if moved:
        count_moves(store, connection, {job_id: moved}, source, CANCELLED, progress=now)
        record(store, connection, [Event(job_id, None, "cancel", source, CANCELLED, now, actor, count=moved)])
    end_jobs(store, connection, [job_id], now=now, actor=actor)
    return moved
