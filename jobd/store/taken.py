"""What a claim leaves out: items of unique tasks whose period another result has. They are skipped, unstarted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from jobd.states import QUEUED, SKIPPED
from jobd.store.counters import count_moves
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record
from jobd.store.transitions import Move
from jobd.store.unique import Wanted, of_policy, reason, taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.claim import Claimed, ClaimedJob
    from jobd.store.unique import Unique

# In one transaction: each is an update, an event and a look.
MOST: Final = 500

_SKIP: Final = Move(
    "job_items", "skip", SKIPPED, source=QUEUED, columns=("error",), sets=("error_type='Skip'", "completed_at=?")
)
_NEXT: Final = (
    "from (select id, job_id, key from job_items where job_id = ? and status = 'queued' and available_at <= ?"
    " order by available_at, id limit ?) as i"
    # The last term is that of the partial index, to the letter: SQLite takes it only then.
    " cross join results as r on r.task = ? and r.key = i.key and r.period = ? and r.period is not null"
    " cross join job_items as o on o.id = r.item_id where r.item_id <> i.id"
)
_NEXT_COLUMNS: Final = "i.id as id, r.item_id as older, o.job_id as older_job"
# What a foreign hand has made of it must not keep everybody from claiming.
_NOTE: Final = (
    "update jobs set policy = json_patch(policy, json_object('unique', ?, 'zone', ?))"
    " where id = ? and json_valid(policy)"
)


class Taken:
    """Keeps one claim, in one transaction, from items whose period is taken.

    ``unique`` says of the daemon's tasks how they are. A first item found so is skipped together with those among the
    next of its job that are, too, and more of them are left to the next claim once ``full``.
    """

    def __init__(
        self, store: Store, connection: Connection, unique: Mapping[str, Unique], *, now: int, actor: str
    ) -> None:
        self._store = store
        self._connection = connection
        self._unique = unique
        self._periods = {task: one.period(now) for task, one in unique.items()}
        self._now = now
        self._actor = actor
        self._skipped: Counter[int] = Counter()

    @property
    def full(self) -> bool:
        """Say whether enough was skipped for one transaction."""
        return self.skipped >= MOST

    @property
    def skipped(self) -> int:
        """How many items were skipped so far."""
        return self._skipped.total()

    def without(self, picked: Sequence[tuple[ClaimedJob, Claimed]]) -> list[tuple[ClaimedJob, Claimed]]:
        """Return what is left of a round to start, and skip the rest."""
        jobs = {job.id: job for job, _ in picked if job.task in self._unique}
        if not jobs:
            return list(picked)
        refreshing = {job.id: self._noted(job) for job in jobs.values()}
        wanted = [
            Wanted(item.item_id, job.id, job.task, item.key, self._periods[job.task], refresh=False)
            for job, item in picked
            if refreshing.get(job.id) is False
        ]
        holders = taken(self._store, self._connection, wanted)
        lost = {
            one.item_id: (one, *holder)
            for one in wanted
            if (holder := holders.get((one.task, one.key, one.period))) is not None and holder[0] != one.item_id
        }
        if lost:
            self._skip([(one.item_id, one.job_id, reason(one.period, *holder)) for one, *holder in lost.values()])
            for job_id, task in {(one.job_id, one.task) for one, *_ in lost.values()}:
                self._skip(self._next(job_id, task))
        return [
            (job, item._replace(refresh=True) if refreshing.get(job.id) else item)
            for job, item in picked
            if item.item_id not in lost
        ]

    def end(self) -> None:
        """End the jobs that have nothing open any more."""
        if self._skipped:
            end_jobs(self._store, self._connection, self._skipped, now=self._now, actor=self._actor)

    def _noted(self, job: ClaimedJob) -> bool:
        """Say whether the job refreshes; note in its row how its task is unique, as its submitter may not have known
        and whoever settles its items later may not know the task.
        """
        own, refresh = of_policy(job.policy)
        unique = self._unique[job.task]
        if own != unique:
            self._connection.execute(_NOTE, (unique.unit, unique.zone, job.id))
        return refresh

    def _next(self, job_id: int, task: str) -> Iterable[tuple[int, int, str]]:
        room = MOST - self.skipped
        if room <= 0:
            return []
        period = self._periods[task]
        params = (job_id, self._now, room, task, period)
        found = self._store.gather(self._connection, _NEXT_COLUMNS, _NEXT, params)
        return [(item_id, job_id, reason(period, older, older_job)) for item_id, older, older_job in found]

    def _skip(self, lost: Iterable[tuple[int, int, str]]) -> None:
        rows = list(lost)
        if not rows:
            return
        store, connection, now = self._store, self._connection, self._now
        _SKIP.run(store, connection, [(item_id, why) for item_id, _, why in rows], (now,))
        jobs = Counter(job_id for _, job_id, _ in rows)
        count_moves(store, connection, jobs, QUEUED, SKIPPED, progress=now)
        events = [
            Event(job_id, item_id, "skip", QUEUED, SKIPPED, now, self._actor, message=f"Skip: {why}")
            for item_id, job_id, why in rows
        ]
        record(store, connection, events)
        self._skipped += jobs
