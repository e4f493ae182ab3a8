"""How many more items of a single job may start, where the job itself says so: its ``concurrency`` and its ``rate``.

They come beside what bounds its task, and are this daemon's, in memory, as those are. Where no job says anything they
cost one look at a text for each job of a claim.
"""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING, Final

from jobd.overrides import of_policy
from jobd.store.outcome import RUN_ON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobd.overrides import Overrides
    from jobd.store.claim import Claimed, ClaimedJob
    from jobd.store.outcome import Outcome


_ANY: Final = 2**31


class Limits:
    """What is in flight of each job, and what has started of late of those with bounds. Times are awake seconds.

    ``most`` is how many handlers can run at once, with those that were given up and run on in a place that is another's
    by now. A concurrency of as many bounds nothing: were such a job held to be bounded, nothing of it could wait in
    line, and its slots would stand idle through every transaction.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._own: dict[int, Overrides] = {}  # of jobs with bounds, by the last word that was read of each
        # Of jobs without bounds as well: they may be given some while they run.
        self._flying: collections.Counter[int] = collections.Counter()
        self._started: dict[int, collections.deque[float]] = {}

    def resize(self, most: int) -> None:
        """There are so many now; what is lost may come back, so fewer are not counted."""
        self._most = max(self._most, most)

    def started(self, claimed: Sequence[Claimed], awake: float) -> None:
        """A claim has committed."""
        self._flying.update([item.job_id for item in claimed])
        for item in claimed:
            if item.policy != "{}" and self._read(item.policy).rate is not None:
                self._started.setdefault(item.job_id, collections.deque()).append(awake)

    def released(self, job_id: int, awake: float) -> None:
        """An item of the job that was claimed then has never begun."""
        if (started := self._started.get(job_id)) and awake in started:
            started.remove(awake)

    def learn(self, policies: Iterable[tuple[int, str]]) -> bool:
        """Take what jobs say by now, and say whether that is anything new: somebody may want more at once."""
        before = dict(self._own)
        self._own.update((job_id, self._read(text)) for job_id, text in policies)
        return self._own != before

    def left(self, job_id: int) -> bool:
        """An item of the job was settled, or was given up and has come back; say whether others may wait for it."""
        self._flying[job_id] -= 1
        if not self._flying[job_id]:
            del self._flying[job_id]
        return job_id in self._own

    def hangs(self, job_id: int) -> None:
        """An item of the job was given up, and runs on."""
        self._flying[job_id] += 1

    def round(self, leaving: Iterable[Outcome], awake: float) -> Round:
        """Return what a claim may take while ``leaving`` leave."""
        # Who is being given up may run on: whether it does, the next turn knows.
        gone = functools.cache(lambda: collections.Counter([o.job_id for o in leaving if o.kind not in RUN_ON]))

        def room(job_id: int, own: Overrides) -> int:
            flying = self._flying[job_id] - gone()[job_id]
            return _room(own, flying, len(self._within(job_id, own, awake)))

        rooms, waits = {}, {}
        for job_id, own in tuple(self._own.items()):
            started = self._within(job_id, own, awake)
            if not started and job_id not in self._flying:
                del self._own[job_id]
                self._started.pop(job_id, None)
                continue
            rooms[job_id] = room(job_id, own)
            if own.rate is not None and started:
                waits[job_id] = started[0] + own.rate.seconds - awake
        return Round(self._own, rooms, waits, read=self._read, room=room)

    def _read(self, policy: str) -> Overrides:
        own = of_policy(policy)
        return own._replace(concurrency=None) if own.concurrency and own.concurrency >= self._most else own

    def _within(self, job_id: int, own: Overrides, awake: float) -> Sequence[float]:
        """Return when what has started within the rate's time did."""
        started = self._started.get(job_id)
        if started is None or own.rate is None:
            return ()
        while started and started[0] <= awake - own.rate.seconds:
            started.popleft()
        return started


class Round:
    """What one claim may take of jobs with bounds of their own. ``full`` are those of which it may take nothing more.

    ``ahead`` says that what is taken waits in line: then nothing of a job with a rate may be taken, as it would start
    together with what is claimed after it.

    What it reads of a job's bounds it leaves in ``own``: of a job of which there is no room for anything, nothing else
    would say that its next end is waited for.
    """

    def __init__(
        self,
        own: dict[int, Overrides],
        rooms: dict[int, int],
        waits: dict[int, float],
        *,
        read: Callable[[str], Overrides],
        room: Callable[[int, Overrides], int],
    ) -> None:
        self.full = {job_id for job_id, room in rooms.items() if room <= 0}
        self.ahead = False
        self._own = own
        self._rooms = rooms
        self._waits = waits
        self._read = read
        self._room = room

    def within(self, picked: list[tuple[ClaimedJob, Claimed]]) -> list[tuple[ClaimedJob, Claimed]]:
        """Return what of ``picked`` there is room for, and take it off."""
        if all([job.policy == "{}" for job, _ in picked]):  # noqa: C419 - half the time of a generator, at each claim
            return picked
        return [(job, item) for job, item in picked if self._takes(job)]

    def wait(self) -> float | None:
        """Return after how many seconds a rate lets start more of a job that is full; None where none does."""
        waits = []
        for job_id in self.full:
            own = self._own.get(job_id)
            if own is not None and own.rate is not None:
                # What this claim took starts now.
                waits.append(self._waits.get(job_id, own.rate.seconds))
        return min(waits, default=None)

    def _takes(self, job: ClaimedJob) -> bool:
        own = self._read(job.policy)
        if not own.bounded:
            return True
        if self.ahead and own.rate is not None:
            self.full.add(job.id)
            return False
        if self._own.get(job.id) != own or job.id not in self._rooms:
            self._own[job.id] = own
            self._rooms[job.id] = self._room(job.id, own)
        self._rooms[job.id] -= 1
        if self._rooms[job.id] <= 0:
            self.full.add(job.id)
        return self._rooms[job.id] >= 0


def _room(own: Overrides, flying: int, started: int) -> int:
    rooms = [] if own.concurrency is None else [own.concurrency - flying]
    if own.rate is not None:
        rooms.append(own.rate.times - started)
    return max(0, min(rooms, default=_ANY))
