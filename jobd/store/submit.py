"""How a job and its items enter the store.

What fits into one transaction is one transaction. A longer input is a job without ``sealed_at`` until its last chunk:
nothing of it runs, and if its submitter dies it is removed whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.codec import NotStorable, checked_key
from jobd.errors import Conflict, UsageError
from jobd.process import Process, myself
from jobd.states import COMPLETED, QUEUED
from jobd.store.additions import Addition, Known, read_job
from jobd.store.chunks import Chunks, insert, source_of
from jobd.store.ending import end_jobs
from jobd.store.events import Event
from jobd.store.fall import fall
from jobd.store.follow import follow
from jobd.store.links import link
from jobd.store.removal import remove_job, request_removal, submitter_lives
from jobd.store.steer import work_off
from jobd.store.submission import Submission, Submitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobd.store.base import Connection, Store


__all__ = ["Submission", "Submitted", "submit"]

# Hot: three statements make a job of one item. Text, and constant, so that the driver finds them prepared.
_FIND: Final = f"select {', '.join(Known._fields)} from jobs where task=? and key=?"
_JOB: Final = (
    "insert into jobs (task, key, params, target, status_updated_at, version, priority, not_before, available_at,"
    " job_timeout_ms, tolerance, submitter, sealed_at, items_total, policy, created_at)"
    " values (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_EVENT: Final = (
    "insert into job_events (job_id, name, from_status, to_status, at, actor)"
    " values (?, 'submit', null, 'queued', ?, ?)"
)
_ITEM: Final = "insert into job_items (job_id, key, payload) values (?, ?, ?)"
_SHORT: Final = 20  # items
# Whoever cancels or deletes the job in between has the last word.
_OPEN: Final = (
    "id=? and sealed_at is null and deleted_at is null and cancel_requested_at is null and fail_requested_at is null"
)
_GROW: Final = f"update jobs set items_total = items_total + ? where {_OPEN}"
_SEAL: Final = f"update jobs set sealed_at=? where {_OPEN}"


def submit(
    store: Store,
    submission: Submission,
    items: Iterable[tuple[str, str]],
    *,
    now: int,
    actor: str,
    progress: Callable[[int], None] | None = None,
) -> Submitted:
    """Store a job with its items, or add the items to the job of the same task and key.

    ``items`` are pairs of key and payload (JSON text), read once in constant memory; ``progress`` is given the items
    stored so far after each commit. Inside the caller's transaction everything joins it, and nobody is woken.

    With ``after`` it waits for other jobs; where one of these has failed or was cancelled, and was to complete, the job
    is cancelled at once, with the reason.

    Raises:
        UsageError: the job's key cannot be stored.
        NotFound: there is no job of those that it is to come after.
        DuplicateKeys: keys that came twice, where they are not to be skipped; nothing is left behind.
        ChangedInput: a known key came with another payload, or the job with other params; nothing was written.
        Conflict: the job of that key is being submitted, cancelled, failed or deleted, or an item with a changed
            input runs; a job that it is to come after is being submitted or deleted, or comes after it.
    """
    if submission.key is not None:
        _check_key(submission.key)
    chunks = Chunks(items, skip=submission.duplicates == "skip")
    new = _New(store, submission, chunks, now, actor)
    found, falls = new.create_or_find(), False
    if isinstance(found, Known):
        tally = Addition(store, found.id, submission, now, actor).run(chunks, progress)
        # It may have been reopened, and what fell with it comes back.
        follow(store, [found.id], now=now, actor=actor)
        job = store.read(lambda connection: read_job(connection, found.id))
        answer = Submitted(found.id, job.status, False, *tally, chunks.skipped, job.items_total)
        falls = job.cancel_requested_at is not None
    elif chunks.whole:
        answer = new.whole(found, progress)
    else:
        answer = new.fill(found, progress)
    if submission.after or falls:
        answer = _followed(store, answer, now=now, actor=actor)
    if not new.joined and (answer.created or answer.added or (answer.changed and submission.changed == "requeue")):
        store.wake()
    return answer


def _followed(store: Store, answer: Submitted, *, now: int, actor: str) -> Submitted:
    """Carry out what follows from what the job comes after, where that had failed before, and return how it stands."""
    work_off(store, answer.job_id, now=now, actor=actor)
    follow(store, [answer.job_id], now=now, actor=actor)
    text = "select status from jobs where id = ?"
    found = store.read(lambda connection: connection.execute(text, (answer.job_id,)).fetchone())
    return answer._replace(status=found[0]) if found else answer


def _check_key(key: str) -> None:
    try:
        checked_key(key)
    except NotStorable as error:
        raise UsageError(f"a job's key: {error}") from None


class _New:
    """A job that is not there yet."""

    def __init__(self, store: Store, submission: Submission, chunks: Chunks, now: int, actor: str) -> None:
        self._store = store
        self._submission = submission
        self._chunks = chunks
        self._now = now
        self._actor = actor
        self.joined = store.in_transaction(store.connection())
        self._submitter = None if chunks.whole else myself().dumps()

    def create_or_find(self) -> int | Known:
        """Create the job and return its id, or return the row of the one that has its key.

        Raises:
            Conflict: that one is being submitted.
        """
        # A long one takes milliseconds: many of those in one transaction would keep the others waiting.
        put = self._store.share if len(self._chunks.first) <= _SHORT else self._store.write
        while True:
            found = put(self._create_or_find)
            if isinstance(found, int) or found.sealed_at is not None:
                return found
            if submitter_lives(found.submitter):
                raise _being_submitted(found)
            # Nobody will ever finish that job: its key is this submission's.
            self._remove(found.id)

    def _create_or_find(self, connection: Connection) -> int | Known:
        submission = self._submission
        if submission.key is not None:
            # Under the write lock: of two who submit the same key at once the second finds the first's job.
            row = connection.execute(_FIND, (submission.task, submission.key)).fetchone()
            if row is not None:
                return Known(*row)
        return self._create(connection, self._chunks)

    def _create(self, connection: Connection, chunks: Chunks) -> int:
        s, now = self._submission, self._now
        sealed_at, total = (now, len(chunks.first)) if chunks.whole else (None, 0)
        row = (
            s.task, s.key, s.params, s.target, now, s.priority, s.not_before, max(0, s.not_before or 0),
            s.job_timeout_ms, s.tolerance, self._submitter, sealed_at, total, s.policy, now,
        )  # fmt: skip
        job_id = self._store.new_id(connection, _JOB, row)
        connection.execute(_EVENT, (job_id, now, self._actor))
        self._store.news.happened([Event(job_id, None, "submit", None, QUEUED, now, self._actor)])
        if total == 1:
            # A row of its own is cheaper than a batch of one.
            connection.execute(_ITEM, (job_id, *next(iter(chunks.first.items()))))
        elif total:
            insert(connection, job_id, source_of(self._store, chunks.first))
        if s.after:
            link(self._store, connection, job_id, s.after, s.on)
            # What it comes after may have failed already. A job that is being submitted falls when it is whole.
            fall(self._store, connection, [job_id], now=now, actor=self._actor)
        if chunks.whole and not total:
            end_jobs(self._store, connection, [job_id], now=now, actor=self._actor)
        return job_id

    def whole(self, job_id: int, progress: Callable[[int], None] | None) -> Submitted:
        """Answer for a job that was created with all of its items."""
        total = len(self._chunks.first)
        if progress is not None:
            progress(total)
        return Submitted(job_id, QUEUED if total else COMPLETED, True, total, 0, 0, self._chunks.skipped, total)

    def fill(self, job_id: int, progress: Callable[[int], None] | None) -> Submitted:
        """Add the items of a job that is not sealed, and seal it; or remove it whole."""
        total = 0
        try:
            for chunk in self._chunks:
                known = self._store.write(lambda connection: self._extend(connection, job_id, chunk))  # noqa: B023 - called before the loop goes on
                self._chunks.repeat(known)
                total += len(chunk) - len(known)
                if progress is not None:
                    progress(total)
            self._store.write(lambda connection: self._seal(connection, job_id))
        except BaseException as error:
            # KeyboardInterrupt too: half a job must never hold the key.
            self._withdraw(job_id, error)
            raise
        return Submitted(job_id, QUEUED, True, total, 0, 0, self._chunks.skipped, total)

    def _seal(self, connection: Connection, job_id: int) -> None:
        _still_open(connection, _SEAL, (self._now, job_id))
        if self._submission.after:
            fall(self._store, connection, [job_id], now=self._now, actor=self._actor)
            # One whose generator gave nothing, and that has waited for nothing since.
            end_jobs(self._store, connection, [job_id], now=self._now, actor=self._actor)

    def _extend(self, connection: Connection, job_id: int, chunk: dict[str, str]) -> list[str]:
        """Add a chunk and return those of its keys that the job had before."""
        _still_open(connection, _GROW, (len(chunk), job_id))
        source = source_of(self._store, chunk)
        last = connection.execute("select coalesce(max(id), 0) from job_items").fetchone()[0]
        added = insert(connection, job_id, source)
        if added == len(chunk):
            return []
        connection.execute(_GROW, (added - len(chunk), job_id))
        before = f"from {source.text} as m cross join job_items as i where i.job_id=? and i.key=m.key and i.id<=?"
        known = {row[0] for row in self._store.gather(connection, "m.key", before, (*source.params, job_id, last))}
        return [key for key in chunk if key in known]

    def _withdraw(self, job_id: int, why: BaseException) -> None:
        if self.joined and not self._store.in_transaction(self._store.connection()):
            # The caller's transaction is gone, and the job with it: its id may be another's by now.
            return
        try:
            self._remove(job_id)
        except Exception as error:  # noqa: BLE001 - the first error is the one to tell
            why.add_note(f"job {job_id} could not be removed ({error}); recover removes it when this process has ended")

    def _remove(self, job_id: int) -> None:
        self._store.write(lambda connection: request_removal(self._store, connection, job_id, self._now))
        remove_job(self._store, job_id)


def _still_open(connection: Connection, statement: str, params: tuple[int, int]) -> None:
    if connection.execute(statement, params).rowcount != 1:
        raise Conflict(f"job {params[1]} was cancelled or deleted while it was being submitted")


def _being_submitted(known: Known) -> Conflict:
    named = Process.loads(known.submitter) if known.submitter else None
    who = f"process {named.pid} on {named.host}" if named else "another process"
    return Conflict(f"job {known.id} is being submitted by {who}", hint="submit again when it has finished")
