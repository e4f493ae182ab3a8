"""How a job leaves the store: requested in one transaction, carried out in batches, finished by whoever comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import process
from jobd.errors import Conflict
from jobd.states import RUNNING
from jobd.store.batches import BATCH, Pace, always, in_batches, slices, through
from jobd.store.events import note_job
from jobd.store.transitions import Answer
from jobd.store.verbs import WAITED_FOR, asked, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobd.store.base import Connection, Store

_UNSEALED: Final = "select id, submitter from jobs where sealed_at is null and deleted_at is null order by id"
_DELETED: Final = "select id from jobs where deleted_at is not null and id > ? order by id limit ?"


class DeadSubmission(NamedTuple):
    """A job whose submitter died before its last item; ``submitter`` is the JSON that its row keeps."""

    job_id: int
    submitter: str


# -- the request ------------------------------------------------------------------------------------------------------


def request_delete(store: Store, job_id: int, *, now: int, actor: str) -> Answer:
    """Ask for the removal of a job; :func:`remove_job` does the work. A second request is replayed.

    Raises:
        NotFound: there is no such job.
        IllegalTransition: it is running.
        Conflict: it is being submitted, or another job waits for it.
    """
    answer = store.write(lambda connection: delete_in(store, connection, job_id, now=now, actor=actor))
    store.wake()
    return answer


def delete_in(store: Store, connection: Connection, job_id: int, *, now: int, actor: str) -> Answer:
    """Do what :func:`request_delete` does in the caller's transaction; nobody is woken."""
    job = asked(connection, job_id)
    if job.deleting:
        return Answer.REPLAYED
    if job.submitting:
        raise Conflict(f"job {job_id} is still being submitted", hint="again when its submitter is through")
    if job.status == RUNNING:
        raise refusal(job_id, job, "delete")
    if job.waited_for:
        raise _waited_for(connection, job_id)
    note_job(store, connection, job_id, "delete", now=now, actor=actor)
    request_removal(store, connection, job_id, now)
    return Answer.APPLIED


def _waited_for(connection: Connection, job_id: int) -> Conflict:
    text = (
        "select c.id from job_dependencies as d join jobs as c on c.id = d.job_id"
        " where d.after_id = ? and c.completed_at is null and c.deleted_at is null order by c.id limit 2"
    )
    (first,), *more = connection.execute(text, (job_id,)).fetchall()
    who = f"job {first} waits" if not more else f"job {first} and others wait"
    hint = f"jobd cancel {first}, or when it has ended; jobd delete {job_id} --cascade deletes both"
    return Conflict(f"job {job_id} cannot be deleted: {who} for it", hint=hint)


def request_removal(store: Store, connection: Connection, job_id: int, now: int) -> bool:  # noqa: ARG001 - as all requests
    """Ask for the removal of a job: nothing of it is claimed or added from now on, and its key is free.

    Returns False where there is no such job or the request was there before.
    """
    count: int = connection.execute(
        "update jobs set deleted_at=?, key=null where id=? and deleted_at is null", (now, job_id)
    ).rowcount
    return count == 1


# -- the work ---------------------------------------------------------------------------------------------------------

# The guard is in each statement: a job that nobody asked to delete may be running. The cross joins keep this order.
_OF: Final = "from {jobs} as m cross join jobs as j on j.id = m.id and j.deleted_at is not null"
_IDS_AT_ONCE: Final = 100_000
_ITEMS: Final = f"{_OF} cross join job_items as i on i.job_id = j.id where +i.id > ? order by +i.id limit ?"
_REMOVE_ITEMS: Final = (
    "delete from job_items where id in (select id from {items} as m)"
    " and exists (select 1 from jobs as j where j.id = job_items.job_id and j.deleted_at is not null)"
)
_UNWAITED: Final = f"not {WAITED_FOR.replace('jobs.id', 'j.id')}"
# Of whoever stopped in between, or works on it at the same time.
_EMPTY: Final = "not exists (select 1 from job_items as i where i.job_id = j.id)"
_WATCHED: Final = "cross join watchlist as w on w.last_job_id = j.id"
_CHILD: Final = "cross join job_dependencies as d on d.job_id = j.id"
# What still waits for it keeps it.
_PARENT: Final = f"cross join job_dependencies as d on d.after_id = j.id where {_UNWAITED}"
# What else names a job is taken away before its row, in batches too: a cascade would take all of it at once.
_REST: Final = (
    f"delete from job_events where id in (select e.id {_OF} cross join job_events as e on e.job_id = j.id limit ?)",
    f"update watchlist set last_job_id = null where (task, key) in (select w.task, w.key {_OF} {_WATCHED} limit ?)",
    f"delete from job_dependencies where (job_id, after_id) in (select d.job_id, d.after_id {_OF} {_CHILD} limit ?)",
    f"delete from job_dependencies where (job_id, after_id) in (select d.job_id, d.after_id {_OF} {_PARENT} limit ?)",
    f"delete from jobs where id in (select j.id {_OF} where {_UNWAITED} and {_EMPTY} limit ?)",
)


def remove_job(
    store: Store,
    job_id: int,
    progress: Callable[[int], None] | None = None,
    *,
    go_on: Callable[[], bool] = always,
) -> int:
    """Remove one job whose removal was requested, as :func:`remove_jobs`, and return how many items went in this call.

    Raises:
        Conflict: nobody asked for it.
    """
    removed = remove_jobs(store, [job_id], progress, go_on=go_on)
    kept = "select 1 from jobs where id=? and deleted_at is null"
    if store.read(lambda connection: connection.execute(kept, (job_id,)).fetchone()):
        raise Conflict(f"job {job_id} is not being deleted")
    return removed


def remove_jobs(
    store: Store,
    job_ids: Sequence[int],
    progress: Callable[[int], None] | None = None,
    *,
    go_on: Callable[[], bool] = always,
) -> int:
    """Remove those of the jobs whose removal was requested, and return how many items went in this call.

    At most 2,000 rows go at once: items with their results, data and output, then events and whatever else names the
    jobs, and last their rows, so that a kill leaves something to find. Small jobs go many at once. ``progress`` is told
    the items removed so far after each batch. Where ``go_on`` says no between two of them, the rest is left to the next
    call. Several may call it at once.
    """
    jobs = store.pack([(job_id,) for job_id in job_ids])
    removed = through(_remove_items(store, jobs), go_on=go_on, progress=progress)
    if not go_on():
        return removed
    rest = [text.format(jobs=store.rows("id")) for text in _REST]
    pace = Pace(BATCH)

    def remove(connection: Connection, size: int) -> int:
        left = size
        for statement in rest:
            left -= connection.execute(statement, (jobs, left)).rowcount
            if not left:
                break
        return size - left

    in_batches(lambda: pace.write(store, remove), go_on=go_on)
    return removed


def _remove_items(store: Store, jobs: str) -> Iterator[int]:
    """Remove the items of jobs batch by batch, and yield how many each had."""
    found, statement = _ITEMS.format(jobs=store.rows("id")), _REMOVE_ITEMS.format(items=store.rows("id"))

    def ids(after: int) -> list[int]:
        # Outside of the write lock: of a large job this passes over all that it has.
        rows = store.read(lambda connection: store.gather(connection, "i.id", found, (jobs, after, _IDS_AT_ONCE)))
        return [row[0] for row in rows]

    pace = Pace(BATCH)
    for some in slices(ids, pace):
        batch = store.pack([(item_id,) for item_id in some])
        yield pace.write(store, lambda connection, _: int(connection.execute(statement, (batch,)).rowcount))  # noqa: B023 - called at once


# -- what is left to do -----------------------------------------------------------------------------------------------


def dead_submissions(store: Store) -> list[DeadSubmission]:
    """Return the jobs whose submitter is known to be dead; one of another host counts as alive."""
    rows = store.read(lambda connection: connection.execute(_UNSEALED).fetchall())
    return [DeadSubmission(*row) for row in rows if not submitter_lives(row[1])]


def open_removals(store: Store, after: int = 0) -> list[int]:
    """Return the first 2,000 jobs after the id ``after`` whose removal was requested and is not complete."""
    rows = store.read(lambda connection: connection.execute(_DELETED, (after, BATCH)).fetchall())
    return [row[0] for row in rows]


def submitter_lives(submitter: str | None) -> bool:
    """Say whether a submitter may still be adding; one that cannot be judged from here counts as alive."""
    named = process.Process.loads(submitter) if submitter else None
    return named is None or process.alive(named) is not False
