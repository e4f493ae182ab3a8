"""The thread executor: a fixed number of worker threads over what waits in line.

A thread cannot be killed. One whose attempt was given up runs on, and a fresh thread takes its place: until there are
twice as many threads as asked for. Beyond that the place stays empty until one of those that hang comes back.
"""

from __future__ import annotations

import collections
import itertools
import os
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome


def _nothing() -> None:
    pass


class Threads:
    """Runs attempts in ``size`` daemon threads: they never keep the interpreter from leaving.

    ``run`` makes an outcome of an attempt and never raises; ``deliver`` takes it to the dispatcher; ``at_start`` and
    ``at_end`` make and end a thread's own resources (its connection). ``abandoned`` counts the threads that hang.
    """

    shares_process = True
    tells_late = True

    def __init__(
        self,
        size: int,
        *,
        run: Callable[[Attempt], Outcome],
        deliver: Callable[[Attempt, Outcome], None],
        at_end: Callable[[], None],
        at_start: Callable[[], None] = _nothing,
    ) -> None:
        self.size = self._most = size
        self.abandoned = 0
        self._run = run
        self._deliver = deliver
        self._at_start = at_start
        self._at_end = at_end
        self._line: collections.deque[Attempt] = collections.deque()
        # What a worker waits for that has found the line empty: a call to look again, or the word to leave. Apart from
        # the line, so that this can be looked at and taken from without losing its order.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._pid = os.getpid()
        # What runs. Whoever takes an attempt out of it, its thread or who gives it up, has decided: once.
        self._running: dict[Attempt, bool] = {}
        self._places = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = False
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name=f"jobd-worker-{next(self._numbers)}", daemon=True).start()

    @property
    def spare(self) -> int:
        """How many more attempts can be given up, and each leave its place to another: a fresh thread."""
        return max(0, self._most - self.abandoned)

    @property
    def ailment(self) -> str | None:
        """Why it runs less than it should; None while it is well."""
        if self.size >= self._most:
            return None
        return f"{self.abandoned} thread{' hangs' if self.abandoned == 1 else 's hang'}"

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""
        self._line.extend(attempts)
        # Whoever runs something looks at the line again by itself, and who is called twice finds it empty: more calls
        # than workers wake nobody.
        for _ in range(min(len(attempts), self._most - self._calls.qsize())):
            self._calls.put(True)

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""
        return len(self._line)

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        taken: list[Attempt] = []
        while (attempt := self._next()) is not None:
            if claimed_before is not None and attempt.claimed_at >= claimed_before:
                # First in, first out: whatever is behind this one is younger still. A worker that found nothing
                # meanwhile is called again.
                self._line.appendleft(attempt)
                self._calls.put(True)
                break
            taken.append(attempt)
        return taken

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""
        try:
            return self._line[0].claimed_at
        except IndexError:
            return None

    def _next(self) -> Attempt | None:
        try:
            return self._line.popleft()
        except IndexError:
            return None

    def cancel(self, attempt: Attempt) -> None:
        """Leave it: a thread looks by itself, by ``ctx.raise_if_cancelled``."""

    def abandon(self, attempt: Attempt) -> None:
        """Give up a thread that runs ``attempt``: it ends when that returns. One that has returned stays."""
        if not self._running.pop(attempt, False):
            return
        with self._places:
            self.abandoned += 1
            if self._closed or self.abandoned > self._most:
                self.size -= 1
                return
        self._start()

    def close(self) -> None:
        """Let every thread end after what it runs now."""
        with self._places:
            self._closed = True
            size = self.size
        for _ in range(size):
            self._calls.put(False)

    def _work(self) -> None:
        try:
            self._at_start()
            stays = True
            while stays:
                # Once it is closed nothing more begins: what is left in line is whoever's that closes it.
                attempt = None if self._closed else self._next()
                if attempt is None:
                    if not self._calls.get():
                        break
                    continue
                self._running[attempt] = True
                outcome = self._run(attempt)
                if os.getpid() != self._pid:
                    # A handler forked and its child came back here: it is a copy of a daemon that it must not be.
                    os._exit(0)
                stays = self._running.pop(attempt, False) or self._come_back()
                self._deliver(attempt, outcome)
        finally:
            self._at_end()

    def _come_back(self) -> bool:
        """A thread that was given up has returned; say whether there is a place for it."""
        with self._places:
            self.abandoned -= 1
            wanted = self.size < self._most and not self._closed
            self.size += wanted
        return wanted
