"""What is claimed next: what free slots take, 50 ms of work ahead of them, and alone whoever must run alone.

A transaction that fails leaves nothing behind here but questions that are asked again: what is in flight follows the
commit, by ``started`` and ``left``.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.engine.bounds import Bounds
from jobd.engine.claiming import Claiming
from jobd.engine.held_up import HeldUp
from jobd.engine.interruptions import Interruptions
from jobd.engine.limits import Limits
from jobd.engine.pace import AHEAD, Pace
from jobd.engine.rounds import PAUSE, Rounds
from jobd.engine.solitude import Solitude
from jobd.store.claim import Claimed, Lane, Turns
from jobd.store.outcome import RUN_ON
from jobd.store.ready import policies, scout, tasks_due
from jobd.store.taken import Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.outcome import Outcome
    from jobd.store.unique import Unique

LOOK: Final = 0.02  # seconds between looks at which tasks have something to claim ahead


class Claims:
    """Claims for ``slots`` workers. ``more`` says that there may be something to claim; ``due`` (Unix ms) when there
    will be where there is not. ``unique`` tells which of ``tasks`` are, and how.
    """

    def __init__(
        self,
        store: Store,
        *,
        daemon_id: int,
        tasks: Collection[str],
        slots: int,
        spare: int = 0,
        unique: Callable[[], Mapping[str, Unique]] = dict,
        solitude: Solitude | None = None,
        bounds: Bounds | None = None,
        ahead: float = AHEAD,
    ) -> None:
        self.more = True
        self.due: int | None = None
        self.solitude = Solitude() if solitude is None else solitude
        self._store = store
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._tasks = tasks
        self._unique = unique
        self._bounds = Bounds({}) if bounds is None else bounds
        self._limits = Limits(slots + spare)
        self._slots = slots
        self._spare = spare
        self._full_until = clock.awake()
        self._turns = Turns()
        self._rounds = Rounds(PAUSE if ahead else 0.0)
        self._interruptions = Interruptions(tasks, self.solitude, self._rounds)
        self._lost = False
        self._pace = Pace(ahead)
        self._flying: collections.Counter[str] = collections.Counter()  # what is in flight, by task
        self._hanging: collections.Counter[str] = collections.Counter()  # what was given up and runs on, by task
        self._held_up = HeldUp()
        self._ahead = True
        self._wanted: Collection[str] = ()
        self._asked = float("-inf")

    # -- what has happened ----------------------------------------------------------------------------------------

    def arrived(self, ended: Iterable[tuple[str, float]]) -> None:
        """Attempts have ended: (task, seconds) of those that show their task's pace."""
        self._ahead = True
        self.more = self._held_up.end() or self.more
        self._pace.observe(ended)

    def given_back(self) -> None:
        """Something waited too long for its slot: until anything ends, what is claimed ahead would only wait again."""
        self._ahead = False
        self._held_up.begin(clock.awake())

    def hangs(self, claimed: Claimed) -> None:
        """An item was given up and runs on: it counts for what bounds its task and its job."""
        self._hanging[claimed.task] += 1
        self._limits.hangs(claimed.job_id)
        self.more = True

    def came_back(self, claimed: Claimed) -> None:
        """One that was given up runs no more."""
        self._hanging[claimed.task] -= 1
        self._limits.left(claimed.job_id)
        self.more = True

    def started(self, claimed: Sequence[Claimed], awake: float) -> None:
        """A claim has committed; ``awake`` is when."""
        counts: dict[str, int] = {}
        for item in claimed:
            counts[item.task] = counts.get(item.task, 0) + 1
        for task, count in counts.items():
            self._flying[task] += count
        self._bounds.started(counts, awake)
        self._limits.started(claimed, awake)
        if claimed[0].lane is Lane.ALONE:
            self.solitude.begin(claimed[0].item_id, awake)

    def released(self, claimed: Claimed, awake: float) -> None:
        """An item whose claim committed then is given back without having begun: to no rate it has started."""
        self._bounds.released(claimed.task, awake)
        self._limits.released(claimed.job_id, awake)

    @property
    def slots(self) -> int:
        """How many workers it claims for."""
        return self._slots

    def resize(self, slots: int) -> None:
        """There are more or fewer workers now."""
        self._slots = slots
        self._limits.resize(slots + self._spare)
        self._held_up.end()
        self.more = True

    @property
    def busy(self) -> int:
        """How many items are in flight."""
        return sum(self._flying.values())

    @property
    def free_since(self) -> float | None:
        """Return since when (awake time) there was a free slot at any moment, and nothing to claim for it.

        None where there is none now, or nobody has looked yet.
        """
        full = self.more or bool(self._held_up) or self.solitude.anybody or self._flying.total() >= self._slots
        return None if full else self._full_until

    def left(self, claimed: Sequence[Claimed]) -> None:
        """The settlement of these has committed."""
        if self._flying.total() >= self._slots:
            self._full_until = clock.awake()
        counts = collections.Counter([item.task for item in claimed])
        self._flying.subtract(counts)
        # Where nothing more of a task or a job may run at once, its end is what the next of it waits for.
        self.more = self.more or any(task in self._bounds for task in counts)
        for item in claimed:
            if item.lane is Lane.ALONE:
                self.solitude.ended(item.item_id)
            if self._limits.left(item.job_id):
                self.more = True
        if self.solitude.anybody and not self._flying.total():
            # Who waited for its end, or for the pool to itself, may start now.
            self.more = True

    def undone(self) -> None:
        """A transaction has failed: what it had claimed is queued as before."""
        self._full_until = clock.awake()
        self.more = self.solitude.anybody = True

    # -- what is next ---------------------------------------------------------------------------------------------

    def wanted(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        if not self.more or sum(self._flying.values()) < self._slots:
            return self.more
        return self._ahead and any(self._pace.room(task, self._slots, self._flying) for task in self._flying)

    def scout(self, now: int) -> None:
        """Before the transaction: if the last one found too much in its way and nothing else, look further."""
        if self._lost:
            full = self._limits.round((), clock.awake()).full
            self._store.read(lambda connection: scout(self._store, connection, self._turns, self._tasks, now, full))

    def claim(
        self, connection: Connection, leaving: Sequence[Outcome], most: int, now: int, *, beside: int = 0
    ) -> tuple[list[Claimed], int]:
        """Claim what fits while ``leaving`` leave, up to ``most`` items; also return how many were skipped instead.

        ``beside`` is how many items run in this process for which others claim.
        """
        flying, bounding = self._without(leaving)
        unique = self._unique()
        taken = Taken(self._store, connection, unique, now=now, actor=self._actor) if unique else None
        room = self._bounds.room(bounding, clock.awake())
        jobs = self._limits.round(leaving, clock.awake())
        if jobs.full and self._limits.learn(policies(self._store, connection, jobs.full)):
            jobs = self._limits.round(leaving, clock.awake())
        here = Claiming(
            self._store, connection, self._turns, self._daemon_id, self._actor, now, taken, room, jobs, beside
        )
        claimed = self._claim(here, flying, most)
        if taken is None:
            return claimed, 0
        taken.end()
        return claimed, taken.skipped

    def _without(self, leaving: Sequence[Outcome]) -> tuple[collections.Counter[str], collections.Counter[str]]:
        """Return what is in flight once ``leaving`` have left, and of that and beside it what counts for bounds."""
        flying: collections.Counter[str] = collections.Counter()
        # Not by copy: that asks each time whether it is a mapping, which an idle daemon's first item has to wait for.
        dict.update(flying, self._flying)
        if leaving:
            flying.subtract([outcome.task for outcome in leaving])
        # Who is being given up may run on: whether it does, the next turn knows.
        lingering = [outcome.task for outcome in leaving if outcome.kind in RUN_ON]
        if not lingering and not self._hanging:
            return flying, flying
        return flying, flying + self._hanging + collections.Counter(lingering)

    def _claim(self, here: Claiming, flying: collections.Counter[str], most: int) -> list[Claimed]:
        claimed: list[Claimed] = []
        again: list[int] = []
        self._lost = False
        if self.solitude.anybody:
            claimed, blocked, again = self._interruptions.claim(here, self._slots, flying.total())
            if blocked:
                self.more = False
                self.due = here.now + int(blocked * 1000)
                return claimed
            flying.update(item.task for item in claimed)
        claimed += self._claim_fresh(here, flying, most)
        self._lost = self._turns.tired and not claimed
        # A round goes on before anybody rests.
        self.more = self.more or self._rounds.after > 0
        if not self.more:
            again += [] if self._turns.due is None else [self._turns.due]
            awake = clock.awake()
            waits = (self._bounds.wait(here.room, awake), here.jobs.wait(), self._held_up.left(awake))
            again += [here.now + int(wait * 1000) + 1 for wait in waits if wait is not None]
            self.due = min(again, default=None)
        return claimed

    def _claim_fresh(self, here: Claiming, flying: collections.Counter[str], most: int) -> list[Claimed]:
        limit = min(self._slots - flying.total(), most)
        claimed: list[Claimed] = []
        if self._held_up.left(clock.awake()) is not None and flying.total() > 0:
            # What was claimed last has found no slot, whatever was counted: first something has to end.
            self.more = False
            return claimed
        if limit > 0:
            claimed = here.take(limit, self._tasks)
            if len(claimed) < limit:
                self.more = here.full or self._turns.tired
                return claimed
            flying.update(item.task for item in claimed)
        return claimed + self._claim_ahead(here, flying, most - len(claimed))

    def _claim_ahead(self, here: Claiming, flying: collections.Counter[str], most: int) -> list[Claimed]:
        """Claim ahead of the slots, of all tasks alike: while something waits in line no slot ever is free, and a task
        that is not in the line yet would wait until the last of the others has run.
        """
        claimed: list[Claimed] = []
        here.jobs.ahead = True
        while self._ahead and len(claimed) < most and not here.full:
            # Of a bounded task nothing waits in line: it would start together with what is claimed after it.
            asking = (task for task in self._asking(here) if task not in here.room)
            rooms = {task: room for task in asking if (room := self._pace.room(task, self._slots, flying))}
            if not rooms:
                break
            limit = min(*rooms.values(), most - len(claimed))
            ahead = here.take(limit, rooms)
            flying.update(item.task for item in ahead)
            claimed += ahead
            if self._turns.tired:
                break
            # Nothing left of these; a free slot asks again, for every task.
            self._ahead = len(ahead) == limit or here.full
        return claimed

    def _asking(self, here: Claiming) -> Collection[str]:
        """Return the tasks that have something to claim, as of the last look."""
        awake = clock.awake()
        if awake - self._asked >= LOOK:
            self._asked = awake
            several = len(self._tasks) > 1
            self._wanted = (
                tasks_due(self._store, here.connection, self._tasks, here.now) if several else tuple(self._tasks)
            )
        return self._wanted
