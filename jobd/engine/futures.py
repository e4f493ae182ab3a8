"""Any executor of ``concurrent.futures`` as one that runs items: a pool of the program's own, or a cluster's client."""

from __future__ import annotations

import functools
import queue
import threading
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Final

from jobd import clock, loading
from jobd.engine import remote
from jobd.engine.answer import Answer, answer_to, output
from jobd.engine.runner import begin, conclude
from jobd.engine.waiting import Waiting
from jobd.errors import UsageError
from jobd.hooks import idempotency_key
from jobd.states import CANCELLED, FAILED
from jobd.store.outcome import RELEASED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor, Future

    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.loading import Place
    from jobd.store import SqliteStore
    from jobd.store.outcome import Outcome
    from jobd.tasks import Task

# Modules of executors whose items run in other processes. Of others nothing is known, and an item that crashes there
# may take the daemon along.
_APART: Final = ("concurrent.futures.process", "distributed", "loky")


class Futures:
    """Runs attempts in ``executor``, which belongs to the program: it is never shut down here.

    There are as many places as it has workers, where it says how many, else ``workers``. An attempt begins when it is
    handed over: what the program itself has in line there counts into its time. Nothing that runs can be ended; one
    that was given up keeps its place until it returns.

    ``name`` is what the app calls it, ``deliver`` takes outcomes to the dispatcher.

    Raises:
        UsageError: the handler of one of its tasks cannot be found by name, as it must be over there.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        name: str,
        workers: int,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        deliver: Deliver,
    ) -> None:
        self._executor = executor
        self._name = name
        self._places: int = getattr(executor, "_max_workers", None) or workers
        self._store = store
        self._deliver = deliver
        self.tells_late = True
        self.shares_process = not type(executor).__module__.startswith(_APART)
        self._line = Waiting()
        # None: it is being handed over, and may run already.
        self._running: dict[Attempt, Future[remote.Report] | None] = {}
        self._given_up: set[Attempt] = set()
        self._broken: str | None = None
        self._found = {task.name: _place(task) for task in tuple(tasks.values()) if task.policy.isolation == name}
        self._looking = threading.Lock()
        # A call to look at the line, or the word to leave.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        remote.share(store)
        threading.Thread(target=self._feed, name=f"jobd-futures-{name}", daemon=True).start()

    # -- its places -----------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many attempts may run at once."""
        return 0 if self._broken else max(0, self._places - len(self._given_up))

    @property
    def abandoned(self) -> int:
        """How many attempts were given up and run on."""
        return len(self._given_up)

    @property
    def spare(self) -> int:
        """Return 0: each that is given up keeps its worker."""
        return 0

    @property
    def ailment(self) -> str | None:
        """Why it runs less than it should; None while it is well."""
        if self._broken:
            return f"executor {self._name} takes no more: {self._broken}"
        hang = len(self._given_up)
        return f"{hang} item{' hangs' if hang == 1 else 's hang'} in executor {self._name}" if hang else None

    # -- what the dispatcher calls --------------------------------------------------------------------------------

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they begin in this order."""
        self._line.add(attempts)
        self._calls.put(True)

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""
        return len(self._line)

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        return self._line.take_back(claimed_before)

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""
        return self._line.oldest()

    def cancel(self, attempt: Attempt) -> None:
        """End one that the executor has not begun; another looks by itself, by ``ctx.raise_if_cancelled``."""
        future = self._running.get(attempt)
        if future is not None:
            future.cancel()

    def abandon(self, attempt: Attempt) -> None:
        """Give up an attempt: its place is another's when it returns."""
        with self._looking:
            if attempt not in self._running:
                return
            self._given_up.add(attempt)
            future = self._running[attempt]
        if future is not None:
            future.cancel()

    def close(self) -> None:
        """Begin nothing more."""
        self._calls.put(False)
        for future in tuple(self._running.values()):
            if future is not None:
                future.cancel()
        remote.unshare(self._store)

    # -- in a thread of its own -----------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Hand over what has a place. Not the dispatcher's work: a cluster takes its time, a pool forks."""
        while self._calls.get():
            while self._has_place() and (attempt := self._line.next()) is not None:
                self._begin(attempt)

    def _has_place(self) -> bool:
        # What was given up is among what runs.
        return self._broken is None and len(self._running) < self._places

    def _begin(self, attempt: Attempt) -> None:
        with self._looking:
            self._running[attempt] = None
        # Only then: who has begun can be given up.
        begin(attempt)
        if attempt.cancelled:
            self._end(attempt, _NOT_BEGUN)
            return
        try:
            order = self._order(attempt)
        except UsageError as error:
            # A task that was registered since.
            self._end(attempt, answer_to(error, ()))
            return
        self._hand_over(attempt, order)

    def _hand_over(self, attempt: Attempt, order: remote.Order) -> None:
        try:
            future = self._executor.submit(remote.run, order)
            when_ended = future.add_done_callback
        except Exception as error:  # noqa: BLE001 - broken, shut down, no connection, no future: it takes nothing
            self._broken = str(error) or type(error).__name__
            attempt.started = False
            self._leave(attempt)
            # From there it is given back.
            self._line.put_back(attempt)
            return
        with self._looking:
            self._running[attempt] = future
        if attempt.cancelled:
            # Perhaps since it was handed over, when there was no future to say it to.
            future.cancel()
        when_ended(functools.partial(self._ended, attempt))

    def _end(self, attempt: Attempt, answer: Answer) -> None:
        self._leave(attempt)
        self._deliver(attempt, conclude(attempt, answer, None, saved=False))

    def _order(self, attempt: Attempt) -> remote.Order:
        claimed, task = attempt.claimed, attempt.task
        timeout = attempt.policy.timeout
        if task.name not in self._found:
            self._found[task.name] = _place(task)
        return remote.Order(
            place=self._found[task.name],
            wants_context=task.wants_context,
            retry_on=task.policy.retry_on,
            db=self._store.path,
            durability=self._store.durability,
            job_id=claimed.job_id,
            item_id=claimed.item_id,
            key=claimed.key,
            attempt=claimed.attempt,
            task=claimed.task,
            payload=claimed.payload,
            params=claimed.params,
            deadline=None if timeout is None else attempt.began_at + int(timeout * 1000),
            idempotency_key=idempotency_key(claimed.task, claimed.job_created_at, claimed.item_id),
            period=attempt.period,
            refresh=claimed.refresh,
            polled=task.poller is not None,
        )

    # -- in a thread of the executor's ----------------------------------------------------------------------------

    def _ended(self, attempt: Attempt, future: Future[remote.Report]) -> None:
        outcome = self._outcome(attempt, future)
        self._leave(attempt)
        self._deliver(attempt, outcome)
        self._calls.put(True)

    def _leave(self, attempt: Attempt) -> None:
        with self._looking:
            del self._running[attempt]
            self._given_up.discard(attempt)

    def _outcome(self, attempt: Attempt, future: Future[remote.Report]) -> Outcome:
        if future.cancelled():
            if attempt.cancelled:
                return conclude(attempt, _NOT_BEGUN, None, saved=False)
            # Whoever owns the executor shut it down.
            now = clock.now()
            return attempt.outcome(RELEASED, now, now)
        error = future.exception()
        if error is None:
            return _concluded(attempt, future.result())
        if isinstance(error, KeyboardInterrupt) and not self.shares_process:
            return attempt.outcome(STOPPED, attempt.began_at, clock.now(), error="interrupted from the keyboard")
        answer = answer_to(error, attempt.policy.retry_on)
        if isinstance(error, BrokenExecutor):
            self._broken = answer.error
            # It does not say which of those that it ran took it along.
            why = f"executor {self._name} broke while it ran: {answer.error}"
            answer = Answer(FAILED, None, "WorkerDied", why, wanted=answer.wanted)
        return conclude(attempt, answer, output(None, answer.trace), saved=False)


def _place(task: Task[..., object]) -> Place:
    return loading.place_of(task.function, f"task {task.name}")


_NOT_BEGUN: Final = Answer(CANCELLED, None, "Cancelled", "before it began")


def _concluded(attempt: Attempt, report: remote.Report) -> Outcome:
    attempt.seconds = report["seconds"]
    answer = Answer(*report["answer"])
    return conclude(attempt, answer, output(report["logged"], answer.trace), saved=report["saved"])
