"""The process executor: as many worker processes as there are places, each spoken to by a thread of its own.

A process can be killed. So what was given up or cancelled is ended, its place free again within a second; what crashes
takes nothing along but the one item that it ran.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from jobd import clock, loading
from jobd.engine.answer import Answer, answer_to, output
from jobd.engine.calls import serve, told
from jobd.engine.child import END
from jobd.engine.crew import Crew, words
from jobd.engine.line import line_to
from jobd.engine.points import reach
from jobd.engine.runner import begin, conclude, context_of
from jobd.engine.threads import Threads
from jobd.engine.worker import Died, program_of
from jobd.errors import UsageError
from jobd.policy import PROCESS
from jobd.states import CANCELLED, FAILED
from jobd.store.outcome import RELEASED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.context import Line
    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.engine.worker import Worker
    from jobd.loading import Place
    from jobd.store import Store
    from jobd.store.outcome import Outcome
    from jobd.tasks import Task

_BEFORE: Final = Answer(CANCELLED, None, "Cancelled", "before it began")
_KILLED: Final = Answer(CANCELLED, None, "Cancelled", "killed: it went on after it was asked to end")


class Processes:
    """Runs attempts in ``size`` worker processes. What a handler leaves running ends with its worker.

    ``deliver`` takes an outcome to the dispatcher, ``freed`` tells it that a place that was lost is there again;
    ``within`` calls what runs an attempt, and sees to what no attempt may raise. One worker has imported the tasks when
    the constructor returns.

    Raises:
        UsageError: one of the tasks cannot be imported, or no process can be started.
    """

    shares_process = False
    tells_late = False
    abandoned = 0  # what is given up is ended
    spare = 0  # and its place is free when that is over

    def __init__(
        self,
        size: int,
        *,
        store: Store,
        tasks: Mapping[str, Task[..., object]],
        deliver: Deliver,
        freed: Callable[[], None],
        within: Callable[[Callable[[Attempt], Outcome], Attempt], Outcome],
    ) -> None:
        self.size = size
        self._store = store
        self._outward = deliver
        self._freed = freed
        self._places = {
            name: loading.place_of(task.function, f"task {name}")
            for name, task in tuple(tasks.items())
            if task.policy.isolation == PROCESS
        }
        self._crew = Crew(program_of(self._places))
        self._lock = threading.Lock()
        self._running: dict[Attempt, Worker] = {}
        self._given_up: set[Attempt] = set()
        self._threads = Threads(
            size,
            run=lambda attempt: within(self._run, attempt),
            deliver=self._deliver,
            at_start=self._crew.join,
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
            job, line = self._job(attempt)
        except UsageError as error:
            # A task that was registered after the first worker had started.
            return answer_to(error, ())
        try:
            worker.ask(job)
            while (heard := worker.hear())[0] != END:
                serve(worker, heard, attempt, line)
        except (Died, OSError):
            return self._died(worker, attempt)
        reach("handler.after")
        _, signalled, *answer = heard
        if signalled and not worker.doomed:
            # By somebody else: nobody cancels this attempt. It has left.
            worker.doomed = True
            return _fallen(attempt, -signal.SIGTERM)
        return Answer(*answer)

    def _job(self, attempt: Attempt) -> tuple[dict[str, Any], Line]:
        """Return what the worker is told of an attempt, and the line that its calls take."""
        claimed, task = attempt.claimed, attempt.task
        line = line_to(
            self._store,
            lambda: attempt.cancelled,
            period=attempt.period,
            refresh=attempt.claimed.refresh,
            polled=task.poller is not None,
        )
        context = attempt.context = context_of(attempt, line) if task.wants_context else None
        job = {
            "task": task.name,
            "place": self._place(task),
            "retry_on": [loading.class_name(one) for one in task.policy.retry_on],
            "payload": claimed.payload,
            "params": claimed.params if context is not None else None,
            "ctx": None if context is None else told(context),
            "db": self._store.path,
        }
        return job, line

    def _place(self, task: Task[..., object]) -> Place:
        if task.name not in self._places:
            self._places[task.name] = loading.place_of(task.function, f"task {task.name}")
        return self._places[task.name]

    def _died(self, worker: Worker, attempt: Attempt) -> Answer:
        asked = worker.doomed
        worker.end()
        return _KILLED if asked else _fallen(attempt, worker.code)

    def _deliver(self, attempt: Attempt, outcome: Outcome) -> None:
        given_up = attempt in self._given_up
        if not given_up:
            self._outward(attempt, outcome)
        self._crew.renew(attempt.task.policy)
        if given_up:
            self._regain(attempt)

    def _leave(self) -> None:
        self._crew.give_up()
        self._store.close()

    def _regain(self, attempt: Attempt) -> None:
        """Give its place back, once there is a warm worker for it."""
        # Who needs it tries again and says so.
        with contextlib.suppress(OSError, UsageError):
            self._crew.mine()
        with self._lock:
            self._given_up.discard(attempt)
            self.size += 1
        self._freed()


def _fallen(attempt: Attempt, code: int | None) -> Answer:
    """Return what it means that a worker ended by itself, which is tried again as any exception is."""
    wanted = any(issubclass(Exception, one) for one in attempt.task.policy.retry_on)
    return Answer(FAILED, None, "WorkerDied", words(code), wanted=wanted)
