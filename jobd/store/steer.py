"""What people ask of a whole job: cancel, retry, resume.

A request is committed first, which stops claiming; the items follow in batches, each its own transaction with its
counters and its event. A kill between two batches leaves a state that the same call, or the daemon, finishes.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Final

from jobd.errors import Conflict
from jobd.states import CANCELLED, FAILED, JOB_ENDS, QUEUED, WAITING
from jobd.store.ending import end_jobs
from jobd.store.requeue import ANEW
from jobd.store.transitions import (
    OPEN,
    Answer,
    Event,
    JobMove,
    Move,
    count_moves,
    job_move,
    move_jobs,
    note_job,
    record,
)
from jobd.store.verbs import Asked, asked, refusal, refuse_halves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobd.store.base import Connection, Store

BATCH: Final = 2_000
# Without it the next batch takes the lock back before a writer of another process has woken to try.
GAP_SECONDS: Final = 0.001

_CANCEL_SETS: Final = ("completed_at=?", "deadline_at=null")
_CANCEL_QUEUED: Final = Move("job_items", "cancel", CANCELLED, sets=_CANCEL_SETS, source=QUEUED)
_CANCEL_WAITING: Final = Move("job_items", "cancel", CANCELLED, sets=_CANCEL_SETS, source=WAITING)

_REQUEUE_FAILED: Final = Move("job_items", "requeue", QUEUED, sets=ANEW, source=FAILED)
_REQUEUE_CANCELLED: Final = Move("job_items", "requeue", QUEUED, sets=ANEW, source=CANCELLED)
_REOPEN: Final = job_move(
    "reopen", QUEUED, "completed_at=null", "cancel_requested_at=null", "fail_requested_at=null", "last_error=null",
    "status_message=null", "timeout_at=null", "retry_count=0",
)  # fmt: skip


# -- cancel -----------------------------------------------------------------------------------------------------------


def request_cancel(store: Store, job_id: int, *, now: int, actor: str, reason: str | None = None) -> Answer:
    """Commit the request, which stops claiming; :func:`work_off` does the work. A second request is replayed.

    Raises:
        NotFound: there is no such job.
        Conflict: the job is being submitted or deleted.
        IllegalTransition: it ended, and not as cancelled.
    """

    def request(connection: Connection) -> Answer:
        job = asked(connection, job_id)
        if job.status == CANCELLED:
            return Answer.REPLAYED
        if job.status in JOB_ENDS:
            raise refusal(job_id, job, "cancel")
        refuse_halves(job_id, job)
        # The guard is in the statement: where several daemons share a store, two requests may meet between the two.
        changed = connection.execute(
            f"update jobs set cancel_requested_at=? where id=? and cancel_requested_at is null and {OPEN}",
            (now, job_id),
        ).rowcount
        if not changed:
            return Answer.REPLAYED
        note_job(store, connection, job_id, "cancel", now=now, actor=actor, message=reason)
        return Answer.APPLIED

    answer = store.write(request)
    store.wake()
    return answer


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


def work_off(store: Store, job_id: int, *, now: int, actor: str, progress: Callable[[int], None] | None = None) -> int:
    """Cancel what a cancel or fail request finds queued or waiting, and return how many items that were.

    Running items are left to their daemon: they end by their own outcome. The job ends with its last open item, here
    or there. A job without such a request, or that ended, is left alone. ``progress`` is told the count so far after
    each commit.
    """
    count = 0
    for source, move in ((QUEUED, _CANCEL_QUEUED), (WAITING, _CANCEL_WAITING)):

        def cancel(connection: Connection, source: str = source, move: Move = move) -> int:
            return _cancel_batch(store, connection, job_id, source, move, now=now, actor=actor)

        while moved := store.write(cancel):
            count += moved
            if progress is not None:
                progress(count)
            time.sleep(GAP_SECONDS)
    store.wake()
    return count


def _cancel_batch(
    store: Store, connection: Connection, job_id: int, source: str, move: Move, *, now: int, actor: str
) -> int:
    job = asked(connection, job_id)
    if job.status in JOB_ENDS or not job.requested or job.submitting or job.deleting:
        return 0
    # The sign keeps the planner on the small index of waiting items: by the job it would pass over all its items.
    belongs = "job_id=?" if source == QUEUED else "+job_id=?"
    found = f"from job_items where {belongs} and status='{source}' limit {BATCH}"
    items = store.gather(connection, "id", found, (job_id,))
    moved = move.run(store, connection, items, (now,)) if items else 0
    if moved:
        count_moves(store, connection, {job_id: moved}, source, CANCELLED, progress=now)
        record(store, connection, [Event(job_id, None, "cancel", source, CANCELLED, now, actor, count=moved)])
    end_jobs(store, connection, [job_id], now=now, actor=actor)
    return moved


# -- retry and resume -------------------------------------------------------------------------------------------------


def retry(store: Store, job_id: int, *, now: int, actor: str) -> int:
    """Queue the job's failed items again, reopen it if it ended, and return how many items that were.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted, deleted or cancelled; what was queued again before stays so.
        IllegalTransition: no item of it is failed.
    """
    return _requeue(store, job_id, "retry", [_REQUEUE_FAILED], now=now, actor=actor)


def resume(store: Store, job_id: int, *, now: int, actor: str) -> int:
    """Queue the job's failed and cancelled items again, reopen it if it ended, and return how many items that were.

    Raises: what :func:`retry` raises.
    """
    return _requeue(store, job_id, "resume", [_REQUEUE_FAILED, _REQUEUE_CANCELLED], now=now, actor=actor)


def _requeue(store: Store, job_id: int, verb: str, moves: list[Move], *, now: int, actor: str) -> int:
    def find(connection: Connection) -> list[tuple[Move, array[int]]]:
        _check_whole(job_id, asked(connection, job_id))
        return [(move, _ids(connection, job_id, move.sources[0])) for move in moves]

    # Found once and outside the write lock: items that fail again while this runs are not taken a second time, and a
    # job of a million items does not keep others from writing while three are looked for.
    count = 0
    for move, ids in store.read(find):
        for batch in _batches(ids):

            def requeue(
                connection: Connection, move: Move = move, batch: array[int] = batch, begun: bool = count > 0
            ) -> int:
                return _requeue_batch(store, connection, job_id, move, batch, now=now, actor=actor, begun=begun)

            count += store.write(requeue)
            time.sleep(GAP_SECONDS)
    if not count:
        found = "no failed items" if verb == "retry" else "no failed or cancelled items"
        raise refusal(job_id, store.read(lambda connection: asked(connection, job_id)), verb, f" with {found}")
    store.wake()
    return count


def _check_whole(job_id: int, job: Asked) -> None:
    refuse_halves(job_id, job)
    if job.requested and job.status not in JOB_ENDS:
        raise Conflict(f"job {job_id} is still being cancelled", hint=f"jobd wait {job_id}, then again")


def _ids(connection: Connection, job_id: int, status: str) -> array[int]:
    # The status as text, not bound: only so does the planner take the partial index.
    rows = connection.execute(
        f"select id from job_items where job_id=? and status='{status}'",
        (job_id,),
    )
    return array("q", (row[0] for row in rows))


def _batches(ids: array[int]) -> Iterator[array[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _requeue_batch(
    store: Store, connection: Connection, job_id: int, move: Move, ids: array[int], *, now: int, actor: str, begun: bool
) -> int:
    job = asked(connection, job_id)
    _check_whole(job_id, job)
    if begun and job.status == CANCELLED:
        raise Conflict(f"job {job_id} was cancelled meanwhile")
    source = move.sources[0]
    chosen = f"(select id from {store.rows('id')} as m)"
    within = f"from job_items where id in {chosen} and status='{source}'"
    items = store.gather(connection, "id", within, (store.pack([(item_id,) for item_id in ids]),))
    if not items:
        return 0
    if job.status in JOB_ENDS:
        move_jobs(store, connection, _REOPEN, [JobMove(job_id, job.status)], now=now, actor=actor)
    else:
        connection.execute("update jobs set last_error=null where id=?", (job_id,))
    _drop_results(connection, job_id, chosen, store.pack(items), source, now=now, actor=actor)
    moved = move.run(store, connection, items)
    count_moves(store, connection, {job_id: moved}, source, QUEUED, progress=now)
    record(store, connection, [Event(job_id, None, "requeue", source, QUEUED, now, actor, count=moved)])
    return moved


def _drop_results(
    connection: Connection, job_id: int, chosen: str, items: str, source: str, *, now: int, actor: str
) -> None:
    """Delete what the items' former attempts left; an event of the item keeps a result's value."""
    connection.execute(
        "insert into job_events (job_id, item_id, name, from_status, to_status, at, actor, attempt, message)"
        f" select ?, item_id, 'requeue', ?, 'queued', ?, ?, attempt, value from results"
        f" where value is not null and item_id in {chosen}",
        (job_id, source, now, actor, items),
    )
    for table in ("results", "result_data", "item_output"):
        connection.execute(f"delete from {table} where item_id in {chosen}", (items,))
