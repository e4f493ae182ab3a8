"""The daemon: the process that holds the file's lock and runs items."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from jobd.engine.executors import Executors
from jobd.engine.holder import Holder
from jobd.engine.points import Crash
from jobd.errors import JobdError, StoreUnusable
from jobd.store.failures import Transient

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent import futures

    from jobd.config import Settings
    from jobd.engine.executor import Deliver, Executor
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

# Those of this process that run now.
_running: Final[weakref.WeakSet[Daemon]] = weakref.WeakSet()


def look_at_the_clock() -> None:
    """Have the daemons of this process look at the time again: it has passed without anybody waiting for it."""
    for daemon in tuple(_running):
        daemon.look_at_the_clock()


class Daemon(Holder):
    """Runs the items of one database in this process. Start it once; it owns its threads and no signal handler."""

    def __init__(
        self,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        settings: Settings,
        *,
        workers: int,
        allow_network: bool = False,
        executors: Mapping[str, futures.Executor] = MappingProxyType({}),
    ) -> None:
        super().__init__(store, tasks, settings, workers=workers, allow_network=allow_network)
        self._executors = Executors(
            store, tasks, workers=workers, named=executors, crashed=self._crashed, freed=self._ring
        )
        self._left = threading.Event()
        self._stopping = False

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the lock, settle what a former daemon left, and begin to run items.

        Raises:
            DaemonRunning: another daemon holds the lock.
            StoreUnusable: the file or its file system cannot be used.
            UsageError: a task cannot be run as it asks to be.
        """
        with contextlib.ExitStack() as undo:
            self._own(undo)
            self._begin()
            undo.pop_all()

    def _begin(self) -> None:
        self._recover()
        self._bell, self._store.wake = self._store.wake, self._ring
        self._thread = threading.Thread(target=self._dispatch, name="jobd-dispatcher", daemon=True)
        log.info("daemon %d runs %s with %d workers", self.id, self._store.path, self._workers)
        self._upkeep.begin()
        _running.add(self)
        self._thread.start()

    def _recover(self) -> None:
        # Before anything is claimed: what a former daemon ran is not to be waited for until the first beat.
        try:
            self._upkeep.first_pass()
        except Transient as error:
            self._trouble.warning("recover has to wait: %s", error)

    def _executor(self, isolation: str, deliver: Deliver) -> Executor:
        return self._executors.make(isolation, deliver)

    def stop(self, *, drain: bool = True) -> None:
        """Ask it to leave: claim no more, let what runs end for the drain's time, give the rest back. Returns at once.

        With ``drain`` false, or called so after a first call, it gives everything back now.
        """
        self._stopping = True
        if not drain:
            self._store.hurried = True
        self._dispatcher.stop(self._settings.drain if drain else 0.0)

    def look_at_the_clock(self) -> None:
        """Do at once what is due by now."""
        self._upkeep.look_at_the_clock()
        self._ring()

    @property
    def stopping(self) -> bool:
        """Say whether it was asked to leave."""
        return self._stopping

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has left; False when the time ran out first. Handlers that never return have threads still."""
        left = self._left.wait(timeout)
        if left:
            self._thread.join()
        return left

    @property
    def degraded(self) -> str | None:
        """Return why it runs less than it should at present, or nothing; None while it is well."""
        return self._dispatcher.ailment

    def _dispatch(self) -> None:
        try:
            self._dispatcher.run()
        except Crash as crash:
            self.failure = crash
        except JobdError as error:
            # A file that is gone shows in many ways; this is the one that says what happened.
            self.failure = (isinstance(error, StoreUnusable) and self._files.lost()) or error
            log.error("the daemon leaves: %s", self.failure)  # noqa: TRY400 - a finding about the file, no traceback
        except BaseException as error:
            log.exception("the dispatcher failed")
            self.failure = JobdError(f"the dispatcher failed: {type(error).__name__}: {error}", hint="please report it")
        finally:
            self._leave()

    def _leave(self) -> None:
        _running.discard(self)
        self._upkeep.end()
        self._store.wake = self._bell
        with contextlib.ExitStack() as last:
            # In this order from the bottom up, whatever any of them raises: a lock that is kept keeps the next one out.
            last.callback(self._left.set)
            last.callback(self._lock.release)
            last.callback(setattr, self._store, "hurried", False)
            last.callback(self._store.close)
            last.callback(self._wake.close)
            self._sign_off()

    def _ring(self) -> None:
        self._wake.ring()

    def _crashed(self, crash: Crash) -> None:
        self._dispatcher.fail(crash)

    def _finish_halted(self) -> None:
        self._upkeep.finish_soon()
