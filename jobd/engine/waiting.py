"""Attempts that wait for a place, in the order in which they came."""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobd.engine.runner import Attempt


class Waiting:
    """First in, first out, from any thread. What was taken from it has begun, or was given back: never both."""

    def __init__(self) -> None:
        self._line: collections.deque[Attempt] = collections.deque()
        # Whoever looks at the first in line and then takes it must find the same one there.
        self._looking = threading.Lock()

    def __len__(self) -> int:
        return len(self._line)

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Put these at the end."""
        self._line.extend(attempts)

    def put_back(self, attempt: Attempt) -> None:
        """Put one at the beginning that could not begin after all."""
        self._line.appendleft(attempt)

    def next(self) -> Attempt | None:
        """Take the first one; None where nobody waits."""
        with self._looking:
            return self._line.popleft() if self._line else None

    def take_back(self, claimed_before: float | None = None) -> list[Attempt]:
        """Take all of them, or those claimed before an awake time."""
        taken: list[Attempt] = []
        with self._looking:
            # Whatever is behind one that is young enough is younger still.
            while self._line and (claimed_before is None or self._line[0].claimed_at < claimed_before):
                taken.append(self._line.popleft())
        return taken

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""
        with self._looking:
            return self._line[0].claimed_at if self._line else None
