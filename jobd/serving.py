"""Who runs an app's items: a daemon inside the program, the program itself, or the calling thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobd import measures, running
from jobd.atomic import refuse_inside
from jobd.errors import DaemonRunning, NotFound, UsageError
from jobd.store.views import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent import futures

    from jobd.config import Settings
    from jobd.engine.bounds import Started
    from jobd.engine.daemon import Daemon
    from jobd.engine.inline import Drained, Inline
    from jobd.maintenance.report import Report
    from jobd.store import SqliteStore
    from jobd.store.views import Runner
    from jobd.tasks import Task


class Serving:
    """The part of an app that runs items."""

    settings: Settings
    executors: Mapping[str, futures.Executor]
    _tasks: dict[str, Task[Any, Any]]
    _running: Daemon | None
    _drained_by: int | None
    _started: Started

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The registered tasks."""
        raise NotImplementedError

    def writing(self) -> SqliteStore:
        """Return the store, created where there is none."""
        raise NotImplementedError

    def reading(self) -> SqliteStore:
        """Return the store, if there is one."""
        raise NotImplementedError

    def daemon_status(self) -> Runner:
        """Say who runs items now: ``alive`` by the lock's word; or who did last."""
        try:
            runner = running.runner(self.reading())
        except NotFound:
            return NOBODY
        if self._running is not None and self._running.id == runner.id:
            # Its row holds what was registered when it started; it runs what was registered since, too.
            return runner._replace(tasks=tuple(sorted(self._tasks)))
        return runner

    @contextmanager
    def daemon(self, *, workers: int | None = None, allow_network: bool = False) -> Iterator[Daemon]:
        """Run items in this process while the block runs; leaving it finishes what runs and keeps the queue.

        It has threads of its own and touches no signal handler.

        Raises:
            DaemonRunning: another daemon owns the database.
            StoreUnusable: it cannot be used, or was moved or replaced meanwhile.
        """
        daemon = self._daemon(workers, allow_network=allow_network)
        with running.during(daemon):
            self._running = daemon
            try:
                yield daemon
            finally:
                self._running = None

    def run(self, *, workers: int | None = None, allow_network: bool = False) -> None:
        """Run items until SIGTERM or SIGINT: the first finishes what runs, the second leaves at once.

        Outside the main thread no signal is listened to, and only an end of the daemon's own returns.

        Raises:
            DaemonRunning: another daemon owns the database.
            StoreUnusable: it cannot be used, or was moved or replaced meanwhile.
        """
        running.until_signalled(lambda: self._daemon(workers, allow_network=allow_network))

    def drain(self) -> Drained:
        """Recover, fire and time out once, then run all that is due now in this thread until nothing is; never wait.

        What is due later stays, and so does what a rate holds back (the drains of one app count together for it);
        ``next_due`` says when the next of it is due. What other programs' tasks have to do stays too. Every item is
        claimed, run and settled by itself, as by a daemon of one worker, in this thread also where its task asks for
        a process. Nobody looks while a handler runs: it may take longer than its task's ``timeout``.

        Raises:
            UsageError: called by a handler, or in a transaction.
            DaemonRunning: a daemon owns the database.
            KeyboardInterrupt: what was running is queued again.
        """
        with self._inline() as inline:
            self._drained_by = threading.get_ident()
            try:
                return inline.drain()
            finally:
                self._drained_by = None

    def tick(self) -> list[Report]:
        """Run the maintenance passes whose beat has elapsed since they last ran; return what they did. Run no items.

        Raises:
            UsageError: called by a handler, or in a transaction.
            DaemonRunning: a daemon owns the database; it runs them.
        """
        with self._inline() as inline:
            return inline.tick()

    @property
    def drains_here(self) -> bool:
        """Whether the calling thread is in ``drain``: it runs a handler, and nobody else runs anything."""
        return self._drained_by == threading.get_ident()

    def _inline(self) -> Inline:
        from jobd.engine.inline import Inline  # noqa: PLC0415 - as for a daemon
        from jobd.engine.runner import inside  # noqa: PLC0415 - as above

        store = self.writing()
        if inside():
            raise UsageError("a handler cannot run its own queue", hint="submit() in it; whoever runs it runs that too")
        refuse_inside(store, "what runs")
        self._refuse_two(store)
        return Inline(store, self.tasks, self.settings, started=self._started)

    def _daemon(self, workers: int | None, *, allow_network: bool) -> Daemon:
        from jobd.engine.daemon import Daemon  # noqa: PLC0415 - who only submits or looks does not pay for it

        count = self.settings.workers if workers is None else measures.count(workers)
        store = self.writing()
        refuse_inside(store, "what runs")
        self._refuse_two(store)
        return Daemon(
            store, self.tasks, self.settings, workers=count, allow_network=allow_network, executors=self.executors
        )

    def _refuse_two(self, store: SqliteStore) -> None:
        if self._running is not None and not self._running.join(0):
            raise DaemonRunning(
                f"this very process runs the daemon of {store.path}, in app.daemon()",
                hint="what is submitted runs already; job.wait() waits for it",
            )
