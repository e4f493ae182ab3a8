"""The process executor: as many worker processes as there are places, each spoken to by a thread of its own.

A process can be killed. So what was given up or cancelled is ended, its place free again within a second; what crashes
takes nothing along but the one item that it ran.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Protocol

from jobd import clock
from jobd.engine.answer import Answer, output
from jobd.engine.crew import words
from jobd.engine.points import reach
from jobd.engine.runner import begin, conclude
from jobd.engine.threads import Threads
from jobd.engine.worker import Died
from jobd.errors import UsageError
from jobd.states import CANCELLED, FAILED
from jobd.store.outcome import RELEASED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.engine.crew import Crew
    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.engine.worker import Worker
    from jobd.store.outcome import Outcome

_BEFORE: Final = Answer(CANCELLED, None, "Cancelled", "before it began")
_KILLED: Final = Answer(CANCELLED, None, "Cancelled", "killed: it went on after it was asked to end")


class Asked(Protocol):
    """Whoever has workers run attempts: which these are, and how one is asked."""

    crew: Crew

    def at_start(self) -> None:
        """Do what each thread of the executor begins with."""

    def ask(self, worker: Worker, attempt: Attempt) -> Answer:
        """Have ``worker`` run an attempt and return what came of it; raise Died or OSError where it dies over that."""


class Processes:
    """Runs attempts in ``size`` worker processes, as ``asked``. What one leaves running ends with its worker.

    ``deliver`` takes an outcome to the dispatcher, ``freed`` tells it that a place that was lost is there
    again; ``within`` calls what runs an attempt, and sees to what no attempt may raise.
    """

    shares_process = False
    tells_late = False
    abandoned = 0  # what is given up is ended
    spare = 0  # and its place is free when that is over

    def __init__(
        self,
        size: int,
        *,
        asked: Asked,
        deliver: Deliver,
        freed: Callable[[], None],
        within: Callable[[Callable[[Attempt], Outcome], Attempt], Outcome],
        at_end: Callable[[], None],
    ) -> None:
        self.size = size
        self._crew = asked.crew
        self._ask = asked.ask
        self._outward = deliver
        self._freed = freed
        self._at_end = at_end
        self._lock = threading.Lock()
        self._running: dict[Attempt, Worker] = {}
        self._given_up: set[Attempt] = set()
        self._threads = Threads(
            size,
            run=lambda attempt: within(self._run, attempt),
            deliver=self._deliver,
            at_start=asked.at_start,
            at_end=self._leave,
        )

    # -- what the dispatcher asks ---------------------------------------------------------------------------------

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""
        self._threads.hand(attempts)

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""
        return self._threads.waiting()

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        return self._threads.take_back(claimed_before=claimed_before)

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""
        return self._threads.oldest()

    def cancel(self, attempt: Attempt) -> None:
        """End the worker that runs ``attempt``; what that says in time is the outcome, else that it was killed."""
        with self._lock:
            worker = self._running.get(attempt)
        if worker is not None:
            worker.ask_to_end()

    def abandon(self, attempt: Attempt) -> None:
        """End the worker that runs ``attempt``: nothing of it is delivered, and its place is lost until then."""
        with self._lock:
            worker = self._running.get(attempt)
            if worker is not None:
                self._given_up.add(attempt)
                self.size -= 1
        if worker is not None:
            worker.ask_to_end()

    def close(self) -> None:
        """Begin nothing more, and end what still runs: when this returns, no worker is left."""
        self._threads.close()
        self._crew.close()

    @property
    def ailment(self) -> str | None:
        """Why it runs less than it should; None while it is well."""
        return self._crew.ailment

    # -- one attempt, in the thread of its place ------------------------------------------------------------------

    def _run(self, attempt: Attempt) -> Outcome:
        try:
            worker = self._crew.mine()
        except (OSError, UsageError):
            # Not the item's fault: it is given back, and the next worker may be able to start.
            now = clock.now()
            return attempt.outcome(RELEASED, now, now)
        begin(attempt)
        with self._lock:
            self._running[attempt] = worker
        try:
            answer = _BEFORE if attempt.cancelled else self._answer(worker, attempt)
        except BaseException:
            worker.doomed = True  # in the middle of something
            raise
        finally:
            with self._lock:
                del self._running[attempt]
            if worker.doomed or worker.over:
                self._crew.give_up()
        attempt.seconds = clock.awake() - attempt.began
        context = attempt.context
        kept = output(context.output() if context is not None else None, answer.trace)
        return conclude(attempt, answer, kept, saved=context is not None and context.saved)

    def _answer(self, worker: Worker, attempt: Attempt) -> Answer:
        reach("handler.before")
        try:
            answer = self._ask(worker, attempt)
        except (Died, OSError):
            return self._died(worker, attempt)
        reach("handler.after")
        return answer

    def _died(self, worker: Worker, attempt: Attempt) -> Answer:
        asked = worker.doomed
        worker.end()
        return _KILLED if asked else fallen(attempt, worker.code)

    def _deliver(self, attempt: Attempt, outcome: Outcome) -> None:
        given_up = attempt in self._given_up
        if not given_up:
            self._outward(attempt, outcome)
        self._crew.renew(attempt.task.policy)
        if given_up:
            self._regain(attempt)

    def _leave(self) -> None:
        self._crew.give_up()
        self._at_end()

    def _regain(self, attempt: Attempt) -> None:
        """Give its place back, once there is a warm worker for it."""
        # Who needs it tries again and says so.
        with contextlib.suppress(OSError, UsageError):
            self._crew.mine()
        with self._lock:
            self._given_up.discard(attempt)
            self.size += 1
        self._freed()


def fallen(attempt: Attempt, code: int | None) -> Answer:
    """Return what it means that a worker ended by itself, which is tried again as any exception is."""
    return Answer(FAILED, None, "WorkerDied", words(code), wanted=attempt.policy.retries_on(Exception))
