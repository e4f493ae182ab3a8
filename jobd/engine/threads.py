"""The thread executor: a fixed number of worker threads over one queue."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.engine.runner import Attempt
    from jobd.store.settle import Outcome


class Threads:
    """Runs attempts in ``size`` daemon threads: they never keep the interpreter from leaving.

    ``run`` makes an outcome of an attempt and never raises; ``deliver`` takes it to the dispatcher; ``close`` ends a
    thread's own resources (its connection) when the thread ends.
    """

    def __init__(
        self,
        size: int,
        *,
        run: Callable[[Attempt], Outcome],
        deliver: Callable[[Attempt, Outcome], None],
        at_end: Callable[[], None],
    ) -> None:
        self.size = size
        self._run = run
        self._deliver = deliver
        self._at_end = at_end
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._threads = [
            threading.Thread(target=self._work, name=f"jobd-worker-{number}", daemon=True)
            for number in range(1, size + 1)
        ]
        for thread in self._threads:
            thread.start()

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""
        for attempt in attempts:
            self._queue.put(attempt)

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""
        return self._queue.qsize()

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        taken: list[Attempt] = []
        while True:
            try:
                attempt = self._queue.get_nowait()
            except queue.Empty:
                return taken
            if attempt is None or (claimed_before is not None and attempt.claimed_at >= claimed_before):
                # First in, first out: whatever is behind this one is younger still.
                self._queue.put(attempt)
                return taken
            taken.append(attempt)

    def close(self) -> None:
        """Let every thread end after what it runs now."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        try:
            while (attempt := self._queue.get()) is not None:
                outcome = self._run(attempt)
                if os.getpid() != self._pid:
                    # A handler forked and its child came back here: it is a copy of a daemon that it must not be.
                    os._exit(0)
                self._deliver(attempt, outcome)
        finally:
            self._at_end()
