"""An executor without threads: what is handed to it runs in the thread that tells it to work."""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING

from jobd import clock
from jobd.store.outcome import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome


class OneByOne:
    """Runs attempts when it is told to ``work``, in the thread that tells it."""

    size = 1
    abandoned = 0
    spare = 0
    ailment = None
    shares_process = True
    tells_late = False

    def __init__(self, *, run: Callable[[Attempt], Outcome], deliver: Deliver) -> None:
        self._run = run
        self._deliver = deliver
        self._line: collections.deque[Attempt] = collections.deque()
        self._pid = os.getpid()

    def work(self) -> None:
        """Run what is in line.

        Raises:
            KeyboardInterrupt: as the handler was interrupted; its attempt is given back.
        """
        while self._line:
            attempt = self._line.popleft()
            try:
                outcome = self._run(attempt)
            except KeyboardInterrupt:
                now = clock.now()
                self._deliver(attempt, attempt.outcome(STOPPED, now, now, error="interrupted from the keyboard"))
                raise
            if os.getpid() != self._pid:
                # A handler forked and its child came back here: it is a copy of a daemon that it must not be.
                os._exit(0)
            self._deliver(attempt, outcome)

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""
        self._line.extend(attempts)

    def waiting(self) -> int:
        """Return how many attempts have not begun."""
        return len(self._line)

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:  # noqa: ARG002 - none grows old here
        """Return the attempts that now never begin."""
        taken = list(self._line)
        self._line.clear()
        return taken

    def oldest(self) -> float | None:
        """Return None: what is in line is the very next to run."""
        return None

    def cancel(self, attempt: Attempt) -> None:
        """Leave it: a handler looks by itself, by ``ctx.raise_if_cancelled``."""

    def abandon(self, attempt: Attempt) -> None:
        """Leave it: where nobody looks while an attempt runs, none is given up."""

    def close(self) -> None:
        """Leave: there is no thread to end."""
