"""Small writes of several threads that come at once share one transaction and its commit.

Each waits for the process's write mutex. Whoever gets it runs all that have come by then, each behind a savepoint, and
commits once; the others find theirs answered when their turn comes. Nothing but answers changes hands: where the one
that ran them failed or was interrupted, nothing was stored, and each of the others runs its own.
"""

from __future__ import annotations

from collections import deque
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobd.store.base import Connection

# A submission takes about 0.1 ms: these together stay far below the 10 ms that a transaction may take.
MOST: Final = 32
_ALONE: Final = 8  # writes in a row of one thread


class Asked:
    """One write that waits. ``error`` is what it alone raised: the others' were stored."""

    __slots__ = ("answer", "answered", "error", "taken", "work")

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.answered = False
        self.taken = False  # somebody runs it just now
        self.answer: Any = None
        self.error: Exception | None = None


class Waiting:
    """The writes that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque()
        self._taking = Lock()
        self._asker = 0
        self._streak = 0

    @property
    def company(self) -> bool:
        """Say whether another thread has asked lately. One that asks alone has nobody to wait for: on a busy machine
        each moment's wait costs it its processor, and with that most of its pace.
        """
        return self._streak < _ALONE

    def add(self, work: Callable[[Connection], Any]) -> Asked:
        """Put a write into the row."""
        thread = get_ident()
        self._streak = self._streak + 1 if thread == self._asker else 0
        self._asker = thread
        asked = Asked(work)
        self._asked.append(asked)
        return asked

    def forget(self, asked: Asked) -> None:
        """Take a write out of the row, if it still stands there."""
        if asked in self._asked:
            self._asked.remove(asked)

    def with_others(self, mine: Asked) -> list[Asked]:
        """Return ``mine`` and those that wait beside it, as many as share one transaction."""
        with self._taking:
            others = [asked for asked in tuple(self._asked) if asked is not mine]
            together = [mine, *others[: MOST - 1]]
            for asked in together:
                asked.taken = True
        return together

    def release(self, together: Iterable[Asked]) -> None:
        """Let go of writes that were run together, whatever came of it."""
        for asked in together:
            asked.taken = False

    def withdraw(self, asked: Asked) -> bool:
        """Take a write out of the row for good, unless somebody runs it just now; say whether it is out."""
        with self._taking:
            if not asked.taken:
                self.forget(asked)
            return not asked.taken
