"""Ctrl-C and its relatives, counted instead of thrown.

A KeyboardInterrupt lands between any two instructions, also in the middle of a transaction or of a line on the
screen. While something runs that wants to end in order, signals only count, and wake the loop through a pipe that the
interpreter's own C handler writes to: it does so whichever thread the signal came to.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeVar

from jobd.signals import Taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, TracebackType

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Within the context ``count`` says how often the user asked to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._throws = False
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
        self.close()

    def close(self) -> None:
        """Give the signals back, if that was not done yet."""
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.__exit__(None, None, None)
            os.close(self._reader)
            os.close(self._writer)

    def pause(self, seconds: float) -> None:
        """Wait, or less where a signal comes."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 64)

    @contextmanager
    def throwing(self) -> Iterator[None]:
        """Let a signal raise within the block: what waits there could not be told otherwise.

        Raises:
            KeyboardInterrupt: one has come, perhaps before.
        """
        self._throws = True
        try:
            if self.count:
                raise KeyboardInterrupt
            yield
        finally:
            self._throws = False

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, which somebody may have to type; between two of them signals only count.

        Raises:
            KeyboardInterrupt: as in ``throwing``, before the next item.
        """
        source = iter(items)
        while True:
            with self.throwing():
                found = list(islice(source, 1))
            if not found:
                return
            yield found[0]

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a signal handler
        self.count += 1
        if self._throws:
            raise KeyboardInterrupt
