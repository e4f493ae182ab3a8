"""What is claimed next: what free slots take, 50 ms of work ahead of them, and alone whoever must run alone.

A transaction that fails leaves nothing behind here but questions that are asked again: what is in flight follows the
commit, by ``started`` and ``left``.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.engine.pace import Pace
from jobd.engine.solitude import ALONE_FOR, Solitude
from jobd.store.claim import Claimed, Lane, Turns, any_interrupted, claim, next_due, queued_alone, tasks_due

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.settle import Outcome

LOOK: Final = 0.02  # seconds between looks at which tasks have something to claim ahead


class Claims:
    """Claims for ``slots`` workers. ``more`` says that there may be something to claim; ``due`` (Unix ms) when there
    will be where there is not.
    """

    def __init__(self, store: Store, *, daemon_id: int, tasks: Collection[str], slots: int) -> None:
        self.more = True
        self.due: int | None = None
        self.solitude = Solitude()
        self._store = store
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._tasks = tasks
        self._slots = slots
        self._turns = Turns()
        self._pace = Pace()
        self._flying: collections.Counter[str] = collections.Counter()  # what is in flight, by task
        self._ahead = True
        self._wanted: Collection[str] = ()
        self._asked = float("-inf")

    # -- what has happened ----------------------------------------------------------------------------------------

    def arrived(self, ended: Iterable[tuple[str, float]]) -> None:
        """Attempts have ended: (task, seconds) of those that show their task's pace."""
        self._ahead = True
        self._pace.observe(ended)

    def given_back(self) -> None:
        """Something waited too long for its slot: until anything ends, what is claimed ahead would only wait again."""
        self._ahead = False

    def started(self, claimed: Sequence[Claimed]) -> None:
        """A claim has committed."""
        self._flying.update(item.task for item in claimed)
        if claimed[0].lane is Lane.ALONE:
            self.solitude.begin(claimed[0].item_id, clock.awake())

    def left(self, claimed: Iterable[Claimed]) -> None:
        """The settlement of these has committed."""
        for item in claimed:
            self._flying[item.task] -= 1
            self.solitude.ended(item.item_id)
        if self.solitude.anybody and not self._flying.total():
            # Who waited for its end, or for the pool to itself, may start now.
            self.more = True

    def undone(self) -> None:
        """A transaction has failed: what it had claimed is queued as before."""
        self.more = self.solitude.anybody = True

    # -- what is next ---------------------------------------------------------------------------------------------

    def wanted(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        if not self.more or self._flying.total() < self._slots:
            return self.more
        return self._ahead and any(self._pace.room(task, self._slots, self._flying) for task in self._flying)

    def claim(self, connection: Connection, leaving: Sequence[Outcome], most: int, now: int) -> list[Claimed]:
        """Claim what fits while ``leaving`` leave, up to ``most`` items."""
        flying = self._flying.copy()
        flying.subtract(outcome.task for outcome in leaving)
        claimed: list[Claimed] = []
        if self.solitude.anybody:
            claimed, blocked = self._claim_interrupted(connection, flying.total(), now)
            if blocked:
                self.more = False
                self.due = now + int(blocked * 1000)
                return claimed
            flying.update(item.task for item in claimed)
        claimed += self._claim_fresh(connection, flying, most, now)
        if not self.more:
            self.due = next_due(connection, now)
        return claimed

    def _take(self, connection: Connection, limit: int, lane: Lane, tasks: Collection[str], now: int) -> list[Claimed]:
        return claim(
            self._store, connection, self._turns, limit=limit, lane=lane, tasks=tasks,
            daemon_id=self._daemon_id, now=now, actor=self._actor,
        )  # fmt: skip

    def _claim_interrupted(self, connection: Connection, busy: int, now: int) -> tuple[list[Claimed], float]:
        """Return what was claimed, and for how many seconds nothing else may be.

        What was interrupted once goes into free slots only, what was twice runs alone.
        """
        awake = clock.awake()
        if blocked := self.solitude.occupied(awake):
            return [], blocked
        if queued_alone(self._store, connection, self._tasks, now):
            if not busy:
                return self._take(connection, 1, Lane.ALONE, self._tasks, now), ALONE_FOR
            if blocked := self.solitude.emptying(awake):
                return [], blocked
        free = self._slots - busy
        claimed = self._take(connection, free, Lane.CAREFUL, self._tasks, now) if free > 0 else []
        self.solitude.anybody = any_interrupted(connection)
        return claimed, 0.0

    def _claim_fresh(
        self, connection: Connection, flying: collections.Counter[str], most: int, now: int
    ) -> list[Claimed]:
        limit = min(self._slots - flying.total(), most)
        claimed: list[Claimed] = []
        if limit > 0:
            claimed = self._take(connection, limit, Lane.FRESH, self._tasks, now)
            flying.update(item.task for item in claimed)
            if len(claimed) < limit:
                self.more = False
                return claimed
        return claimed + self._claim_ahead(connection, flying, most - len(claimed), now)

    def _claim_ahead(
        self, connection: Connection, flying: collections.Counter[str], most: int, now: int
    ) -> list[Claimed]:
        """Claim ahead of the slots, of all tasks alike: while something waits in line no slot ever is free, and a task
        that is not in the line yet would wait until the last of the others has run.
        """
        claimed: list[Claimed] = []
        while self._ahead and len(claimed) < most:
            rooms = {
                task: room
                for task in self._asking(connection, now)
                if (room := self._pace.room(task, self._slots, flying))
            }
            if not rooms:
                break
            limit = min(*rooms.values(), most - len(claimed))
            ahead = self._take(connection, limit, Lane.FRESH, rooms, now)
            flying.update(item.task for item in ahead)
            claimed += ahead
            # Nothing left of these; a free slot asks again, for every task.
            self._ahead = len(ahead) == limit
        return claimed

    def _asking(self, connection: Connection, now: int) -> Collection[str]:
        """Return the tasks that have something to claim, as of the last look."""
        awake = clock.awake()
        if awake - self._asked >= LOOK:
            self._asked = awake
            several = len(self._tasks) > 1
            self._wanted = tasks_due(self._store, connection, self._tasks, now) if several else tuple(self._tasks)
        return self._wanted
