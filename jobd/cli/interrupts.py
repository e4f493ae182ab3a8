"""Ctrl-C and its relatives, counted instead of thrown.

A KeyboardInterrupt lands between any two instructions, also in the middle of a transaction or of a line on the
screen. While something runs that wants to end in order, signals only count, and wake the loop through a pipe that the
interpreter's own C handler writes to: it does so whichever thread the signal came to.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Final, Self

from jobd.signals import Taken

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Within the context ``count`` says how often the user asked to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._reader, self._writer = -1, -1
        self._taken: Taken | None = None

    def __enter__(self) -> Self:
        """Take the signals over."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self._reader, False)
        self._taken = Taken(_SIGNALS, self._note, self._writer).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        if self._taken is not None:
            self._taken.__exit__(kind, error, trace)
        os.close(self._reader)
        os.close(self._writer)

    def pause(self, seconds: float) -> None:
        """Wait, or less where a signal comes."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 64)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a signal handler
        self.count += 1
