"""One turn of the dispatcher: a transaction that settles what has arrived, ends jobs and claims what fits; and what
memory learns of it, only after the commit: then the registry forgets, and the executors begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobd import clock
from jobd.engine.arrivals import Arrivals
from jobd.engine.batch import Batch
from jobd.engine.bounds import Bounds, Started
from jobd.engine.claims import Claims
from jobd.engine.points import Crash, reach
from jobd.engine.pools import Pools
from jobd.engine.runner import Attempt
from jobd.policy import COMMAND
from jobd.store.outcome import LOOK_AGAIN, RELEASED, RUN_ON, Outcome
from jobd.store.ready import has_jobs
from jobd.store.settle import Settled, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jobd.engine.arrivals import Arrival
    from jobd.engine.executor import Deliver, Executor
    from jobd.engine.solitude import Solitude
    from jobd.engine.sparingly import Sparingly
    from jobd.errors import JobdError
    from jobd.store.base import Connection
    from jobd.store.claim import Claimed
    from jobd.store.sqlite import SqliteStore
    from jobd.store.unique import Unique
    from jobd.tasks import Task


class Turned(NamedTuple):
    """What one transaction did."""

    settled: Settled | None
    claimed: list[Claimed]
    skipped: int = 0  # items that were left out of the claim for good


class Turn:
    """Settles what comes from the executors, and claims for them. ``registry`` is what is in flight, by item.

    ``executor`` makes the one of an isolation, given where it delivers; ``nudge`` says that something was. ``held`` is
    for how many seconds its transactions had the lock since it was last set to 0. From any thread: it claims while it
    is ``accepting``, and once ``fatal`` is there it begins no transaction any more.
    """

    def __init__(
        self,
        store: SqliteStore,
        *,
        daemon_id: int,
        tasks: Mapping[str, Task[..., object]],
        nudge: Callable[[], None],
        executor: Callable[[str, Deliver], Executor],
        rescue: Callable[[Sequence[Outcome]], None],
        after_commit: Callable[[], None],
        halted: Callable[[], None],
        trouble: Sparingly,
        ahead: float,
        started: Started,
    ) -> None:
        self.registry: dict[int, Attempt] = {}
        self.accepting = True
        self.fatal: JobdError | Crash | None = None
        self.held = 0.0
        self.batch = Batch()
        self._store = store
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._tasks = tasks
        self._ahead = ahead
        self._started = started
        self._rescue = rescue
        self._after_commit = after_commit
        self._halted = halted
        self._trouble = trouble
        self.arrivals = Arrivals(self.registry, nudge)
        self.pools = Pools(
            tasks,
            executor=lambda isolation: executor(isolation, self.arrivals.deliver),
            claims=self._claims_for,
            rests=self._rests,
        )

    def wanted(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        return self.accepting and self.pools.wanted()

    def collect(self, pending: list[Arrival]) -> None:
        """Move to ``pending`` what has arrived, no more than one transaction should take."""
        self.arrivals.collect(pending, self.pools, self.batch.size, accepting=self.accepting)

    # -- the transaction ------------------------------------------------------------------------------------------

    def take(self, outcomes: Sequence[Outcome], patience: float = 0) -> Turned:
        """Settle ``outcomes`` and what is late, and claim what fits, trying for ``patience`` seconds.

        Raises:
            Transient: the store cannot be written now; nothing has happened.
            StoreUnusable: nor will it be again.
        """
        if self.fatal is not None:
            # It came while this thread slept: what is written now, nobody would read.
            raise self.fatal
        now = clock.now()
        if self.accepting and not outcomes:
            self.pools.scout(now)
        began = 0.0

        def work(connection: Connection) -> Turned:
            nonlocal began
            # Not before: for how long others had the lock says nothing of how much this may take, and less beside
            # them would be less still.
            began = clock.awake()
            settled = None
            if outcomes or self.arrivals.late:
                settled = settle(self._store, connection, outcomes, now=now, actor=self._actor, late=self.arrivals.late)
                reach("settle.before_commit")
            claimed: list[Claimed] = []
            skipped = 0
            if self.accepting:
                claimed, skipped = self.pools.claim(connection, outcomes, self.batch.size, now)
            if claimed:
                reach("claim.before_commit")
            return Turned(settled, claimed, skipped)

        turned = self._store.write(work, patience=patience)
        held = clock.awake() - began
        self.held += held
        self.batch.held(held)
        return turned

    def _claims_for(self, tasks: Mapping[str, Task[..., object]], slots: int, spare: int, solitude: Solitude) -> Claims:
        return Claims(
            self._store,
            daemon_id=self._daemon_id,
            tasks=tasks,
            slots=slots,
            spare=spare,
            unique=self._unique,
            solitude=solitude,
            bounds=Bounds(tasks, self._started),
            ahead=self._ahead,
        )

    def _rests(self, task: Task[..., object]) -> bool:
        """Say whether it is the task that every app has, in a file that has no job of it: there it costs nothing."""
        return task.policy.isolation == COMMAND and not self._store.read(lambda found: has_jobs(found, task.name))

    def _unique(self) -> dict[str, Unique]:
        return {name: once for name, task in self._tasks.items() if (once := task.policy.once) is not None}

    # -- what memory learns of it ---------------------------------------------------------------------------------

    def learn(self, turned: Turned, pending: Sequence[Arrival]) -> None:
        """The store first, memory after: the registry follows what has committed, of which ``pending`` was settled."""
        if turned.settled is not None:
            reach("settle.after_commit")
            if turned.settled.unstorable:
                self._rescue(turned.settled.unstorable)
            if turned.settled.halted:
                self.withdraw(turned.settled.halted)
                self._halted()
        self.arrivals.late.clear()
        for attempt, outcome in pending:
            del self.registry[attempt.claimed.item_id]
            if outcome.kind in RUN_ON and not attempt.abandoned:
                self._give_up(attempt)
            if outcome.kind == RELEASED:
                self.pools.released(attempt)
        if pending:
            self.pools.left([attempt.claimed for attempt, _ in pending])
            if any(outcome.kind in LOOK_AGAIN for _, outcome in pending):
                # When they are due, the next claim finds out.
                self.pools.look()
        if turned.claimed:
            reach("claim.after_commit")
            awake = clock.awake()
            attempts = [Attempt(claimed, self._tasks[claimed.task], awake) for claimed in turned.claimed]
            self.registry.update([(attempt.claimed.item_id, attempt) for attempt in attempts])
            self.pools.started(turned.claimed, awake)
            self.arrivals.overdue.handed(attempts, awake)
            self.pools.hand(attempts)
        self._after_commit()

    def undone(self, pending: Sequence[Arrival]) -> None:
        """A transaction has failed: what it had claimed is queued as before, and ``pending`` is still to be settled."""
        self.pools.undone()
        for attempt, outcome in pending:
            # Its handler may be who holds the lock. Where it can be ended, that must not wait for the store.
            if outcome.kind in RUN_ON and not attempt.abandoned and self.pools.apart(attempt):
                self._give_up(attempt)

    def withdraw(self, job_ids: Collection[int]) -> None:
        """Tell the handlers of these jobs that they are being cancelled."""
        for attempt in tuple(self.registry.values()):
            if attempt.claimed.job_id in job_ids and not attempt.cancelled:
                attempt.cancelled = True
                self.pools.cancel(attempt)

    def _give_up(self, attempt: Attempt) -> None:
        """Tell the handler that its attempt is not the item's any more, and give its place to others."""
        attempt.abandoned = attempt.cancelled = True
        self.pools.abandon(attempt)
        if hang := self.pools.ailment:
            self._trouble.warning("degraded: %s; jobd start anew ends them", hang)
