"""How a job leaves the store: requested in one transaction, carried out in batches, finished by whoever comes next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import process
from jobd.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store

BATCH: Final = 2_000
# Without it the next batch takes the lock back before a writer of another process has woken to try.
GAP_SECONDS: Final = 0.001

# The guard is in each statement: a job that nobody asked to delete may be running.
_ASKED: Final = "exists (select 1 from jobs where id=? and deleted_at is not null)"
_ITEMS: Final = f"delete from job_items where id in (select id from job_items where job_id=? limit ?) and {_ASKED}"
_EVENTS: Final = f"delete from job_events where id in (select id from job_events where job_id=? limit ?) and {_ASKED}"
_UNSEALED: Final = "select id, submitter from jobs where sealed_at is null and deleted_at is null order by id"
_DELETED: Final = "select id from jobs where deleted_at is not null order by id"


class DeadSubmission(NamedTuple):
    """A job whose submitter died before its last item; ``submitter`` is the JSON that its row keeps."""

    job_id: int
    submitter: str


def request_removal(store: Store, connection: Connection, job_id: int, now: int) -> bool:  # noqa: ARG001 - as all requests
    """Ask for the removal of a job: nothing of it is claimed or added from now on, and its key is free.

    Returns False where there is no such job or the request was there before.
    """
    count: int = connection.execute(
        "update jobs set deleted_at=?, key=null where id=? and deleted_at is null", (now, job_id)
    ).rowcount
    return count == 1


def remove_job(store: Store, job_id: int, progress: Callable[[int], None] | None = None) -> int:
    """Remove a job whose removal was requested and return how many items went in this call.

    Items go with their results, data and output, then the events, in batches of 2,000; the job's row goes last, so
    that a kill leaves something to find. ``progress`` is given the items removed so far after each batch. It may be
    called again, and by several at once.

    Raises:
        Conflict: nobody asked for it.
    """

    def delete(statement: str) -> int:
        return store.write(lambda connection: int(connection.execute(statement, (job_id, BATCH, job_id)).rowcount))

    removed = 0
    while count := delete(_ITEMS):
        removed += count
        if progress is not None:
            progress(removed)
        time.sleep(GAP_SECONDS)
    while delete(_EVENTS):
        time.sleep(GAP_SECONDS)
    store.write(lambda connection: _remove_row(connection, job_id))
    return removed


def _remove_row(connection: Connection, job_id: int) -> None:
    gone = connection.execute("delete from jobs where id=? and deleted_at is not null", (job_id,)).rowcount
    if not gone and connection.execute("select 1 from jobs where id=?", (job_id,)).fetchone():
        raise Conflict(f"job {job_id} is not being deleted")


def dead_submissions(store: Store) -> list[DeadSubmission]:
    """Return the jobs whose submitter is known to be dead; one of another host counts as alive."""
    rows = store.read(lambda connection: connection.execute(_UNSEALED).fetchall())
    return [DeadSubmission(*row) for row in rows if not submitter_lives(row[1])]


def open_removals(store: Store) -> list[int]:
    """Return the jobs whose removal was requested and is not complete."""
    rows = store.read(lambda connection: connection.execute(_DELETED).fetchall())
    return [row[0] for row in rows]


def submitter_lives(submitter: str | None) -> bool:
    """Say whether a submitter may still be adding; one that cannot be judged from here counts as alive."""
    named = process.Process.loads(submitter) if submitter else None
    return named is None or process.alive(named) is not False
