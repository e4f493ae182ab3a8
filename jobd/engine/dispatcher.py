"""The dispatcher: one thread, one loop. It waits for outcomes, a wake or the next due time, and takes a turn."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.engine.arrivals import STALE
from jobd.engine.batch import HOLD
from jobd.engine.outlive import kept
from jobd.engine.points import Crash
from jobd.errors import UsageError
from jobd.store.base import CLIENT_PATIENCE
from jobd.store.failures import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from jobd.engine.arrivals import Arrival
    from jobd.engine.sparingly import Sparingly
    from jobd.engine.turn import Turn, Turned
    from jobd.engine.wake import Wake
    from jobd.errors import JobdError
    from jobd.maintenance.time_out import Hung
    from jobd.store.outcome import Outcome
    from jobd.store.sqlite import SqliteStore

log = logging.getLogger("jobd.dispatcher")

GAP: Final = 0.001  # outside the lock after that much work: other processes get their turn
GLANCE: Final = 1.0  # between looks at the database's version, for writers that do not ring
SOON: Final = 0.005  # within which somebody who rings for something beside items is attended to
HUNG: Final = 60.0  # seconds after which a turn that has not ended never will


class Dispatcher:
    """Takes ``turn`` whenever there is something to do. ``run`` is the thread's body.

    It is ``degraded`` for as long as the store cannot be written.
    """

    def __init__(
        self,
        store: SqliteStore,
        turn: Turn,
        *,
        wake: Wake,
        rescue: Callable[[Sequence[Outcome]], None],
        rung: Callable[[], None],
        drain: float,
        trouble: Sparingly,
    ) -> None:
        self.registry = turn.registry
        self.degraded: str | None = None
        self._store = store
        self._turn = turn
        self._arrivals = turn.arrivals
        self._pools = turn.pools
        self._wake = wake
        self._rescue = rescue
        self._rung = rung
        self._drain = drain
        self._trouble = trouble
        self._attend_by: float | None = 0.0
        self._handed = False
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
        return self._pools.free_since if self._turn.accepting and self.degraded is None else None

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
        self._turn.accepting = False
        until = clock.awake() + drain
        self._stop_at = until if self._stop_at is None else min(until, self._stop_at)
        self._wake.ring()

    def fail(self, error: JobdError | Crash) -> None:
        """Leave because the store cannot be used any more."""
        self._turn.fatal = error
        self._wake.ring()

    def withdraw(self, job_ids: Collection[int]) -> None:
        """Tell the handlers of these jobs that they are being cancelled."""
        self._turn.withdraw(job_ids)

    def close(self) -> None:
        """Have the executors begin nothing more."""
        self._pools.close()

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Dispatch until stopped and drained.

        Raises:
            StoreUnusable: the file can no longer be used; what had arrived is in the rescue file.
        """
        pending: list[Arrival] = []
        try:
            while not self._finished(pending):
                self._turned_at = clock.awake()
                try:
                    self._rest(pending)
                    self._turn.collect(pending)
                    # Also where nothing is to be done: only a turn says that the store can be written again.
                    if pending or self._arrivals.late or self.degraded or self._turn.wanted():
                        turned = self._turn.take([outcome for _, outcome in pending])
                        if self.degraded:
                            self._trouble.warning("the store can be written again")
                            self.degraded = None
                        self._handed = bool(turned.claimed)
                        self._turn.learn(turned, pending)
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

    def step(self) -> Turned:
        """Take one turn for an executor that runs in this very thread: settle what has arrived, claim what is due.

        Raises:
            JobdError: the store could not be written for as long as a client tries; what had arrived is in the rescue
                file.
        """
        pending: list[Arrival] = []
        try:
            self._turn.collect(pending)
            # Whatever has run since the last turn may have added items, and jobs.
            self._pools.grow()
            self._pools.look()
            turned = self._turn.take([outcome for _, outcome in pending], patience=CLIENT_PATIENCE)
            self._turn.learn(turned, pending)
        except Crash:
            raise
        except BaseException:
            self._outlive(pending)
            raise
        return turned

    def _outlive(self, pending: Sequence[Arrival]) -> None:
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

    def _finished(self, pending: Sequence[Arrival]) -> bool:
        if self._turn.fatal is not None:
            raise self._turn.fatal
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
            self._rung()
            self._grow()
            # Not before: where the store could not be read, who rang does not ring again.
            self._attend_by = None
        self._wake.prepare()
        busy = bool(pending or self._arrivals or self._turn.wanted())
        if busy and self._turn.held >= HOLD:
            self._turn.held = 0.0
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
            self._turn.held = 0.0

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

    def _hold_out(self, error: Transient, pending: Sequence[Arrival]) -> None:
        """Keep what has arrived, claim nothing, and try again: handlers go on meanwhile."""
        if self.degraded != error.reason:
            self._trouble.warning("degraded: %s; outcomes are kept until the store can be written", error.reason)
        self.degraded = error.reason
        self._turn.undone(pending)
        if self._stop_at is not None and clock.awake() >= self._stop_at:
            raise error
        time.sleep(0.0 if error.waited else 0.5)
