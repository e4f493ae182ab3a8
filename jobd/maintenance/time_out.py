"""time_out: what waits past its deadline fails; a job without progress goes on with new attempts, and fails in the end.

A job's clock stands still while nothing of it runs: paused, waiting, due later, of a task that nobody here knows, or
only starved by other jobs. Without a daemon time stands still for all. The one exception is a job that has something
due for which a slot was free the whole time: nobody sees to it, and that must show.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.maintenance.report import Change, Report, Tally
from jobd.states import CANCELLED, FAILED, QUEUED, RUNNING, WAITING
from jobd.store import daemons, deadlines
from jobd.store.batches import BATCH, Pace, always, breathe
from jobd.store.outcome import INTERRUPTED, Outcome
from jobd.store.settle import settle
from jobd.store.steer import fail_in
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from jobd.maintenance.evidence import Holder
    from jobd.store.base import Connection, Store
    from jobd.store.deadlines import Held, Late

RETRIES: Final = 2
TIMED_OUT: Final = "timed_out"
INTERRUPT: Final = "interrupted"


class Hung(NamedTuple):
    """An attempt that the live daemon has to give up, and what its item's history says of it."""

    item_id: int
    attempt: int
    why: str


def nobody(hung: Sequence[Hung]) -> None:
    """Interrupt nothing: there is no daemon in this process."""


@dataclass(frozen=True)
class Limits:
    """How long jobs may be without progress, and what the live daemon says of itself.

    ``timeout_ms`` is that of jobs without a time-out of their own, of which nothing runs; a job may time out
    ``retries`` times and go on. ``tasks`` are those that the daemon knows; since ``free_since`` (Unix ms) it had a free
    slot at any moment, None where not. ``interrupt`` gives up attempts that its registry knows.
    """

    timeout_ms: int
    retries: int = RETRIES
    tasks: Collection[str] = ()
    free_since: int | None = None
    interrupt: Callable[[Sequence[Hung]], None] = nobody


def time_out(
    store: Store,
    *,
    holder: Holder,
    limits: Limits,
    now: int,
    actor: str,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
) -> Report:
    """Fail what waits past its deadline, and see to jobs without progress; return what was done.

    With ``check_only`` nothing is written and the report says what would be. Where ``go_on`` says no between two
    batches, the rest is left to the next call.
    """
    run = _Run(store, holder, limits, now, actor, check_only, go_on)
    run.waiting()
    if holder.daemon_id is not None:
        run.neglected()
        run.late()
    return run.tally.report("time_out", check_only=check_only)


class _Verdict(NamedTuple):
    """What becomes of one late job: only another deadline, or a time-out, with the items that are interrupted."""

    job: Late
    why: str = ""
    deadline: int | None = None
    items: tuple[Held, ...] = ()
    fails: bool = False


@dataclass(frozen=True)
class _Run:
    store: Store
    holder: Holder
    limits: Limits
    now: int
    actor: str
    check_only: bool
    go_on: Callable[[], bool]
    tally: Tally = field(default_factory=Tally)

    # -- items that wait ------------------------------------------------------------------------------------------

    def waiting(self) -> None:
        at, pace = self._clock(), Pace(BATCH)
        last = (0, 0)
        while self.go_on():
            size = pace.size

            def look(connection: Connection, size: int = size, last: tuple[int, int] = last) -> list[deadlines.Overdue]:
                return deadlines.overdue_items(connection, at, size, last)

            found = self.store.read(look)
            if found and not self.check_only:

                def act(connection: Connection, size: int) -> list[deadlines.Overdue]:
                    again = look(connection, size)
                    deadlines.fail_items(self.store, connection, again, at=at, now=self.now, actor=self.actor)
                    return again

                found = pace.write(self.store, act)
                breathe()
            for item in found:
                late = f"its deadline passed {span(self.now - item.deadline_at)} ago"
                self.tally.add(
                    Change(item.job_id, item.id, item.key, WAITING, FAILED, late, item.deadline_at, item.attempt)
                )
            if len(found) < size:
                return
            last = (found[-1].deadline_at, found[-1].id)

    def _clock(self) -> int:
        """Return up to when deadlines have passed: without a daemon the last sign of life of one."""
        if self.holder.daemon_id is not None:
            return self.now
        last = daemons.last_sign(self.store)
        return self.now if last is None else min(self.now, last.at)

    # -- jobs without progress ------------------------------------------------------------------------------------

    def neglected(self) -> None:
        """Time out jobs of which nothing runs though it could; what can be done about it is to be seen."""
        limits = self.limits
        free = limits.free_since
        if free is None:
            return

        def look(connection: Connection, _: int) -> list[_Verdict]:
            found = deadlines.neglected_jobs(
                self.store, connection, self.now, timeout_ms=limits.timeout_ms, free_since=free, tasks=limits.tasks
            )
            return [self._time_out(job, f"nothing of it has run for {span(job.timeout_ms)}", ()) for job in found]

        self._carry_out(look, Pace(deadlines.JOBS_AT_ONCE))

    def late(self) -> None:
        last, pace = (0, 0), Pace(deadlines.JOBS_AT_ONCE)
        while self.go_on():
            size = pace.size

            def look(connection: Connection, size: int, last: tuple[int, int] = last) -> list[_Verdict]:
                return self._judge(connection, deadlines.late_jobs(connection, self.now, size, last))

            verdicts = self._carry_out(look, pace)
            if len(verdicts) < size:
                return
            last = (verdicts[-1].job.timeout_at, verdicts[-1].job.id)

    def _judge(self, connection: Connection, found: Sequence[Late]) -> list[_Verdict]:
        """Return what becomes of each; progress, or the start of an item, has put the deadline off."""
        silent = [job.id for job in found if job.since + job.timeout_ms <= self.now]
        held: dict[int, list[Held]] = defaultdict(list)
        for item in deadlines.held_items(self.store, connection, silent) if silent else ():
            # Another daemon's: whether anybody runs that is not a question of time, and recover's.
            if item.daemon_id == self.holder.daemon_id:
                held[item.job_id].append(item)
        return [self._verdict(job, held.get(job.id, [])) for job in found]

    def _verdict(self, job: Late, items: Sequence[Held]) -> _Verdict:
        due = job.since + job.timeout_ms
        if due > self.now:
            return _Verdict(job, deadline=due)
        if not items:
            return _Verdict(job, deadline=self.now + job.timeout_ms)
        return self._time_out(job, f"no progress for {span(self.now - job.since)}", items)

    def _time_out(self, job: Late, why: str, items: Sequence[Held]) -> _Verdict:
        fails = job.retry_count >= self.limits.retries
        return _Verdict(job, why, self.now + job.timeout_ms, tuple(items), fails=fails and not job.requested)

    def _carry_out(self, look: Callable[[Connection, int], list[_Verdict]], pace: Pace) -> list[_Verdict]:
        # Outside the write lock: mostly there is nothing to do.
        verdicts = self.store.read(lambda connection: look(connection, pace.size))
        if verdicts and not self.check_only:
            verdicts = pace.write(self.store, lambda connection, size: self._act(connection, look(connection, size)))
            self.limits.interrupt(
                [
                    Hung(item.id, item.attempt, f"its job made {verdict.why}")
                    for verdict in verdicts
                    for item in verdict.items
                    if item.id in self.holder.known
                ]
            )
            breathe()
        for change, word in _changes(verdicts, self.limits.retries):
            self.tally.add(change, word)
        return verdicts

    def _act(self, connection: Connection, verdicts: list[_Verdict]) -> list[_Verdict]:
        store, now, actor = self.store, self.now, self.actor
        deadlines.put_off(store, connection, [(v.job.id, v.deadline) for v in verdicts if v.deadline is not None])
        counted = [(v.job, v.why) for v in verdicts if v.why and not v.fails and not v.job.requested]
        deadlines.time_out_jobs(store, connection, counted, now=now, actor=actor)
        for job_id, why in [(v.job.id, f"timed out: {v.why}") for v in verdicts if v.fails]:
            fail_in(store, connection, job_id, now=now, actor=actor, reason=why)
            deadlines.name_cause(connection, job_id, why)
        unknown = [
            _interrupted(item, v.why, now) for v in verdicts for item in v.items if item.id not in self.holder.known
        ]
        if unknown:
            settle(store, connection, unknown, now=now, actor=actor)
        return verdicts


def _interrupted(item: Held, why: str, now: int) -> Outcome:
    began = now if item.started_at is None else item.started_at
    error = f"its job made {why}"
    return Outcome(
        item.id, item.job_id, item.attempt, item.task, item.key, INTERRUPTED, began, now, error=error
    )  # fmt: skip


def _changes(verdicts: Sequence[_Verdict], retries: int) -> Iterator[tuple[Change, str]]:
    for verdict in verdicts:
        job, why = verdict.job, verdict.why
        if why and not job.requested:
            target = FAILED if verdict.fails else job.status
            left = "it has timed out too often" if verdict.fails else f"time-out {job.retry_count + 1} of {retries}"
            yield Change(job.id, None, None, job.status, target, f"{why}; {left}", job.since), TIMED_OUT
        target = CANCELLED if verdict.fails or job.requested else QUEUED
        for item in verdict.items:
            change = Change(
                job.id, item.id, item.key, RUNNING, target, f"its job made {why}", item.started_at, item.attempt
            )
            yield change, INTERRUPT
