"""What people ask of a job that has failed or was cancelled, or of which a part was: retry, resume.

The items follow in batches, each its own transaction with its counters and its event. A kill between two of them leaves
a state that the same call finishes.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from jobd.errors import Conflict
from jobd.states import CANCELLED, FAILED, QUEUED
from jobd.store.batches import BATCH, Pace, breathe
from jobd.store.counters import count_moves
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record
from jobd.store.links import BLOCKED
from jobd.store.requeue import ANEW
from jobd.store.transitions import JobMove, Move, job_move, move_jobs
from jobd.store.verbs import Asked, asked, refusal, refuse_halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store

_REQUEUE_FAILED: Final = Move("job_items", "requeue", QUEUED, sets=ANEW, source=FAILED)
_REQUEUE_CANCELLED: Final = Move("job_items", "requeue", QUEUED, sets=ANEW, source=CANCELLED)
_REOPEN: Final = job_move(
    "reopen", QUEUED, "completed_at=null", "cancel_requested_at=null", "fail_requested_at=null", "last_error=null",
    "status_message=null", "paused_at=null", "timeout_at=null", "retry_count=0", "values_pruned_at=null",
    f"blocked={BLOCKED}",
)  # fmt: skip


def retry(store: Store, job_id: int, *, now: int, actor: str, progress: Callable[[int], None] | None = None) -> int:
    """Queue the job's failed items again, reopen it if it ended, and return how many items that were.

    ``progress`` is told the count so far after each commit.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted, deleted, cancelled or failed; what was queued again before stays so.
        IllegalTransition: no item of it is failed.
    """
    return _requeue(store, job_id, "retry", [_REQUEUE_FAILED], now=now, actor=actor, progress=progress)


def resume(store: Store, job_id: int, *, now: int, actor: str, progress: Callable[[int], None] | None = None) -> int:
    """Queue the job's failed and cancelled items again, reopen it if it ended, and return how many items that were.

    Raises: what :func:`retry` raises.
    """
    moves = [_REQUEUE_FAILED, _REQUEUE_CANCELLED]
    return _requeue(store, job_id, "resume", moves, now=now, actor=actor, progress=progress)


def bring_back(
    store: Store, job_id: int, still: Callable[[Connection], bool], *, now: int, actor: str, message: str
) -> int:
    """Queue a job's cancelled items again and reopen it, for as long as ``still`` says so; return how many items.

    Raises: what :func:`retry` raises.
    """
    return _requeue(store, job_id, "resume", [_REQUEUE_CANCELLED], now=now, actor=actor, message=message, still=still)


def bring_back_in(store: Store, connection: Connection, job_id: int, *, now: int, actor: str, message: str) -> int:
    """Do the same in the caller's transaction with a job that has few such items, or none at all."""
    ids = _ids(connection, job_id, CANCELLED)
    if ids:
        return _requeue_batch(
            store, connection, job_id, _REQUEUE_CANCELLED, ids, now=now, actor=actor, begun=False, message=message
        )
    job = asked(connection, job_id)
    if not job.open:
        move_jobs(store, connection, _REOPEN, [JobMove(job_id, job.status, message)], now=now, actor=actor)
        end_jobs(store, connection, [job_id], now=now, actor=actor)
    return 0


def _requeue(
    store: Store,
    job_id: int,
    verb: str,
    moves: list[Move],
    *,
    now: int,
    actor: str,
    progress: Callable[[int], None] | None = None,
    message: str | None = None,
    still: Callable[[Connection], bool] | None = None,
) -> int:
    def find(connection: Connection) -> list[tuple[Move, array[int]]]:
        _check_whole(job_id, asked(connection, job_id))
        return [(move, _ids(connection, job_id, move.sources[0])) for move in moves]

    # Found once and outside the write lock: items that fail again while this runs are not taken a second time, and a
    # job of a million items does not keep others from writing while three are looked for.
    count, pace = 0, Pace(BATCH)
    for move, ids in store.read(find):
        taken = 0
        while taken < len(ids):
            batch = ids[taken : taken + pace.size]
            taken += len(batch)

            def requeue(
                connection: Connection, _: int, move: Move = move, batch: array[int] = batch, begun: bool = count > 0
            ) -> int:
                if still is not None and not still(connection):
                    raise Conflict(f"job {job_id} is not to come back any more")
                return _requeue_batch(
                    store, connection, job_id, move, batch, now=now, actor=actor, begun=begun, message=message
                )

            count += pace.write(store, requeue)
            if progress is not None:
                progress(count)
            breathe()
    if not count:
        found = "no failed items" if verb == "retry" else "no failed or cancelled items"
        raise refusal(job_id, store.read(lambda connection: asked(connection, job_id)), verb, f" with {found}")
    store.wake()
    return count


def _check_whole(job_id: int, job: Asked) -> None:
    refuse_halves(job_id, job)
    if job.lost_parent is not None:
        raise Conflict(
            f"job {job_id} comes after job {job.lost_parent}, which has failed or was cancelled",
            hint=f"jobd resume {job.lost_parent}, and what fell with it comes back by itself",
        )
    if job.requested and job.open:
        word = "failed" if job.failing else "cancelled"
        raise Conflict(f"job {job_id} is still being {word}", hint=f"jobd wait {job_id}, then again")


def _ids(connection: Connection, job_id: int, status: str) -> array[int]:
    # The status as text, not bound: only so does the planner take the partial index.
    rows = connection.execute(
        f"select id from job_items where job_id=? and status='{status}'",
        (job_id,),
    )
    # In the order in which they lie: an index may have them by key, and each would be on a page of its own.
    return array("q", sorted(row[0] for row in rows))


def _requeue_batch(
    store: Store,
    connection: Connection,
    job_id: int,
    move: Move,
    ids: array[int],
    *,
    now: int,
    actor: str,
    begun: bool,
    message: str | None = None,
) -> int:
    job = asked(connection, job_id)
    _check_whole(job_id, job)
    if begun and job.requested:
        # The reopening has taken the requests away: this one came between two batches.
        raise Conflict(f"job {job_id} was {job.status} meanwhile")
    source = move.sources[0]
    chosen = f"(select id from {store.rows('id')} as m)"
    within = f"from job_items where id in {chosen} and status='{source}'"
    items = store.gather(connection, "id", within, (store.pack([(item_id,) for item_id in ids]),))
    if not items:
        return 0
    if not job.open:
        move_jobs(store, connection, _REOPEN, [JobMove(job_id, job.status, message)], now=now, actor=actor)
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
    for table in ("results", "result_data", "item_output", "command_output"):
        connection.execute(f"delete from {table} where item_id in {chosen}", (items,))
