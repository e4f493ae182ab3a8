"""pause and unpause: nothing more of a job starts until somebody lets it; what runs ends, its clock stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.store.events import note_job
from jobd.store.lost_time import move_job, move_waiting
from jobd.store.transitions import OPEN, Answer
from jobd.store.verbs import Asked, asked, refusal, refuse_halves

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store

# The guards are in the statements: where several daemons share a store, two requests may meet between look and write.
_PAUSE: Final = (
    f"update jobs set paused_at=? where id=? and paused_at is null and {OPEN}"
    " and cancel_requested_at is null and fail_requested_at is null"
)
_UNPAUSE: Final = "update jobs set paused_at=null where id=? and paused_at=?"


def pause(store: Store, job_id: int, *, now: int, actor: str, reason: str | None = None) -> Answer:
    """Stop the claiming of a job's items. A second pause is replayed.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted or deleted.
        IllegalTransition: it ended, or is being cancelled or failed.
    """

    def work(connection: Connection) -> Answer:
        job = asked(connection, job_id)
        _check(job_id, job, "pause")
        if not connection.execute(_PAUSE, (now, job_id)).rowcount:
            return Answer.REPLAYED
        note_job(store, connection, job_id, "pause", now=now, actor=actor, message=reason)
        return Answer.APPLIED

    return store.write(work)


def unpause(store: Store, job_id: int, *, now: int, actor: str) -> Answer:
    """Let a job go on; its deadlines move by the whole pause. Where it is not paused, that is replayed.

    Raises:
        NotFound: there is no such job.
        Conflict: it is being submitted or deleted.
        IllegalTransition: it ended, or is being cancelled or failed.
    """
    paused_at = store.read(lambda connection: _paused_at(connection, job_id))
    if paused_at is None:
        return Answer.REPLAYED
    gap = max(0, now - paused_at)
    # First, and in batches: while it is paused none of them is judged, and a kill in between leaves it paused.
    move_waiting(store, job_id, paused_at=paused_at, now=now)

    def work(connection: Connection) -> Answer:
        if _paused_at(connection, job_id) is None or not connection.execute(_UNPAUSE, (job_id, paused_at)).rowcount:
            return Answer.REPLAYED
        move_job(connection, job_id, gap, now)
        note_job(store, connection, job_id, "unpause", now=now, actor=actor)
        return Answer.APPLIED

    answer = store.write(work)
    store.wake()
    return answer


def _paused_at(connection: Connection, job_id: int) -> int | None:
    _check(job_id, asked(connection, job_id), "unpause")
    at: int | None = connection.execute("select paused_at from jobs where id=?", (job_id,)).fetchone()[0]
    return at


def _check(job_id: int, job: Asked, verb: str) -> None:
    if not job.open or job.requested:
        raise refusal(job_id, job, verb)
    refuse_halves(job_id, job)
