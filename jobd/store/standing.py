"""Where a job stands: its health in one word, its pace, what it takes. Pure: rows in, facts out.

All of it is made from what is known at the moment of reading, so that a job which nobody runs never looks as if
somebody did, whoever wrote its status and died. Annotations are evaluated here for the reason that views.py gives.
"""

import json
from typing import Any, Final, NamedTuple

from jobd.states import COMPLETED, JOB_ENDS, QUEUED, RUNNING
from jobd.store.closeup import Closeup
from jobd.store.pace import SHORTEST_SPAN
from jobd.store.verbs import Asked
from jobd.store.verbs import operations as legal_operations
from jobd.store.views import Counts, JobDaemon, Phases, Runner

STALL_AFTER: Final = 3_600  # seconds


class JobRow(NamedTuple):
    """The columns of ``jobs`` that reading needs, in the order in which they are selected."""

    id: int
    task: str
    key: str | None
    params: str
    target: str | None
    status: str
    status_message: str | None
    status_updated_at: int
    version: int
    last_error: str | None
    priority: int
    not_before: int | None
    job_timeout_ms: int | None
    timeout_at: int | None
    retry_count: int
    submitter: str | None
    sealed_at: int | None
    paused_at: int | None
    cancel_requested_at: int | None
    fail_requested_at: int | None
    deleted_at: int | None
    values_pruned_at: int | None
    items_total: int
    items_running: int
    items_waiting: int
    items_completed: int
    items_failed: int
    items_skipped: int
    items_cancelled: int
    policy: str
    created_at: int
    started_at: int | None
    progress_at: int | None
    completed_at: int | None

    @property
    def counts(self) -> Counts:
        """The items by status."""
        ended = self.items_completed + self.items_failed + self.items_skipped + self.items_cancelled
        queued = self.items_total - self.items_running - self.items_waiting - ended
        return Counts(
            self.items_total, queued, self.items_running, self.items_waiting, self.items_completed,
            self.items_failed, self.items_skipped, self.items_cancelled,
        )  # fmt: skip

    @property
    def requested(self) -> bool:
        """Whether a cancel or a fail was asked for and is not worked off."""
        return self.cancel_requested_at is not None or self.fail_requested_at is not None


class Holding(NamedTuple):
    """How many running items name one daemon, and what its row says; ``daemon_id`` None: they name none."""

    daemon_id: int | None
    items: int
    pid: int | None = None
    host: str | None = None
    heartbeat_at: int | None = None


class Parent(NamedTuple):
    """A job that this one comes after."""

    id: int
    status: str
    on_status: str
    deleting: int = False

    @property
    def blocks(self) -> bool:
        """Whether it has not ended as its child waits for."""
        return not self.deleting and self.status not in (JOB_ENDS if self.on_status == "ended" else (COMPLETED,))

    @property
    def lost(self) -> bool:
        """Whether it has ended otherwise."""
        return self.blocks and self.status in JOB_ENDS


class Around(NamedTuple):
    """What stands around a job in other tables, read in the same snapshot.

    ``next_due`` is the earliest time at which a queued item may start, None where none is queued or it was not asked;
    ``pace`` is items a second lately, where the whole job's average would mislead; ``submitter_alive`` is None
    where it cannot be known; ``waited_for``: a job that has not ended comes after it. ``closeup`` and ``phases`` are
    there where one job was looked at from close, ``phases`` only of one that is linked to others.
    """

    holdings: tuple[Holding, ...] = ()
    parents: tuple[Parent, ...] = ()
    next_due: int | None = None
    pace: float | None = None
    submitter_alive: bool | None = None
    waited_for: bool = False
    closeup: Closeup | None = None
    phases: Phases | None = None


class Standing(NamedTuple):
    """A job, what stands around it, who runs items, and when that was read. ``stall_after`` is in seconds."""

    row: JobRow
    around: Around
    runner: Runner
    now: int
    stall_after: float

    @property
    def open(self) -> bool:
        return self.row.status not in JOB_ENDS

    @property
    def lost(self) -> tuple[Holding, ...]:
        """Running items that the one who runs items now does not hold."""
        if not self.runner.alive:
            return self.around.holdings
        return tuple(held for held in self.around.holdings if held.daemon_id != self.runner.id)

    @property
    def orphaned(self) -> bool:
        """Whether it has items that nobody runs, or reads as running and no daemon lives that would go on with it."""
        return bool(self.lost) or (self.row.status == RUNNING and not self.runner.alive and self.row.paused_at is None)

    @property
    def unknown_task(self) -> bool:
        # Between the lock and its row a daemon is only starting.
        runner = self.runner
        return self.open and runner.alive and runner.id is not None and self.row.task not in runner.tasks

    @property
    def timeout_at(self) -> int | None:
        """By when it has to make progress, in Unix ms; None while its clock stands still: where nothing of it runs."""
        row = self.row
        if not self.open or row.paused_at is not None or not row.items_running or row.job_timeout_ms is None:
            return None
        since = row.progress_at or row.started_at or row.created_at
        return max(row.timeout_at or 0, since + row.job_timeout_ms)

    @property
    def silence(self) -> int | None:
        """Milliseconds without progress of a job that could make some."""
        row = self.row
        if row.status != RUNNING or row.paused_at is not None:
            return None
        since = max(row.progress_at or 0, row.started_at or 0, row.status_updated_at)
        return max(0, self.now - since)

    @property
    def stalled(self) -> bool:
        own = parsed(self.row.policy)
        limit = own.get("stall_after", self.stall_after) if isinstance(own, dict) else self.stall_after
        return self.silence is not None and isinstance(limit, int | float) and self.silence >= limit * 1000

    @property
    def blocked_by(self) -> tuple[int, ...]:
        """Parents that have not ended as they must before this job may start."""
        return tuple(parent.id for parent in self.around.parents if parent.blocks) if self.open else ()

    @property
    def due_in(self) -> int | None:
        """Milliseconds until the first queued item may start; None where one may start now, or none is queued."""
        times = [at for at in (self.row.not_before, self.around.next_due) if at is not None and at > self.now]
        return max(times) - self.now if times and self.row.counts.queued else None

    @property
    def idle(self) -> bool:
        """Whether there is work and nothing to claim of it now, or nobody to claim it."""
        if not self.open or self.row.items_running:
            return False
        return self.due_in is not None or bool(self.blocked_by) or not self.runner.alive

    @property
    def health(self) -> str:
        """The first that holds: what nobody runs comes before what somebody paused."""
        order = (
            ("submitting", self.row.sealed_at is None),
            ("orphaned", self.orphaned),
            ("paused", self.open and self.row.paused_at is not None),
            ("unknown_task", self.unknown_task),
            ("idle", self.idle),
            ("stalled", self.stalled),
        )
        return next((word for word, holds in order if holds), "ok")

    @property
    def operations(self) -> tuple[str, ...]:
        """The verbs that the job takes now; none while it is being submitted or deleted."""
        row = self.row
        return legal_operations(
            Asked(
                status=row.status,
                cancelling=row.cancel_requested_at is not None,
                failing=row.fail_requested_at is not None,
                submitting=row.sealed_at is None,
                deleting=row.deleted_at is not None,
                paused=row.paused_at is not None,
                failed=row.items_failed,
                cancelled=row.items_cancelled,
                waited_for=self.around.waited_for,
                lost_parent=next((parent.id for parent in self.around.parents if parent.lost), None),
            )
        )

    @property
    def rate(self) -> float | None:
        """Settled items a second: lately while it runs, and of its whole life once it has ended.

        None for a run of less than a second, unless it is all there will be.
        """
        row = self.row
        if self.around.pace is not None:
            return self.around.pace
        if row.started_at is None or not row.counts.settled or restarted(row, self.runner):
            return None
        until = clocked_until(row, self.runner, self.now)
        if until is None or until - row.started_at < (SHORTEST_SPAN if self.open else 1):
            return None
        return round(row.counts.settled * 1000 / (until - row.started_at), 3)

    @property
    def eta_seconds(self) -> int | None:
        """Seconds until the last open item at this rate; None for a job that does not move."""
        if not self.rate or self.row.status != RUNNING or self.health not in {"ok", "stalled"}:
            return None
        return -int(-self.row.counts.open // self.rate)

    @property
    def daemon(self) -> JobDaemon | None:
        """Of an open job, who runs it; where nobody does, who did."""
        runner = self.runner
        if not self.open:
            return None
        if not runner.alive:
            for held in self.lost:
                if held.daemon_id is not None:
                    return JobDaemon(held.daemon_id, held.pid, held.host, held.heartbeat_at, alive=False)
        if runner.id is None and not runner.alive:
            return None
        return JobDaemon(runner.id, runner.pid, runner.host, runner.heartbeat_at, runner.alive)


def parsed(text: str | None) -> Any:
    """Return a JSON column's value; the text itself where it is none, so that a damaged row can still be looked at."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def clocked_until(row: JobRow, runner: Runner, now: int) -> int | None:
    """Return up to when the pace of a job is taken: while it runs the clock goes on, so that one which hangs slows
    down to the eye; else up to its last progress.
    """
    return now if row.status == RUNNING and runner.alive and row.paused_at is None else row.progress_at


def restarted(row: JobRow, runner: Runner) -> bool:
    """Say whether ``row`` runs now, but has run before: its first start says nothing of its pace."""
    return row.status in (QUEUED, RUNNING) and row.started_at is not None and run_began(row, runner) > row.started_at


def run_began(row: JobRow, runner: Runner) -> int:
    """Return when this run of the job began: its start, its latest start, or its daemon's."""
    daemon = (runner.started_at or 0) if runner.alive else 0
    return max(row.started_at or 0, row.status_updated_at if row.status == RUNNING else 0, daemon)
