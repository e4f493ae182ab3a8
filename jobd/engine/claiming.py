"""What one transaction claims with: where, when, for whom, and what it must leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobd.store.claim import claim, claim_interrupted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jobd.engine.limits import Round
    from jobd.store.base import Connection, Store
    from jobd.store.claim import Claimed, ClaimedJob, Lane, Turns
    from jobd.store.taken import Taken


class Claiming(NamedTuple):
    """One transaction: its connection, its time, what it leaves out, how many more items of a bounded task and of
    bounded jobs may start, and how many run beside in this process.
    """

    store: Store
    connection: Connection
    turns: Turns
    daemon_id: int
    actor: str
    now: int
    taken: Taken | None
    room: dict[str, int]
    jobs: Round
    beside: int

    @property
    def full(self) -> bool:
        """Say whether it leaves out no more, so that the next one has to go on."""
        return self.taken is not None and self.taken.full

    def may(self, job: ClaimedJob) -> bool:
        """Say whether an item of the job may start, for all that bounds it."""
        return self.room.get(job.task, 1) > 0 and job.id not in self.jobs.full

    def take(self, limit: int, tasks: Collection[str]) -> list[Claimed]:
        """Claim up to ``limit`` fresh items of these tasks."""
        return claim(
            self.store, self.connection, self.turns, limit=limit, tasks=tasks,
            daemon_id=self.daemon_id, now=self.now, actor=self.actor, taken=self.taken, room=self.room,
            bounded=self.jobs,
        )  # fmt: skip

    def take_interrupted(self, jobs: Sequence[ClaimedJob], limit: int, lane: Lane) -> list[Claimed]:
        """Claim up to ``limit`` interrupted items of ``lane`` of these jobs."""
        return claim_interrupted(
            self.store, self.connection, self.turns, jobs, limit=limit, lane=lane,
            daemon_id=self.daemon_id, now=self.now, actor=self.actor, taken=self.taken, room=self.room,
            bounded=self.jobs,
        )  # fmt: skip
