"""The asyncio tasks of a thread share its connection, and with it a transaction that one of them has open.

What another task writes while the one awaits would join its transaction: acknowledged, and lost where that is rolled
back. So a block of ``atomic()`` that has awaited is rolled back, and who comes by meanwhile is refused.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT: Final = "no await within app.atomic()"


class Held:
    """A transaction of one task. ``awaited`` once the loop has had a turn since it began."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.awaited = False

    def turn(self) -> None:
        """Note a turn of the loop."""
        self.awaited = True

    def check(self) -> None:
        """Refuse the commit of one that has awaited.

        Raises:
            UsageError: it has.
        """
        if self.awaited:
            raise UsageError("the block awaited with its transaction open; it was rolled back", hint=_HINT)


class Loops(threading.local):
    """Whose transaction is open in the calling thread."""

    def __init__(self) -> None:
        self._held: Held | None = None

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """Have the transaction of the block be that of the task which runs; outside of a loop it is nobody's."""
        loop, task = _running()
        held = Held(task)
        turn = None if loop is None else loop.call_soon(held.turn)
        self._held = held
        try:
            yield held
        finally:
            self._held = None
            if turn is not None:
                turn.cancel()

    def join(self) -> None:
        """Refuse to write into the open transaction of another task.

        Raises:
            UsageError: it is another's.
        """
        if self._held is not None and self._held.task is not None and self._held.task is not _running()[1]:
            raise UsageError("another asyncio task of this thread has a transaction open", hint=_HINT)


def _running() -> tuple[Any, Any]:
    """Return the event loop of the calling thread and its running task; a program without asyncio loads none."""
    asyncio = sys.modules.get("asyncio")
    try:
        return (None, None) if asyncio is None else (asyncio.get_running_loop(), asyncio.current_task())
    except RuntimeError:  # none runs
        return None, None
