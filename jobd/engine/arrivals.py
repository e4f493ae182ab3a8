"""What comes back from the executors, until it is settled: outcomes, late answers, what waited too long for its slot,
and what is given up.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.engine.overdue import Overdue
from jobd.engine.standstill import Standstill
from jobd.states import COMPLETED, FAILED
from jobd.store.outcome import RELEASED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.engine.pools import Pools
    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome

    Arrival = tuple[Attempt, Outcome]

STALE: Final = 0.1  # seconds that a claimed item may wait for its slot


class Arrivals:
    """Collects for the attempts of ``registry``. ``nudge`` tells the dispatcher that something has arrived.

    ``late`` holds the outcomes of attempts that were given up before: each leaves an event and changes nothing.
    """

    def __init__(self, registry: Mapping[int, Attempt], nudge: Callable[[], None]) -> None:
        self.late: list[Outcome] = []
        self.overdue = Overdue(registry)
        self._registry = registry
        self._nudge = nudge
        self._arrived: collections.deque[Arrival] = collections.deque()
        self._standstill = Standstill()

    def __bool__(self) -> bool:
        return bool(self._arrived)

    @property
    def stood(self) -> float:
        """For how many seconds this process was stopped so far."""
        return self._standstill.total

    def deliver(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take an outcome, from any thread."""
        self._arrived.append((attempt, outcome))
        self._nudge()

    def collect(self, pending: list[Arrival], pools: Pools, most: int, *, accepting: bool) -> None:
        """Move up to ``most`` of what has arrived to ``pending``, and take back what waited too long for its slot, or
        all that waits where nothing is accepted any more.
        """
        self._take(pending, pools, most)
        self._take_back(pending, pools, accepting=accepting)
        if stood := self._standstill.goes():
            self.overdue.stood(stood)
        awake = clock.awake()
        if self.overdue.due(awake):
            for attempt, outcome in self.overdue.outcomes(awake, clock.now()):
                attempt.collected = True
                pending.append((attempt, outcome))

    def _take(self, pending: list[Arrival], pools: Pools, most: int) -> None:
        ended: list[tuple[str, float]] = []
        arrived = False
        while self._arrived and len(pending) < most:
            attempt, outcome = self._arrived.popleft()
            # Not in the registry any more: it was given back or given up, and its thread answers late.
            if self._registry.get(outcome.item_id) is not attempt:
                if attempt.abandoned:
                    self.late.append(outcome)
                    pools.came_back(attempt)
                continue
            if attempt.collected:
                # It was to be given back, which could not be written yet, and has ended after all.
                pending[:] = [other for other in pending if other[0] is not attempt]
            arrived = attempt.collected = True
            pending.append((attempt, outcome))
            if outcome.kind in {COMPLETED, FAILED}:
                ended.append((outcome.task, attempt.seconds))
        if arrived:
            pools.arrived(ended)

    def _take_back(self, pending: list[Arrival], pools: Pools, *, accepting: bool) -> None:
        taken = pools.take_back(claimed_before=clock.awake() - STALE if accepting else None)
        now = clock.now()
        for attempt in taken:
            if attempt.collected:
                # It was given up while an executor was asked to take it, which has refused.
                pools.came_back(attempt)
                continue
            attempt.collected = True
            pending.append((attempt, attempt.outcome(RELEASED, now, now)))

    def give_back(self, pending: Sequence[Arrival]) -> None:
        """Give back what did not end in time; its handlers run on, and their late answers find no registry."""
        now = clock.now()
        arrived = {id(attempt) for attempt, _ in (*pending, *self._arrived)}
        for attempt in self._registry.values():
            if attempt.started and id(attempt) not in arrived:
                error = "the daemon stopped before it ended"
                self._arrived.append((attempt, attempt.outcome(STOPPED, now, now, error=error)))

    def take_all(self) -> list[Outcome]:
        """Return all that has arrived."""
        outcomes = []
        while self._arrived:
            outcomes.append(self._arrived.popleft()[1])
        return outcomes
