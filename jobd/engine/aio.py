"""The asyncio executor: one thread with one event loop for all async handlers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from jobd.engine.waiting import Waiting
from jobd.policy import ASYNCIO, HANDLERS
from jobd.states import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome
    from jobd.tasks import Task

log = logging.getLogger("jobd.asyncio")

ROUNDS: Final = 100  # of cancelling what still runs
LEAVE: Final = 0.5  # seconds that cancelled handlers have to leave while the daemon waits for them


class Aio:
    """Runs each attempt as a task of one event loop: as many at once as its tasks' ``concurrency`` comes to.

    A time-out and a cancel really cancel: ``CancelledError`` is raised where the handler awaits. One that swallows it
    and goes on counts as abandoned until it returns. Beyond as many of those as there are places they cost places.

    Handlers share the thread with the loop. What does not await holds all of them up, and so do the context's calls,
    each for the length of one commit. While the store is busy that may be 5 seconds, and then the call raises
    ``StoreBusy``; a result that was to be saved is kept, and stored with the outcome.

    ``run`` makes an outcome of an attempt and never raises; ``deliver`` takes it to the dispatcher; ``at_end`` ends the
    thread's own resources (its connection).
    """

    shares_process = True
    tells_late = False

    def __init__(
        self,
        tasks: Mapping[str, Task[..., object]],
        *,
        run: Callable[[Attempt], Coroutine[Any, Any, Outcome]],
        deliver: Deliver,
        at_end: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._run = run
        self._deliver = deliver
        self._at_end = at_end
        self._line = Waiting()
        self._pid = os.getpid()
        # What runs, and those of it that were given up. Looked at by the dispatcher, changed by both.
        self._running: dict[Attempt, asyncio.Task[None]] = {}
        self._given_up: set[Attempt] = set()
        self._looking = threading.Lock()
        self._closed = False
        self._ended = False
        self._left = threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._live, name="jobd-asyncio", daemon=True).start()

    # -- its places -----------------------------------------------------------------------------------------------

    @property
    def _places(self) -> int:
        tasks = tuple(self._tasks.values())
        return sum(task.policy.concurrency or HANDLERS for task in tasks if task.policy.isolation == ASYNCIO)

    @property
    def size(self) -> int:
        """How many attempts may run at once."""
        places = self._places
        return max(0, min(places, 2 * places - len(self._given_up)))

    @property
    def abandoned(self) -> int:
        """How many handlers swallowed that they were cancelled, and run on."""
        return len(self._given_up)

    @property
    def spare(self) -> int:
        """How many more attempts can be given up, and each leave its place to another."""
        return max(0, self._places - len(self._given_up))

    @property
    def ailment(self) -> str | None:
        """Why it runs less than it should; None while it is well."""
        hang = len(self._given_up)
        return f"{hang} async handler{' hangs' if hang == 1 else 's hang'}" if self.size < self._places else None

    # -- what the dispatcher calls --------------------------------------------------------------------------------

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they begin in this order."""
        self._line.add(attempts)
        self._call(self._begin, len(attempts))

    def waiting(self) -> int:
        """Return about how many attempts have not begun: the loop is held up where any have not."""
        return len(self._line)

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        return self._line.take_back(claimed_before)

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""
        return self._line.oldest()

    def cancel(self, attempt: Attempt) -> None:
        """Cancel the handler where it awaits."""
        self._call(self._cancel, attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Cancel the handler; its place is another's at once, and unless it goes on, nothing is heard of it again."""
        with self._looking:
            if attempt not in self._running:
                return
            self._given_up.add(attempt)
        self._call(self._cancel, attempt)

    def close(self) -> None:
        """Cancel what runs, and end the loop when that has left. Waits a moment for it, no longer."""
        with self._looking:
            closed, self._closed = self._closed, True
        if not closed:
            self._call(self._end)
        self._left.wait(LEAVE)

    # -- in the loop's thread -------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        # Once it is closed there is nothing to begin and nothing to cancel.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _live(self) -> None:
        try:
            while not self._ended:
                try:
                    self._loop.run_forever()
                except BaseException:  # the loop lets SystemExit through where a handler's own task ends so
                    log.warning("a task of an async handler left the event loop; the others go on", exc_info=True)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
        finally:
            self._at_end()
            self._left.set()

    def _begin(self, count: int) -> None:
        for _ in range(count):
            # Each takes its attempt when it really begins: until then it can be taken back.
            self._loop.create_task(self._work())

    async def _work(self) -> None:
        attempt, task = self._line.next(), asyncio.current_task()
        if attempt is None or task is None:
            return  # taken back
        with self._looking:
            self._running[attempt] = task
        outcome = await self._run(attempt)
        if os.getpid() != self._pid:
            # A handler forked and its child came back here: it is a copy of a daemon that it must not be.
            os._exit(0)
        if self._forget(attempt) or outcome.kind != CANCELLED:
            self._deliver(attempt, outcome)

    def _forget(self, attempt: Attempt) -> bool:
        """An attempt has ended; say whether that must be told, even if it was cancelled as it was asked to."""
        with self._looking:
            del self._running[attempt]
            if attempt not in self._given_up:
                return True
            # Who claims learns of a place that is there again by what is delivered.
            lost = self.size < self._places
            self._given_up.discard(attempt)
            return lost

    def _cancel(self, attempt: Attempt) -> None:
        if attempt in self._running:
            self._running[attempt].cancel()

    def _end(self) -> None:
        # The loop itself remembers its tasks only weakly.
        self._leaving = self._loop.create_task(self._leave())

    async def _leave(self) -> None:
        # Also what handlers have begun and not awaited, and what they begin while they leave; but one that begins
        # another whenever it is cancelled would be cancelled for ever.
        rounds = itertools.count()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            if next(rounds) < ROUNDS:
                for task in others:
                    task.cancel()
            await asyncio.wait(others)
        self._ended = True
        self._loop.stop()
