"""The handle of a job: what it was when it was last read, and everything that can be asked of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from jobd import arguments, clock
from jobd.atomic import refuse_inside
from jobd.errors import NoDaemon, NotFound
from jobd.states import JOB_ENDS
from jobd.steering import Steering
from jobd.store import reads
from jobd.store.views import JobView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.app import Jobd
    from jobd.store.item_views import ErrorGroup, EventView, ItemView, OutputView, ResultView
    from jobd.store.printed import Streams
    from jobd.store.submission import Submitted
    from jobd.store.views import Counts, JobDaemon, Phases

_FIELDS: Final = frozenset(JobView._fields)
_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05
# A waiter is late by at most this share of what it has waited for.
_LATENESS: Final = 0.05
_PROBE_EVERY: Final = 1.0


class Job(Steering):
    """A job. Its attributes are a snapshot, the fields of its JSON: ``refresh`` takes a new one.

    Times are Unix milliseconds. The handle that a submission returns takes its first snapshot when an attribute is
    first asked for; ``created``, ``added`` and ``known`` say what the submission did.
    """

    task: str
    key: str | None
    target: str | None
    status: str
    status_description: str
    status_message: str | None
    status_updated_at: int
    version: int
    health: str
    operations: tuple[str, ...]
    progress_percent: int | None
    counts: Counts
    rate_per_second: float | None
    eta_seconds: int | None
    warnings: tuple[str, ...]
    retry_count: int
    last_error: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    timeout_at: int | None
    age_seconds: int
    in_status_seconds: int
    daemon: JobDaemon | None
    after: tuple[int, ...]
    phases: Phases | None
    params: Any
    priority: int
    progress_at: int | None
    paused_at: int | None
    sealed_at: int | None
    not_before: int | None
    blocked_by: tuple[int, ...]

    def __init__(
        self, app: Jobd, job_id: int, *, view: JobView | None = None, submitted: Submitted | None = None
    ) -> None:
        self.id = job_id
        self.created = submitted is not None and submitted.created
        self.added = submitted.added if submitted is not None else 0
        self.known = submitted.known if submitted is not None else 0
        self._app = app
        self._view = view

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(f"a job has no attribute {name!r}", name=name, obj=self)
        return getattr(self._snapshot(), name)

    def __repr__(self) -> str:
        seen = f" {self._view.task} {self._view.status}" if self._view is not None else ""
        return f"<Job {self.id}{seen}>"

    @property
    def progress(self) -> int | None:
        """Settled items in percent, rounded down; None where there are no items."""
        return self._snapshot().progress_percent

    def json(self) -> dict[str, Any]:
        """Return the snapshot as the JSON fields; times are ISO 8601 in UTC."""
        return self._snapshot().json()

    def refresh(self) -> Self:
        """Read the job again.

        Raises:
            NotFound: it is not there any more.
        """
        self._view = self._app.view(self.id)
        return self

    def _snapshot(self) -> JobView:
        if self._view is None:
            self.refresh()
        assert self._view is not None  # noqa: S101 - refresh has read it
        return self._view

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None, *, wait_for_daemon: bool = False) -> Self:
        """Wait until the job has ended, whatever its end, and return it, read again.

        ``timeout`` is in seconds. ``wait_for_daemon`` waits also while nobody alive runs the task.

        Raises:
            TimeoutError: it had not ended in time; it goes on.
            NoDaemon: nobody alive knows its task, so that nothing would come of waiting.
            NotFound: it is not there any more.
            UsageError: called in a transaction, whose own items nobody can run before it is committed.
        """
        store = self._app.reading()
        refuse_inside(store, "wait()")
        began = clock.awake()
        seen: int | None = None
        probe_at = began
        while True:
            # In this order: a commit between the two is seen at the next look.
            version = store.version()
            if version != seen:
                seen = version
                if reads.progress(store, self.id).status in JOB_ENDS:
                    return self.refresh()
            waited = clock.awake() - began
            if timeout is not None and waited >= timeout:
                raise TimeoutError(f"job {self.id} had not ended after {timeout:g} s")
            if not wait_for_daemon and began + waited >= probe_at:
                probe_at = began + waited + _PROBE_EVERY
                self._check_daemon()
            pause = min(max(waited * _LATENESS, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            time.sleep(pause if timeout is None else min(pause, timeout - waited))

    def _check_daemon(self) -> None:
        if self._app.drains_here:
            raise NoDaemon(
                f"nobody runs job {self.id}: drain() runs one handler after the other, and this one waits",
                hint="submit() it and return: the same drain() runs it next",
            )
        runner = self._app.daemon_status()
        if runner.alive and (runner.id is None or self.task in runner.tasks):
            return
        # It may have ended the job just before it left.
        if self.refresh().status in JOB_ENDS:
            return
        why = f"the daemon (pid {runner.pid}) does not know {self.task}" if runner.alive else "no daemon runs"
        raise NoDaemon(
            f"nobody runs job {self.id}: {why}",
            hint="with app.daemon(): … runs it here, jobd start elsewhere; wait_for_daemon=True waits for one",
        )

    # -- looking --------------------------------------------------------------------------------------------------

    def results(self, key: str | None = None) -> Iterator[ResultView]:
        """Yield what the items left, in their order and in constant memory; of one item where ``key`` names it.

        Raises:
            UsageError: the key is none that an item can have.
        """
        store = self._app.reading()
        return reads.results(store, self.id, arguments.text_or_none("key", key))

    def items(
        self, status: str | None = None, *, key: str | None = None, after: int | None = None, limit: int | None = None
    ) -> list[ItemView]:
        """Return the items in their order, ``limit`` of them from the one ``after`` this id on.

        Raises:
            UsageError: an unknown status, a key that no item can have, or a number below 0 or beyond 64 bits.
        """
        return reads.items(
            self._app.reading(),
            self.id,
            status=status,
            key=arguments.text_or_none("key", key),
            after=arguments.count_or_none("after", after),
            limit=arguments.limit(limit),
        )

    def item(self, name: str) -> ItemView:
        """Return the item of this key, or of this id as ``#123``.

        Raises:
            NotFound: there is none.
        """
        store = self._app.reading()
        if not arguments.holdable(arguments.text_of("an item", name)):
            raise NotFound(f"job {self.id} has no item {name!a}", hint=f"jobd items {self.id} shows its items")
        return reads.item(store, self.id, name)

    def data(self, name: str) -> bytes | None:
        """Return what ``ctx.save_data`` left beside an item's result, None if nothing; ``name`` is that of ``item``.

        Raises:
            NotFound: there is no such item.
        """
        from jobd.store.attempt import load_data  # noqa: PLC0415 - as is what was printed, for who asks for it

        return load_data(self._app.reading(), self.item(name).id)

    def output(self, name: str) -> OutputView | None:
        """Return what an item's last attempt logged, if it did; ``name`` is that of ``item``.

        Raises:
            NotFound: there is no such item.
        """
        item = self.item(name)
        try:
            return reads.output(self._app.reading(), item.id)
        except NotFound:
            return None

    def printed(self, name: str) -> Streams | None:
        """Return what an item's last command printed, if it did: the last 64 KiB; ``name`` is that of ``item``.

        Raises:
            NotFound: there is no such item.
        """
        from jobd.store.printed import streams  # noqa: PLC0415 - as above

        return streams(self._app.reading(), self.item(name).id)

    def events(self, *, items: bool = False, limit: int | None = None) -> list[EventView]:
        """Return the newest events, oldest first: the job's own and its bulk moves; with ``items`` all."""
        return reads.events(self._app.reading(), self.id, items=items, limit=arguments.limit(limit))

    def errors(self, *, limit: int = 100, keys: int = 3) -> list[ErrorGroup]:
        """Return the failed items by their error, the most frequent first, each with its first ``keys`` keys."""
        most, named = arguments.count("limit", limit), arguments.count("keys", keys)
        return reads.errors(self._app.reading(), self.id, limit=most, keys=named)

    def durations(self) -> tuple[int, int] | None:
        """Return the median and the 95th percentile of how long its items took, in ms; None where none has ended."""
        return reads.durations(self._app.reading(), self.id)

    def attempts(self) -> dict[int, int]:
        """Return how many of its items are at which attempt, from the second on; it passes over all of them."""
        return reads.attempts(self._app.reading(), self.id)

    def strip(self, cells: int) -> list[str]:
        """Return the worst status in each of ``cells`` stretches of its items; none where that would take long."""
        return reads.strip(self._app.reading(), self.id, cells)
