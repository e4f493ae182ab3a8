"""Who runs the items: the daemon of this process, for a block or in the foreground, or that of another."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobd import signals
from jobd.engine import lock
from jobd.engine.points import Crash
from jobd.store import reads
from jobd.store.views import NOBODY, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from jobd.engine.daemon import Daemon
    from jobd.store import SqliteStore

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LEFT: Final = 0


def runner(store: SqliteStore) -> Runner:
    """Say who runs items now, ``alive`` by the lock's word; or who did last."""
    alive = lock.probe(store.path)
    found = reads.daemon(store)
    owner = lock.owner(store.path) if alive else None
    if owner is not None and (found is None or found.pid != owner.pid):
        # It holds the lock and has not written its row yet: what it can run is not known.
        return Runner(alive=True, pid=owner.pid, host=owner.host, started_at=owner.since)
    return found.runner(alive=alive) if found is not None else NOBODY._replace(alive=alive)


@contextmanager
def during(daemon: Daemon) -> Iterator[None]:
    """Run ``daemon`` while the block does; leaving it finishes what runs and keeps the queue.

    Raises:
        JobdError: why it left by itself.
    """
    daemon.start()
    try:
        yield
    finally:
        daemon.stop(drain=True)
        try:
            daemon.join()
        except BaseException:
            # Ctrl-C while it drains.
            daemon.stop(drain=False)
            daemon.join()
            raise
        if isinstance(daemon.failure, Crash):
            # Whatever the block itself ran into came of it.
            raise daemon.failure
    if daemon.failure is not None:
        raise daemon.failure


def until_signalled(make: Callable[[], Daemon]) -> None:
    """Start the daemon that ``make`` returns, and return once it has left.

    On the first signal it drains, on the second it leaves at once. One that comes before it has started waits until it
    has; a second one before there is a daemon is not waited with.

    Raises:
        JobdError: why it left by itself.
        KeyboardInterrupt: nothing was started.
    """
    from jobd.engine.notify import Notify  # noqa: PLC0415 - who only asks who runs items needs no socket

    notify, making = Notify(), _Making()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb", buffering=0) as inbox, os.fdopen(writer, "wb", buffering=0) as outbox:
        with _signals_to(outbox.fileno(), making):
            daemon = make()
            making.over = True
            daemon.pulse = lambda word: notify("WATCHDOG=1", f"STATUS={word}")
            daemon.start()
            notify("READY=1")
            end = threading.Thread(target=_announce_end, args=(daemon, outbox.fileno()), name="jobd-end", daemon=True)
            end.start()
            drain = True
            while (number := inbox.read(1)[0]) != _LEFT:
                if number in _SIGNALS:
                    notify("STOPPING=1")
                    daemon.stop(drain=drain)
                    drain = False
        end.join()
    if daemon.failure is not None:
        raise daemon.failure


def _announce_end(daemon: Daemon, outbox: int) -> None:
    daemon.join()
    os.write(outbox, bytes([_LEFT]))


class _Making:
    """The handler of signals: it stands there so that they are noticed at all.

    Until there is a daemon that could leave, the second ends what makes it: a large file may be migrated there.
    """

    def __init__(self) -> None:
        self.over = False
        self._heard = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a signal handler
        self._heard += 1
        if self._heard > 1 and not self.over:
            raise KeyboardInterrupt


@contextmanager
def _signals_to(outbox: int, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have signals write their number to ``outbox``; only the main thread may, in another they stay as they are.

    The interpreter's own C handler writes: a handler in Python runs between two steps of this thread, perhaps after
    it has begun to wait for what the handler was to say, and perhaps while it holds the daemon's locks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signals.Taken(_SIGNALS, handler, outbox):
        yield
