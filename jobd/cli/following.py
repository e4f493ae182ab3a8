"""Following a job to its end: as its runner, as a watcher, or as a watcher that becomes its runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.cli import jobview, panel
from jobd.cli.live import Silence
from jobd.cli.text import escape
from jobd.errors import DaemonRunning, NotFound
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from jobd.app import Jobd
    from jobd.cli.interrupts import Interrupts
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.engine.daemon import Daemon
    from jobd.job import Job

INTERRUPTED: Final = 130
RUNS_HERE: Final = "Ctrl-C finishes what runs and stops; nothing is lost."
RUNS_ELSEWHERE: Final = "Ctrl-C leaves the watch, not the job."
DRAINING: Final = "Finishing what runs; Ctrl-C again stops at once."
_PROBE: Final = 1.0
_SHORTEST: Final = 0.01
_LOOKED_AT: Final = 100
_NAMED: Final = 3


@dataclass(slots=True)
class Following:
    """What a loop over a job needs."""

    session: Session
    job: Job
    view: View
    interrupts: Interrupts
    workers: int | None = None
    took_over: bool = False
    began: float = field(default_factory=clock.awake)

    def look(self) -> bool:
        """Read the job, show it, and say whether it has ended."""
        self.job.refresh()
        try:
            self.view.update(self.job, self.job.json())
        except OSError:
            # Nobody reads any more, or the log's disk is full. That is no reason to stop a job that runs here.
            self.view = Silence()
            self.session.panel = None
        return self.job.status in JOB_ENDS

    def pause(self) -> None:
        """Wait for the next look: at first not for long, so that a job of a moment takes no longer than that."""
        self.interrupts.pause(min(self.view.interval, max(_SHORTEST, (clock.awake() - self.began) / 5)))

    def watch(self, *, take_over: bool) -> bool:
        """Watch until the end; answer False where the user left before.

        With ``take_over``, a daemon that goes away is replaced by this process, if nobody else is quicker.
        """
        probed = clock.awake()
        while not self.look():
            if self.interrupts.count:
                return False
            if take_over and clock.awake() - probed > _PROBE:
                probed = clock.awake()
                if not self.session.app.daemon_status().alive and (ended := self._take_over()) is not None:
                    return ended
            self.pause()
        return True

    def run(self, daemon: Daemon) -> bool:
        """Follow the job while ``daemon`` runs it in this process; answer False where the user stopped it."""
        asked = 0
        while True:
            ended = self.look()
            if daemon.join(0):
                # Because it was asked to, or because its database failed it: what it did last is seen now.
                return self.look()
            if ended and not asked:
                return True
            if self.interrupts.count > asked:
                asked = self.interrupts.count
                daemon.stop(drain=asked == 1)
                self.view.foot(DRAINING if asked == 1 else "Stopping.")
            self.pause()

    def stay(self, daemon: Daemon) -> None:
        """Run on for the jobs that others have handed to this process meanwhile, and say so."""
        said: set[int] = set()
        while not self.interrupts.count and (jobs := self._handed_over()):
            for job in jobs:
                if job.id not in said:
                    said.add(job.id)
                    self.session.say(
                        f"job {job.id} was handed to this process meanwhile: staying until it ends (Ctrl-C stops)"
                    )
            self.interrupts.pause(0.1)
        if self.interrupts.count:
            daemon.stop(drain=True)
            while not daemon.join(0.1):
                if self.interrupts.count > 1:
                    daemon.stop(drain=False)

    def _handed_over(self) -> list[Job]:
        return [job for job in runnable(self.session.app) if job.id > self.job.id]

    def _take_over(self) -> bool | None:
        """Become the daemon of the job; None where somebody else was quicker."""
        others = runnable(self.session.app)
        try:
            hold = daemon_here(self.session, self.workers)
            daemon = hold.__enter__()
        except DaemonRunning:
            return None
        self.took_over = True
        with _Entered(hold):
            self.session.say(f"the daemon is gone: job {self.job.id} goes on in this process")
            say_also_running(self.session, self.job, others)
            self.view.foot(RUNS_HERE)
            ended = self.run(daemon)
            if ended:
                self.stay(daemon)
            return ended


class _Entered:
    """Leaves a context that was entered before."""

    def __init__(self, hold: AbstractContextManager[Daemon]) -> None:
        self._hold = hold

    def __enter__(self) -> None:
        """Nothing to enter."""

    def __exit__(self, *error: object) -> None:
        self._hold.__exit__(*error)  # type: ignore[arg-type]


def daemon_here(session: Session, workers: int | None) -> AbstractContextManager[Daemon]:
    """Return the context in which this process is the daemon."""
    return session.app.daemon(workers=workers)


def runnable(app: Jobd) -> list[Job]:
    """Return the open jobs that a daemon with the tasks of ``app`` runs, oldest first."""
    try:
        found = [job for status in jobview.OPEN for job in app.jobs(status=status, limit=_LOOKED_AT)]
    except NotFound:  # no file yet
        return []
    now = clock.now()
    mine = [job for job in found if job.task in app.tasks and (job.not_before or 0) <= now]
    # What waits for another job is run when that has ended, if by then anybody still runs anything.
    ready = (job for job in mine if job.health not in {"paused", "submitting"} and not job.blocked_by)
    return sorted(ready, key=lambda job: job.id)


def say_also_running(session: Session, job: Job, others: Sequence[Job]) -> None:
    """Say which jobs the daemon of this process takes besides ``job``, as they were found before it started."""
    older = [other for other in others if other.id < job.id]
    for other in older[:_NAMED]:
        session.say(
            f"also running, until job {job.id} ends: job {other.id} {escape(other.task)}, {other.counts.open:,} to do"
        )
    if len(older) > _NAMED:
        session.say(f"  and {len(older) - _NAMED} more: {session.line('list')}")


def finish(session: Session, job: Job, target: str | None, *, ended: bool, same: str | None = None) -> int:
    """Write what is left and how to go on; return the exit code. ``same`` says so where what was typed goes on."""
    record = job.json()
    if not ended:
        session.say(panel.interrupted(record))
        session.say(f"  next: {same or go_on(session, job, target)}")
        return INTERRUPTED
    session.say(panel.ended(record, job.durations()))
    for warning in record["warnings"]:
        session.warn(escape(warning))
    if record["counts"]["failed"]:
        again = session.line(f"retry {job.id}")
        if target is not None and not jobview.alive(record):
            again += f" && {go_on(session, job, target)}"
        session.say(f"  next: {session.line(f'errors {job.id}')}     {same or again}")
    return 0 if job.status == "completed" else 1


def go_on(session: Session, job: Job, target: str | None) -> str:
    """Return the line that goes on with an open job."""
    if target is None:
        return jobview.go_on(job.json(), session.line)
    return session.line(f"run {jobview.shell_word(target)} --job {job.id}")
