"""How many more items of a task may start: bounded by its ``concurrency`` and by its ``rate``.

Both are this daemon's, in memory. A restart forgets what has started before it; the drains of one app remember it.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, TypeAlias

# When items of each task with a rate have started, in awake time.
Started: TypeAlias = dict[str, collections.deque[float]]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.tasks import Task


class Bounds:
    """The bounds of ``tasks``. Times are awake time, in seconds.

    Of a task with the rate 10/m no more than ten start within any minute: what has started is kept for that long, and
    the next one waits until the tenth before it is a minute old. ``started`` is what has started before, and is kept.
    """

    def __init__(self, tasks: Mapping[str, Task[..., object]], started: Started | None = None) -> None:
        self._tasks = tasks
        self._started = {} if started is None else started

    def __contains__(self, name: str) -> bool:
        task = self._tasks.get(name)
        return task is not None and task.policy.bounded

    def room(self, flying: Mapping[str, int], awake: float) -> dict[str, int]:
        """Return how many more items of each bounded task may start now, beside what is in flight."""
        found: dict[str, int] = {}
        for name, task in tuple(self._tasks.items()):
            rooms = []
            if task.policy.concurrency is not None:
                rooms.append(task.policy.concurrency - flying.get(name, 0))
            if task.policy.rate is not None:
                rooms.append(task.policy.rate.times - len(self._within(name, awake)))
            if rooms:
                found[name] = max(0, min(rooms))
        return found

    def wait(self, room: Mapping[str, int], awake: float) -> float | None:
        """Return after how many seconds a rate lets start more of a task that has no room; None where none does.

        ``room`` is what is left after a claim, which has not committed yet: what it took starts now.
        """
        return min(self.waits(room, awake).values(), default=None)

    def waits(self, room: Mapping[str, int], awake: float) -> dict[str, float]:
        """Return the same of each such task."""
        found = {}
        for name, left in room.items():
            rate = self._tasks[name].policy.rate
            if left <= 0 and rate is not None:
                started = self._within(name, awake)
                found[name] = (started[0] if started else awake) + rate.seconds - awake
        return found

    def started(self, counts: Mapping[str, int], awake: float) -> None:
        """So many items of these tasks have been claimed."""
        for name, count in counts.items():
            task = self._tasks.get(name)
            if task is not None and task.policy.rate is not None:
                self._started.setdefault(name, collections.deque()).extend([awake] * count)

    def released(self, name: str, awake: float) -> None:
        """One that was claimed then has never begun."""
        if (started := self._started.get(name)) and awake in started:
            started.remove(awake)

    def _within(self, name: str, awake: float) -> collections.deque[float]:
        """Return when what has started within the rate's time did."""
        rate = self._tasks[name].policy.rate
        started = self._started.setdefault(name, collections.deque())
        # What lies ahead was seen by another clock: a test had stopped it, or has let it go.
        while started and rate is not None and not 0 <= awake - started[0] < rate.seconds:
            started.popleft()
        return started
