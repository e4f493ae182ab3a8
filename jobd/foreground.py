"""A daemon in the foreground: it runs until a signal, or until it leaves by itself."""

from __future__ import annotations

import queue
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.engine.daemon import Daemon

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(daemon: Daemon) -> None:
    """Start ``daemon`` and return once it has left: on the first signal it drains, on the second it leaves at once.

    Raises:
        JobdError: why it left by itself.
    """
    # A handler interrupts this thread anywhere, so it must not call the daemon, whose locks this thread may hold: it
    # leaves a word in a queue made for that.
    inbox: queue.SimpleQueue[bool] = queue.SimpleQueue()
    with _signals_to(inbox):
        daemon.start()
        threading.Thread(target=_announce_end, args=(daemon, inbox), name="jobd-end", daemon=True).start()
        drain = True
        while inbox.get():
            daemon.stop(drain=drain)
            drain = False
        daemon.join()
    if daemon.failure is not None:
        raise daemon.failure


def _announce_end(daemon: Daemon, inbox: queue.SimpleQueue[bool]) -> None:
    daemon.join()
    inbox.put(False)


@contextmanager
def _signals_to(inbox: queue.SimpleQueue[bool]) -> Iterator[None]:
    """Turn signals into ``True`` in the inbox; only the main thread may, in another they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: Any) -> None:  # noqa: ARG001 - the shape of a signal handler
        inbox.put(True)

    former = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            # None: it was not set from Python, and cannot be set back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
