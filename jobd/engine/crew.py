"""The workers of a process executor: one for each of its threads, warm before it is needed, and replaced in time."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Final

from jobd.engine.worker import Died
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.engine.worker import Worker
    from jobd.policy import Policy

log = logging.getLogger("jobd.processes")

_AGAIN: Final = 1.0  # seconds until a place whose worker could not start tries again


class Crew:
    """Each thread has a worker of its own; ``start`` starts one."""

    def __init__(self, start: Callable[[], Worker]) -> None:
        # Why none could be started when one was asked for the last time.
        self.ailment: str | None = None
        self._new = start
        self._mine = _Mine()
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._closed = threading.Event()
        self._ready: list[Worker] = []

    def prove(self) -> None:
        """Start the first, and wait until it has imported its program.

        Raises:
            UsageError: the program cannot be imported, or no process can be started.
        """
        try:
            worker = self._start()
        except OSError as error:
            raise UsageError(f"no worker process can be started: {error}") from error
        try:
            _greet(worker)
        except BaseException:
            self._end(worker)
            raise
        self._ready.append(worker)

    def join(self) -> None:
        """Have a worker for this thread, without waiting for it."""
        with self._lock:
            self._mine.worker = self._ready.pop() if self._ready else None
        self._warm()

    def mine(self) -> Worker:
        """Return the worker of this thread, warm.

        Raises:
            OSError: there is none, and none can be started.
            UsageError: it cannot import the program any more.
        """
        worker = self._mine.worker
        if worker is not None and worker.greeted and not worker.idle:
            self.give_up()
            worker = None
        try:
            if worker is None:
                worker = self._mine.worker = self._start()
            _greet(worker)
        except (OSError, UsageError) as error:
            self.give_up()
            self._fails(error)
            raise
        self.ailment = None
        return worker

    def _fails(self, error: Exception) -> None:
        self._mine.rests = True
        if self.ailment is None and not self.closed:
            self.ailment = f"no worker process can start: {error}"
            log.warning("degraded: %s", self.ailment)

    def renew(self, policy: Policy) -> None:
        """Have a worker again, where the last one is gone or has been long enough; where none starts, rest a little."""
        if self._mine.rests:
            self._mine.rests = False
            self._closed.wait(_AGAIN)
            return
        worker = self._mine.worker
        if worker is not None and not _has_had_enough(worker, policy):
            return
        self._mine.worker = None
        self._warm()
        if worker is not None:
            self._end(worker)

    def give_up(self) -> None:
        """End the worker of this thread, if it has one."""
        worker, self._mine.worker = self._mine.worker, None
        if worker is not None:
            self._end(worker)

    @property
    def closed(self) -> bool:
        """Say whether no worker starts any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Start none any more, and end all: when this returns, none is left."""
        with self._lock:
            self._closed.set()
            workers = tuple(self._workers)
        for worker in workers:
            worker.ask_to_end()
        for worker in workers:
            if not worker.gone():
                log.error("worker process %d cannot be killed", worker.pid)

    def _warm(self) -> None:
        if self._mine.worker is None:
            # Who needs it tries again and says so.
            with contextlib.suppress(OSError):
                self._mine.worker = self._start()

    def _start(self) -> Worker:
        # Whoever closes must not miss one.
        with self._lock:
            if self.closed:
                raise OSError("the daemon leaves")
            worker = self._new()
            self._workers.add(worker)
            return worker

    def _end(self, worker: Worker) -> None:
        worker.end()
        with self._lock:
            self._workers.discard(worker)


class _Mine(threading.local):
    worker: Worker | None = None
    rests = False  # its last one could not start


def _greet(worker: Worker) -> None:
    try:
        worker.greet()
    except Died:
        worker.end()
        raise UsageError(
            f"a worker process ended while it imported the program: {words(worker.code)}",
            hint="the program is imported there as by another program: what it does at its top level happens there",
        ) from None


def _has_had_enough(worker: Worker, policy: Policy) -> bool:
    if policy.recycle_after is not None and worker.items >= policy.recycle_after:
        return True
    return policy.recycle_mb is not None and _megabytes(worker.pid) > policy.recycle_mb


def _megabytes(pid: int) -> float:
    import psutil  # noqa: PLC0415 - only who bounds the memory pays for it

    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def words(code: int | None) -> str:
    """Return how a process ended that left with ``code``; negative is a signal's number."""
    if code is None:
        return "it does not end"
    if code >= 0:
        return f"left with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
