"""What is claimed of items that were interrupted: once, into free slots only; twice, alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd import clock
from jobd.engine.solitude import ALONE_FOR
from jobd.store.claim import Lane
from jobd.store.interrupted import changed, interrupted

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobd.engine.claiming import Claiming
    from jobd.engine.rounds import Rounds
    from jobd.engine.solitude import Solitude
    from jobd.store.claim import Claimed


class Interruptions:
    """Claims of ``tasks``, in ``rounds`` over all that was interrupted; ``solitude`` says who may start beside whom."""

    def __init__(self, tasks: Collection[str], solitude: Solitude, rounds: Rounds) -> None:
        self._tasks = tasks
        self._solitude = solitude
        self._rounds = rounds

    def claim(self, here: Claiming, slots: int, busy: int) -> tuple[list[Claimed], float, list[int]]:
        """Return what was claimed for ``slots`` of which so many are busy, for how many seconds nothing else may be,
        and when to ask again (Unix ms).
        """
        awake = clock.awake()
        if blocked := self._solitude.occupied(awake):
            return [], blocked, []
        change = changed(here.connection, here.now)
        again = [] if change.due is None else [change.due]
        state = (change, len(self._tasks))
        if pause := self._rounds.wait(state, awake):
            return [], 0.0, [*again, here.now + int(pause * 1000) + 1]
        found = interrupted(here.store, here.connection, self._tasks, after=self._rounds.after, now=here.now)
        # One that its bounds hold back keeps nobody else waiting for it.
        if alone := [job for job in self._solitude.alone(found) if here.may(job)]:
            # The round stays here: whoever waits for the pool to itself must be found when it is empty.
            if not busy + here.beside:
                claimed = here.take_interrupted(alone, 1, Lane.ALONE)
                return claimed, ALONE_FOR if claimed else 0.0, again
            if blocked := self._solitude.emptying(awake):
                return [], blocked, []
        free = slots - busy
        careful = self._solitude.careful(found)
        claimed = here.take_interrupted(careful, free, self._solitude.lane) if free > 0 else []
        self._solitude.anybody = bool(found.jobs or self._rounds.after)
        # Where there is nobody, whoever says that there is again is to be believed at once.
        worth = bool(found.careful or found.alone) or not self._solitude.anybody
        self._rounds.looked(state, awake, last=found.last, found=worth)
        return claimed, 0.0, again
