"""The same key again: what is known stays, what is new is added, what has changed is said.

The input is compared whole before any of it is written. Each page of it is then compared once more in the transaction
that writes it: in between, items may have started and another submitter may have been faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.codec import canonical
from jobd.errors import ChangedInput, Conflict
from jobd.states import JOB_ENDS, QUEUED, RUNNING, WAITING
from jobd.store import links
from jobd.store.chunks import SHOWN, insert_missing, source_of
from jobd.store.fall import fall
from jobd.store.links import BLOCKED
from jobd.store.own import note_own
from jobd.store.requeue import Change, replace
from jobd.store.spool import spooled
from jobd.store.transitions import job_move, transition_job
from jobd.store.unique import note_refresh, of_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.chunks import Chunks, Source
    from jobd.store.submission import Submission

# The end and what led to it are no longer true; when the job first started still is.
REOPEN: Final = job_move(
    "reopen", QUEUED, "completed_at=null", "cancel_requested_at=null", "fail_requested_at=null", "last_error=null",
    "status_message=null", "paused_at=null", "timeout_at=null", "retry_count=0", "values_pruned_at=null",
    f"blocked={BLOCKED}",
)  # fmt: skip


class Known(NamedTuple):
    """What submission looks at in the row of a job."""

    id: int
    status: str
    params: str
    submitter: str | None
    sealed_at: int | None
    deleted_at: int | None
    cancel_requested_at: int | None
    fail_requested_at: int | None
    items_total: int


_READ: Final = f"select {', '.join(Known._fields)} from jobs where id=?"


def read_job(connection: Connection, job_id: int) -> Known:
    """Return the row of a job.

    Raises:
        Conflict: it is gone, or about to go.
    """
    row = connection.execute(_READ, (job_id,)).fetchone()
    job = Known(*row) if row else None
    if job is None or job.deleted_at is not None:
        raise Conflict(f"job {job_id} is being deleted", hint="submit again, it will be a new job")
    return job


class Tally(NamedTuple):
    """What became of some items of the input: new ones, ones that the job had, and how many of those had changed."""

    added: int = 0
    known: int = 0
    changed: int = 0

    def plus(self, more: Tally) -> Tally:
        return Tally(self.added + more.added, self.known + more.known, self.changed + more.changed)


class Addition:
    """One input for a job that is known."""

    def __init__(self, store: Store, job_id: int, submission: Submission, now: int, actor: str) -> None:
        self._store = store
        self._job_id = job_id
        self._params = submission.params
        self._changed = submission.changed
        self._after, self._on = submission.after, submission.on
        self._policy = submission.policy
        self._refresh = of_policy(submission.policy)[1]
        self._now = now
        self._actor = actor

    def run(self, chunks: Chunks, progress: Callable[[int], None] | None) -> Tally:
        """Add the input: in one transaction if it is whole, else page by page."""
        if chunks.whole:
            return self._write_pages([source_of(self._store, chunks.first)], progress)
        with spooled(self._store, chunks) as pages:
            self._compare(pages)
            if self._changed == "requeue" and self._other_params(self._store.read(self._job)):
                # Other params change every item: were they written with the first page and the rest lost, the same
                # call would find nothing changed, and leave results of the old ones.
                return self._store.write(lambda connection: self._write(connection, pages))
            return self._write_pages(pages, progress)

    def _write_pages(self, pages: Sequence[Source], progress: Callable[[int], None] | None) -> Tally:
        tally = Tally()
        for page in pages:
            more = self._store.write(lambda connection: self._write(connection, [page]))  # noqa: B023 - called at once
            tally = tally.plus(more)
            if progress is not None:
                progress(tally.added + tally.known)
        return tally

    # -- comparing ------------------------------------------------------------------------------------------------

    def _compare(self, pages: Sequence[Source]) -> None:
        """Refuse the input while nothing of it is written."""
        if self._changed == "keep":
            return
        other = self._other_params(self._store.read(self._job))
        keys: list[str] = []
        for page in pages:
            changes = self._store.read(lambda connection: self._changes(connection, page, every=other))  # noqa: B023 - called before the loop goes on
            keys += self._refused(changes)
            if len(keys) >= SHOWN:
                break
        self._refuse(keys, other=other)

    def _job(self, connection: Connection) -> Known:
        job = read_job(connection, self._job_id)
        if job.status not in JOB_ENDS:
            for asked, word in ((job.cancel_requested_at, "cancelled"), (job.fail_requested_at, "failed")):
                # One that falls with its parent takes all of its input: what was added falls with it. Were the second
                # page refused, a part of the input would be in and the caller told that nothing can be.
                if asked is not None and not links.fell(connection, job.id):
                    raise Conflict(f"job {job.id} is being {word}: nothing can be added", hint=f"jobd wait {job.id}")
        return job

    def _other_params(self, job: Known) -> bool:
        return job.params != self._params and canonical(job.params) != canonical(self._params)

    def _changes(self, connection: Connection, page: Source, *, every: bool) -> list[Change]:
        """Return the known items of a page that came with another payload, or all that other params run anew."""
        anew = every and self._changed == "requeue"
        # Read row by row: of the few that differ in spelling most differ in nothing else, and each may be 1 MiB.
        rows = connection.execute(
            f"select i.id, m.key, i.status, m.payload, i.payload from {page.text} as m"
            " cross join job_items as i where i.job_id=? and i.key=m.key and (i.payload <> m.payload or ?)",
            (*page.params, self._job_id, anew),
        )
        return [
            Change(identity, key, status, payload)
            for identity, key, status, payload, stored in rows
            if anew or canonical(payload) != canonical(stored)
        ]

    def _refused(self, changes: Iterable[Change]) -> list[str]:
        """Return the keys of those changes that forbid the submission."""
        return [
            change.key
            for change in changes
            if self._changed == "error" or (self._changed == "requeue" and change.status in {RUNNING, WAITING})
        ]

    def _refuse(self, keys: Sequence[str], *, other: bool) -> None:
        if self._changed == "error" and (keys or other):
            raise ChangedInput(self._job_id, keys[:SHOWN], params=other)
        if keys:
            shown = ", ".join(ascii(key) for key in keys[:SHOWN])
            raise Conflict(
                f"job {self._job_id}: items that run came with another input: {shown}",
                hint="submit again when they have ended",
            )

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(self, connection: Connection, pages: Sequence[Source]) -> Tally:
        """Add pages in one transaction. Compares first: the transaction's own view is the one that counts."""
        job = self._job(connection)
        if self._after:
            links.link(self._store, connection, job.id, self._after, self._on)
        other = self._other_params(job)
        tally, requeued = Tally(), 0
        for page in pages:
            changes = self._changes(connection, page, every=other)
            self._refuse(self._refused(changes), other=other)
            if self._changed == "requeue":
                why = "params changed" if other else "payload changed"
                requeued += replace(
                    self._store, connection, self._job_id, changes, why, now=self._now, actor=self._actor
                )
            added = insert_missing(connection, self._job_id, page)
            tally = tally.plus(Tally(added, page.size - added, len(changes)))
        if tally.added:
            # The job may be held back until the items that it had are due.
            grow = "update jobs set items_total = items_total + ?, available_at = 0 where id=?"
            connection.execute(grow, (tally.added, job.id))
        if other and self._changed == "requeue":
            connection.execute("update jobs set params=? where id=?", (self._params, job.id))
        note_own(connection, job.id, self._policy)
        if tally.added or requeued:
            note_refresh(connection, job.id, refresh=self._refresh)
        if job.status in JOB_ENDS and (tally.added or requeued):
            message = f"{tally.added:,} items added" + (f", {requeued:,} changed" if requeued else "")
            transition_job(self._store, connection, REOPEN, job.id, now=self._now, actor=self._actor, message=message)
        # Of what it comes after, something may have failed since; a reopened job falls with it once more.
        fall(self._store, connection, [job.id], now=self._now, actor=self._actor)
        return tally
