"""Signals taken over for a while, by this process and by none that it forks.

A forked child begins with its parent's handlers, and with the pipe that the interpreter's own C handler writes to. Told
to end, as ``multiprocessing`` tells its processes, it would go on, and its parent believe that it was told itself.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, TracebackType


class Taken:
    """Within the context signals go to ``handler``, and their numbers, one byte each, to the descriptor ``outbox``.

    One that is ignored stays so: nohup and ``&`` mean it. Only the main thread may enter.
    """

    def __init__(self, numbers: Iterable[int], handler: Callable[[int, FrameType | None], None], outbox: int) -> None:
        self._numbers = tuple(numbers)
        self._handler = handler
        self._outbox = outbox
        self.former: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Self:
        """Take the signals over."""
        former = {number: signal.getsignal(number) for number in self._numbers}
        self.former = {number: handler for number, handler in former.items() if handler is not signal.SIG_IGN}
        self._wakeup = signal.set_wakeup_fd(self._outbox, warn_on_full_buffer=False)
        # Before the first handler is in place: another thread may fork at any time.
        _taken.append(self)
        try:
            for number in self.former:
                signal.signal(number, self._handler)
        except BaseException:
            # Ctrl-C before its own handler was in place.
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        self.restore_handlers()
        signal.set_wakeup_fd(self._wakeup)
        if self in _taken:  # in a forked child it is there no more
            _taken.remove(self)

    def restore_handlers(self) -> None:
        """Set the handlers as they were found."""
        for number, handler in self.former.items():
            # None: it was not set from Python, and cannot be set back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_taken: Final[list[Taken]] = []
_forking: Final = threading.local()


def _before_fork() -> None:
    # What is sent to the child before it has given the signals back waits until it has.
    numbers = {number for taken in _taken for number in taken.former}
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    if _taken:
        signal.set_wakeup_fd(-1)
    while _taken:
        _taken.pop().restore_handlers()
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
