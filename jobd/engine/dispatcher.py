"""The dispatcher: one thread, one loop. It waits for outcomes, a wake or the next due time; then, in one transaction,
settles what has arrived, ends jobs and claims what fits; and only after the commit does the registry forget and the
executors learn.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import clock
from jobd.engine.arrivals import STALE, Arrivals
from jobd.engine.batch import HOLD, Batch
from jobd.engine.bounds import Bounds, Started
from jobd.engine.claims import Claims
from jobd.engine.outlive import kept
from jobd.engine.pace import AHEAD
from jobd.engine.points import Crash, reach
from jobd.engine.pools import Pools
from jobd.engine.runner import Attempt
from jobd.engine.sparingly import Sparingly
from jobd.errors import UsageError
from jobd.policy import COMMAND
from jobd.store.base import CLIENT_PATIENCE
from jobd.store.failures import Transient
from jobd.store.outcome import LOOK_AGAIN, RUN_ON, Outcome
from jobd.store.ready import has_jobs
from jobd.store.settle import Settled, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jobd.engine.executor import Deliver, Executor
    from jobd.engine.solitude import Solitude
    from jobd.engine.wake import Wake
    from jobd.errors import JobdError
    from jobd.maintenance.time_out import Hung
    from jobd.store.base import Connection
    from jobd.store.claim import Claimed
    from jobd.store.sqlite import SqliteStore
    from jobd.store.unique import Unique
    from jobd.tasks import Task

log = logging.getLogger("jobd.dispatcher")

GAP: Final = 0.001  # outside the lock after that much work: other processes get their turn
GLANCE: Final = 1.0  # between looks at the database's version, for writers that do not ring
SOON: Final = 0.005  # within which somebody who rings for something beside items is attended to
HUNG: Final = 60.0  # seconds after which a turn that has not ended never will


class Turn(NamedTuple):
    """What one transaction did."""

    settled: Settled | None
    claimed: list[Claimed]
    skipped: int = 0  # items that were left out of the claim for good


class Dispatcher:
    """Claims for, and settles what comes from, the executors. ``run`` is the thread's body.

    ``executor`` makes the one of an isolation, given where it delivers.
    """

    def __init__(
        self,
        store: SqliteStore,
        *,
        daemon_id: int,
        tasks: Mapping[str, Task[..., object]],
        wake: Wake,
        executor: Callable[[str, Deliver], Executor],
        rescue: Callable[[Sequence[Outcome]], None],
        after_commit: Callable[[], None],
        rung: Callable[[], None],
        halted: Callable[[], None],
        drain: float,
        trouble: Sparingly | None = None,
        ahead: float = AHEAD,
        started: Started | None = None,
    ) -> None:
        self.registry: dict[int, Attempt] = {}
        self.degraded: str | None = None
        self.accepting = True
        self._store = store
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._tasks = tasks
        self._wake = wake
        self._ahead = ahead
        self._started = {} if started is None else started
        self._arrivals = Arrivals(self.registry, wake.nudge)
        self._pools = Pools(
            tasks,
            executor=lambda isolation: executor(isolation, self._arrivals.deliver),
            claims=self._claims_for,
            rests=self._rests,
        )
        self._rescue = rescue
        self._after_commit = after_commit
        self._rung = rung
        self._halted = halted
        self._drain = drain
        self._attend_by: float | None = 0.0
        self._handed = False
        self._fatal: JobdError | Crash | None = None
        self._trouble = trouble or Sparingly(log)
        self._batch = Batch()
        self._held = 0.0
        self._seen = -1
        self._glanced = 0.0
        self._stop_at: float | None = None
        self._turned_at = clock.awake()

    @property
    def turns(self) -> bool:
        """Say whether its loop goes round: no turn takes a minute."""
        return clock.awake() - self._turned_at < HUNG

    @property
    def workers(self) -> int:
        """How many items its executors run at once."""
        return self._pools.size

    @property
    def abandoned(self) -> int:
        """How many threads hang in attempts that were given up."""
        return self._pools.abandoned

    @property
    def stood(self) -> float:
        """For how many seconds this process was stopped so far."""
        return self._arrivals.stood

    @property
    def ailment(self) -> str | None:
        """Return why it runs less than it should, or nothing; None while it is well."""
        return self.degraded or self._pools.ailment

    @property
    def free_since(self) -> float | None:
        """Return since when (awake time) a slot was free at any moment, and nothing to claim for it; None where not."""
        return self._pools.free_since if self.accepting and self.degraded is None else None

    # -- what other threads call ----------------------------------------------------------------------------------

    def interrupt(self, hung: Sequence[Hung]) -> None:
        """Give up these attempts; their items are queued again."""
        self._arrivals.overdue.interrupt(hung)
        self._wake.ring()

    def look_for_interrupted(self) -> None:
        """There may be items that were interrupted."""
        self._pools.look_for_interrupted()
        self._wake.ring()

    def stop(self, drain: float) -> None:
        """Claim no more, and leave when nothing runs or after ``drain`` seconds. Call again to shorten it."""
        # Here and not in the loop, which may be about to claim.
        self.accepting = False
        until = clock.awake() + drain
        self._stop_at = until if self._stop_at is None else min(until, self._stop_at)
        self._wake.ring()

    def fail(self, error: JobdError | Crash) -> None:
        """Leave because the store cannot be used any more."""
        self._fatal = error
        self._wake.ring()

    def close(self) -> None:
        """Have the executors begin nothing more."""
        self._pools.close()

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Dispatch until stopped and drained.

        Raises:
            StoreUnusable: the file can no longer be used; what had arrived is in the rescue file.
        """
        pending: list[tuple[Attempt, Outcome]] = []
        try:
            while not self._finished(pending):
                self._turned_at = clock.awake()
                try:
                    self._rest(pending)
                    self._collect(pending)
                    if pending or self._arrivals.late or self._wants():
                        turn = self._turn([outcome for _, outcome in pending])
                        self._commit(turn, pending)
                        pending.clear()
                except Transient as error:
                    self._hold_out(error, pending)
        except Crash:
            raise
        except BaseException:
            # A defect of ours too: no outcome is dropped.
            self._outlive(pending)
            raise
        finally:
            self.close()

    def step(self) -> Turn:
        """Take one turn for an executor that runs in this very thread: settle what has arrived, claim what is due.

        Raises:
            JobdError: the store could not be written for as long as a client tries; what had arrived is in the rescue
                file.
        """
        pending: list[tuple[Attempt, Outcome]] = []
        try:
            self._collect(pending)
            # Whatever has run since the last turn may have added items, and jobs.
            self._pools.grow()
            self._pools.look()
            turn = self._turn([outcome for _, outcome in pending], patience=CLIENT_PATIENCE)
            self._commit(turn, pending)
        except Crash:
            raise
        except BaseException:
            self._outlive(pending)
            raise
        return turn

    def _outlive(self, pending: Sequence[tuple[Attempt, Outcome]]) -> None:
        """The store is gone: keep every outcome beside it, also of what still ends in time."""
        until = clock.awake() + self._drain

        def sleep() -> bool:
            self._turned_at = clock.awake()
            left = (until if self._stop_at is None else min(until, self._stop_at)) - self._turned_at
            if left > 0:
                self._wake.sleep(min(GLANCE, left))
            # Before anything is looked at: what arrives meanwhile wakes the next sleep.
            self._wake.prepare()
            return left > 0

        self._wake.prepare()
        attempts = tuple(self.registry.values())
        for outcomes in kept(pending, pools=self._pools, arrivals=self._arrivals, attempts=attempts, sleep=sleep):
            self._rescue(outcomes)

    def _finished(self, pending: Sequence[tuple[Attempt, Outcome]]) -> bool:
        if self._fatal is not None:
            raise self._fatal
        if self._stop_at is None:
            return False
        if self.registry and clock.awake() >= self._stop_at:
            self._arrivals.give_back(pending)
        return not self.registry and not pending and not self._arrivals and not self._arrivals.late

    def _rest(self, pending: Sequence[object]) -> None:
        """Wait until there is something to do; leave the lock alone for a moment after much work."""
        if self._attend_by is not None and (not self._handed or clock.real() >= self._attend_by):
            # After the turn that the ring was for: what is asked beside items can wait for its commit, and until what
            # was claimed has begun: the interpreter's lock is needed for that.
            self._attend_by = None
            self._rung()
            self._grow()
        self._wake.prepare()
        busy = bool(pending or self._arrivals or self._wants())
        if busy and self._held >= HOLD:
            self._held = 0.0
            time.sleep(GAP)
        if busy and clock.real() - self._glanced < STALE:
            return
        rung = self._wake.sleep(0.0 if busy else self._patience())
        self._handed = False
        if rung or self._has_changed():
            # Somebody has committed something: there may be items to claim.
            self._pools.look()
            # Requests come by this way too where nobody can ring: the socket's path may be too long.
            self._glanced = clock.real()
            if self._attend_by is None:
                self._attend_by = self._glanced + SOON
        self._pools.look_at_the_time(clock.now())
        if not busy:
            self._held = 0.0

    def _has_changed(self) -> bool:
        """Say, once in a while, whether another connection has committed since it was last asked.

        What somebody has rung for is seen here once more: to read the version at each ring, too, would come before
        the turn that the ring was for.
        """
        if clock.real() - self._glanced < STALE:
            return False
        self._glanced = clock.real()
        seen, self._seen = self._seen, self._store.version()
        return seen != self._seen

    def _grow(self) -> None:
        """There may be a task that is new, or has something to do now."""
        try:
            if self._pools.grow():
                self._pools.look()
        except UsageError as error:
            log.error("%s", error)  # noqa: TRY400 - a finding about the program, no traceback

    def _patience(self) -> float:
        """Return for how many seconds there is nothing to do unless somebody rings."""
        patience = min(GLANCE, max(0.0, self._arrivals.overdue.next - clock.awake()))
        if self._attend_by is not None:
            patience = min(patience, max(0.0, self._attend_by - clock.real()))
        if self._pools.waiting():
            patience = min(patience, STALE)
        due = self._pools.due
        if due is not None:
            patience = min(patience, max(0.0, (due - clock.now()) / 1000))
        if self._stop_at is not None:
            patience = min(patience, max(0.0, self._stop_at - clock.awake()))
        return patience

    def _collect(self, pending: list[tuple[Attempt, Outcome]]) -> None:
        self._arrivals.collect(pending, self._pools, self._batch.size, accepting=self.accepting)

    def withdraw(self, job_ids: Collection[int]) -> None:
        """Tell the handlers of these jobs that they are being cancelled."""
        for attempt in tuple(self.registry.values()):
            if attempt.claimed.job_id in job_ids and not attempt.cancelled:
                attempt.cancelled = True
                self._pools.cancel(attempt)

    def _claims_for(self, tasks: Mapping[str, Task[..., object]], slots: int, solitude: Solitude) -> Claims:
        return Claims(
            self._store,
            daemon_id=self._daemon_id,
            tasks=tasks,
            slots=slots,
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

    # -- one transaction ------------------------------------------------------------------------------------------

    def _wants(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        return self.accepting and self._pools.wanted()

    def _turn(self, outcomes: Sequence[Outcome], patience: float = 0) -> Turn:
        if self._fatal is not None:
            # It came while this thread slept: what is written now, nobody would read.
            raise self._fatal
        now = clock.now()
        if self.accepting and not outcomes:
            self._pools.scout(now)
        began = 0.0

        def work(connection: Connection) -> Turn:
            nonlocal began
            # Not before: for how long others had the lock says nothing of how much this may take, and less beside
            # them would be less still.
            began = clock.awake()
            settled = None
            if outcomes or self._arrivals.late:
                settled = settle(
                    self._store, connection, outcomes, now=now, actor=self._actor, late=self._arrivals.late
                )
                reach("settle.before_commit")
            claimed: list[Claimed] = []
            skipped = 0
            if self.accepting:
                claimed, skipped = self._pools.claim(connection, outcomes, self._batch.size, now)
            if claimed:
                reach("claim.before_commit")
            return Turn(settled, claimed, skipped)

        turn = self._store.write(work, patience=patience)
        held = clock.awake() - began
        self._held += held
        self._batch.held(held)
        return turn

    def _commit(self, turn: Turn, pending: Sequence[tuple[Attempt, Outcome]]) -> None:
        """The store first, memory after: the registry follows what has committed."""
        if turn.settled is not None:
            reach("settle.after_commit")
            if turn.settled.unstorable:
                self._rescue(turn.settled.unstorable)
            if turn.settled.halted:
                self.withdraw(turn.settled.halted)
                self._halted()
        self._arrivals.late.clear()
        for attempt, outcome in pending:
            del self.registry[attempt.claimed.item_id]
            if outcome.kind in RUN_ON and not attempt.abandoned:
                self._give_up(attempt)
        if pending:
            self._pools.left([attempt.claimed for attempt, _ in pending])
            if any(outcome.kind in LOOK_AGAIN for _, outcome in pending):
                # When they are due, the next claim finds out.
                self._pools.look()
        if turn.claimed:
            reach("claim.after_commit")
            awake = clock.awake()
            attempts = [Attempt(claimed, self._tasks[claimed.task], awake) for claimed in turn.claimed]
            self.registry.update([(attempt.claimed.item_id, attempt) for attempt in attempts])
            self._pools.started(turn.claimed)
            self._arrivals.overdue.handed(attempts, awake)
            self._pools.hand(attempts)
        self._handed = bool(turn.claimed)
        if self.degraded:
            self._trouble.warning("the store can be written again")
            self.degraded = None
        self._after_commit()

    def _give_up(self, attempt: Attempt) -> None:
        """Tell the handler that its attempt is not the item's any more, and give its place to others."""
        attempt.abandoned = attempt.cancelled = True
        self._pools.abandon(attempt)
        if hang := self._pools.ailment:
            self._trouble.warning("degraded: %s; jobd start anew ends them", hang)

    def _hold_out(self, error: Transient, pending: Sequence[tuple[Attempt, Outcome]]) -> None:
        """Keep what has arrived, claim nothing, and try again: handlers go on meanwhile."""
        if self.degraded != error.reason:
            self._trouble.warning("degraded: %s; outcomes are kept until the store can be written", error.reason)
        self.degraded = error.reason
        self._pools.undone()
        for attempt, outcome in pending:
            # Its handler may be who holds the lock. Where it can be ended, that must not wait for the store.
            if outcome.kind in RUN_ON and not attempt.abandoned and self._pools.apart(attempt):
                self._give_up(attempt)
        if self._stop_at is not None and clock.awake() >= self._stop_at:
            raise error
        time.sleep(0.0 if error.waited else 0.5)
