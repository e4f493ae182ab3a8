"""The dispatcher: one thread, one loop. It waits for outcomes, a wake or the next due time; then, in one transaction,
settles what has arrived, ends jobs and claims what fits; and only after the commit does the registry forget and the
executor learn.
"""

from __future__ import annotations

import collections
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import clock
from jobd.engine.claims import Claims
from jobd.engine.overdue import Overdue
from jobd.engine.pace import AHEAD
from jobd.engine.points import Crash, reach
from jobd.engine.runner import Attempt
from jobd.engine.sparingly import Sparingly
from jobd.engine.standstill import Standstill
from jobd.states import COMPLETED, FAILED
from jobd.store.base import CLIENT_PATIENCE, Transient
from jobd.store.outcome import INTERRUPTED, RELEASED, STOPPED, TIMED_OUT, Outcome
from jobd.store.settle import Settled, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jobd.engine.executor import Executor
    from jobd.engine.wake import Wake
    from jobd.errors import JobdError
    from jobd.maintenance.time_out import Hung
    from jobd.store.base import Connection
    from jobd.store.claim import Claimed
    from jobd.store.sqlite import SqliteStore
    from jobd.store.unique import Unique
    from jobd.tasks import Task

log = logging.getLogger("jobd.dispatcher")

HOLD: Final = 0.010  # seconds that one transaction may last
GAP: Final = 0.001  # outside the lock after that much work: other processes get their turn
STALE: Final = 0.1  # seconds that a claimed item may wait for its slot
GLANCE: Final = 1.0  # between looks at the database's version, for writers that do not ring
HUNG: Final = 60.0  # seconds after which a turn that has not ended never will
_GIVEN_UP: Final = frozenset({TIMED_OUT, INTERRUPTED})  # their handlers run on
SMALLEST, LARGEST = 64, 2_000


class Turn(NamedTuple):
    """What one transaction did."""

    settled: Settled | None
    claimed: list[Claimed]
    skipped: int = 0  # items that were left out of the claim for good


class Dispatcher:
    """Claims for, and settles what comes from, one executor. ``run`` is the thread's body."""

    def __init__(
        self,
        store: SqliteStore,
        *,
        daemon_id: int,
        tasks: Mapping[str, Task[..., object]],
        wake: Wake,
        executor: Callable[[Callable[[Attempt, Outcome], None]], Executor],
        rescue: Callable[[Sequence[Outcome]], None],
        after_commit: Callable[[], None],
        rung: Callable[[], None],
        drain: float,
        trouble: Sparingly | None = None,
        ahead: float = AHEAD,
    ) -> None:
        self.registry: dict[int, Attempt] = {}
        self.degraded: str | None = None
        self.accepting = True
        self._store = store
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._tasks = tasks
        self._wake = wake
        self._arrived: collections.deque[tuple[Attempt, Outcome]] = collections.deque()
        self._late: list[Outcome] = []
        self._executor = executor(self._deliver)
        self._places = self._executor.size
        self._overdue = Overdue(self.registry)
        self._standstill = Standstill()
        self._rescue = rescue
        self._after_commit = after_commit
        self._rung = rung
        self._drain = drain
        self._attend = True
        self._fatal: JobdError | Crash | None = None
        self._trouble = trouble or Sparingly(log)
        self._claims = Claims(
            store, daemon_id=daemon_id, tasks=tasks, slots=self._executor.size, unique=self._unique, ahead=ahead
        )
        self.solitude = self._claims.solitude
        self._batch = SMALLEST
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
        """How many items its executor runs at once."""
        return self._executor.size

    @property
    def abandoned(self) -> int:
        """How many threads hang in attempts that were given up."""
        return self._executor.abandoned

    @property
    def stood(self) -> float:
        """For how many seconds this process was stopped so far."""
        return self._standstill.total

    @property
    def ailment(self) -> str | None:
        """Return why it runs less than it should, or nothing; None while it is well."""
        hang = f"{self.abandoned} threads hang" if self._executor.size < self._places else None
        return self.degraded or hang

    @property
    def free_since(self) -> float | None:
        """Return since when (awake time) a slot was free at any moment, and nothing to claim for it; None where not."""
        return self._claims.free_since if self.accepting and self.degraded is None else None

    # -- what other threads call ----------------------------------------------------------------------------------

    def interrupt(self, hung: Sequence[Hung]) -> None:
        """Give up these attempts; their items are queued again."""
        self._overdue.interrupt(hung)
        self._wake.ring()

    def _deliver(self, attempt: Attempt, outcome: Outcome) -> None:
        self._arrived.append((attempt, outcome))
        self._wake.nudge()

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
        """End the executor's threads after what they run now."""
        self._executor.close()

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
                    if pending or self._late or self._wants():
                        turn = self._turn([outcome for _, outcome in pending])
                        self._commit(turn, pending)
                        pending.clear()
                except Transient as error:
                    self._hold_out(error)
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
            # Whatever has run since the last turn may have added items.
            self._claims.more = True
            turn = self._turn([outcome for _, outcome in pending], patience=CLIENT_PATIENCE)
            self._commit(turn, pending)
        except Crash:
            raise
        except BaseException:
            self._outlive(pending)
            raise
        return turn

    def _outlive(self, pending: list[tuple[Attempt, Outcome]]) -> None:
        """The store is gone: keep every outcome beside it, at once what is here, and then what still ends in time."""
        now = clock.now()
        waiting = [(attempt, attempt.outcome(RELEASED, now, now)) for attempt in self._executor.take_back()]
        # What never began is kept as stopped: a release gives its attempt's number back, so that the same line read
        # again would meet the next attempt of that number.
        kept = [o._replace(kind=STOPPED) if o.kind == RELEASED else o for _, o in (*pending, *waiting)]
        settled = {outcome.item_id for outcome in kept}
        running = {item_id for item_id, attempt in self.registry.items() if attempt.started} - settled
        until = clock.awake() + self._drain
        while True:
            self._wake.prepare()
            while self._arrived:
                kept.append(self._arrived.popleft()[1])
                running.discard(kept[-1].item_id)
            self._rescue(kept)
            kept = []
            left = (until if self._stop_at is None else min(until, self._stop_at)) - clock.awake()
            if not running or left <= 0:
                return
            self._turned_at = clock.awake()
            self._wake.sleep(min(GLANCE, left))

    def _finished(self, pending: Sequence[tuple[Attempt, Outcome]]) -> bool:
        if self._fatal is not None:
            raise self._fatal
        if self._stop_at is None:
            return False
        if self.registry and clock.awake() >= self._stop_at:
            self._abandon(pending)
        return not self.registry and not pending and not self._arrived and not self._late

    def _abandon(self, pending: Sequence[tuple[Attempt, Outcome]]) -> None:
        """Give back what did not end in time; its threads run on, and their late answers find no registry."""
        now = clock.now()
        arrived = {id(attempt) for attempt, _ in (*pending, *self._arrived)}
        for attempt in self.registry.values():
            if attempt.started and id(attempt) not in arrived:
                error = "the daemon stopped before it ended"
                self._arrived.append((attempt, attempt.outcome(STOPPED, now, now, error=error)))

    def _rest(self, pending: Sequence[object]) -> None:
        """Wait until there is something to do; leave the lock alone for a moment after much work."""
        if self._attend:
            # After the turn that the ring was for: what is asked beside items can wait for its commit.
            self._rung()
            self._attend = False
        self._wake.prepare()
        busy = bool(pending or self._arrived or self._wants())
        if busy and self._held >= HOLD:
            self._held = 0.0
            time.sleep(GAP)
        if busy and clock.awake() - self._glanced < STALE:
            return
        if self._wake.sleep(0.0 if busy else self._patience()) or self._store.version() != self._seen:
            self._look()
            # Requests come by this way too where nobody can ring: the socket's path may be too long.
            self._attend = True
        self._glanced = clock.awake()
        if self._claims.due is not None and clock.now() >= self._claims.due:
            self._claims.due = None
            self._claims.more = True
        if not busy:
            self._held = 0.0

    def _look(self) -> None:
        """Somebody has committed something: there may be items to claim."""
        self._seen = self._store.version()
        self._claims.more = True

    def _patience(self) -> float:
        """Return for how many seconds there is nothing to do unless somebody rings."""
        patience = min(GLANCE, max(0.0, self._overdue.next - clock.awake()))
        if self._executor.waiting():
            patience = min(patience, STALE)
        if self._claims.due is not None:
            patience = min(patience, max(0.0, (self._claims.due - clock.now()) / 1000))
        if self._stop_at is not None:
            patience = min(patience, max(0.0, self._stop_at - clock.awake()))
        return patience

    def _collect(self, pending: list[tuple[Attempt, Outcome]]) -> None:
        """Move what has arrived to ``pending``, and take back what waited too long for its slot."""
        ended: list[tuple[str, float]] = []
        arrived = False
        while self._arrived and len(pending) < self._batch:
            attempt, outcome = self._arrived.popleft()
            # Not in the registry any more: it was given back or given up, and its thread answers late.
            if self.registry.get(outcome.item_id) is not attempt:
                if attempt.abandoned:
                    self._late.append(outcome)
                    self._claims.resize(self._executor.size)
                continue
            if attempt.collected:
                # It was to be given back, which could not be written yet, and has ended after all.
                pending[:] = [other for other in pending if other[0] is not attempt]
            arrived = attempt.collected = True
            pending.append((attempt, outcome))
            if outcome.kind in {COMPLETED, FAILED}:
                ended.append((outcome.task, attempt.seconds))
        if arrived:
            self._claims.arrived(ended)
        self._take_back(pending)
        if stood := self._standstill.goes():
            self._overdue.stood(stood)
        awake = clock.awake()
        if self._overdue.due(awake):
            for attempt, outcome in self._overdue.outcomes(awake, clock.now()):
                attempt.collected = True
                pending.append((attempt, outcome))

    def _take_back(self, pending: list[tuple[Attempt, Outcome]]) -> None:
        oldest = self._executor.oldest()
        before = clock.awake() - STALE
        if oldest is None or (self.accepting and oldest >= before):
            return
        taken = self._executor.take_back(claimed_before=before if self.accepting else None)
        if taken:
            self._claims.given_back()
        now = clock.now()
        for attempt in taken:
            attempt.collected = True
            pending.append((attempt, attempt.outcome(RELEASED, now, now)))

    def withdraw(self, job_ids: Collection[int]) -> None:
        """Tell the handlers of these jobs that they are being cancelled."""
        for attempt in tuple(self.registry.values()):
            if attempt.claimed.job_id in job_ids:
                attempt.cancelled = True

    def _unique(self) -> dict[str, Unique]:
        return {name: once for name, task in self._tasks.items() if (once := task.policy.once) is not None}

    # -- one transaction ------------------------------------------------------------------------------------------

    def _wants(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        return self.accepting and self._claims.wanted()

    def _turn(self, outcomes: Sequence[Outcome], patience: float = 0) -> Turn:
        if self._fatal is not None:
            # It came while this thread slept: what is written now, nobody would read.
            raise self._fatal
        now = clock.now()
        if self.accepting and not outcomes:
            self._claims.scout(now)
        began = clock.awake()

        def work(connection: Connection) -> Turn:
            settled = None
            if outcomes or self._late:
                settled = settle(self._store, connection, outcomes, now=now, actor=self._actor, late=self._late)
                reach("settle.before_commit")
            claimed: list[Claimed] = []
            skipped = 0
            if self.accepting and self._claims.more:
                claimed, skipped = self._claims.claim(connection, self._leaving(outcomes), self._batch, now)
            if claimed:
                reach("claim.before_commit")
            return Turn(settled, claimed, skipped)

        turn = self._store.write(work, patience=patience)
        held = clock.awake() - began
        self._held += held
        # The batch shrinks with its excess and grows while there is room.
        if held > HOLD:
            self._batch = max(SMALLEST, int(self._batch * 0.8 * HOLD / held))
        elif held < HOLD / 2:
            self._batch = min(LARGEST, self._batch * 2)
        return turn

    def _leaving(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return those of ``outcomes`` whose places are free for others, fresh threads have an end."""
        given_up = [outcome for outcome in outcomes if outcome.kind in _GIVEN_UP]
        spare = max(0, self._places - self._executor.abandoned)
        lost = {id(outcome) for outcome in given_up[spare:]}
        return [outcome for outcome in outcomes if id(outcome) not in lost] if lost else outcomes

    def _commit(self, turn: Turn, pending: Sequence[tuple[Attempt, Outcome]]) -> None:
        """The store first, memory after: the registry follows what has committed."""
        if turn.settled is not None:
            reach("settle.after_commit")
            if turn.settled.unstorable:
                self._rescue(turn.settled.unstorable)
        self._late.clear()
        for attempt, outcome in pending:
            del self.registry[attempt.claimed.item_id]
            if outcome.kind in _GIVEN_UP:
                self._give_up(attempt)
        if pending:
            self._claims.left(attempt.claimed for attempt, _ in pending)
        if turn.claimed:
            reach("claim.after_commit")
            awake = clock.awake()
            attempts = [Attempt(claimed, self._tasks[claimed.task], awake) for claimed in turn.claimed]
            self.registry.update((attempt.claimed.item_id, attempt) for attempt in attempts)
            self._claims.started(turn.claimed)
            self._overdue.handed(attempts, awake)
            self._executor.hand(attempts)
        if self.degraded:
            self._trouble.warning("the store can be written again")
            self.degraded = None
        self._after_commit()

    def _give_up(self, attempt: Attempt) -> None:
        """Tell the handler that its attempt is not the item's any more, and give its place to others."""
        attempt.abandoned = attempt.cancelled = True
        self._executor.abandon(attempt)
        if self._executor.size < self._places:
            self._trouble.warning("degraded: %s; jobd start anew ends them", self.ailment)
        self._claims.resize(self._executor.size)

    def _hold_out(self, error: Transient) -> None:
        """Keep what has arrived, claim nothing, and try again: handlers go on meanwhile."""
        if self.degraded != error.reason:
            self._trouble.warning("degraded: %s; outcomes are kept until the store can be written", error.reason)
        self.degraded = error.reason
        self._claims.undone()
        if self._stop_at is not None and clock.awake() >= self._stop_at:
            raise error
        time.sleep(0.0 if error.waited else 0.5)
