"""`run`: items submitted and seen through, by the daemon that lives or by this process."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jobd.cli import following, ids, submission
from jobd.cli.interrupts import Interrupts
from jobd.cli.live import LinesView, PanelView, Silence
from jobd.cli.output import Output, shape_options
from jobd.cli.verb import pass_session, verb
from jobd.errors import Conflict, DaemonRunning, NoDaemon, UsageError
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.cli.source import Source
    from jobd.job import Job
    from jobd.store.views import Counts, Runner
    from jobd.tasks import Task


@verb(
    examples=(
        "jobd run ./checksum.py:checksum --glob '/usr/lib/python3*/**/*.py'",
        "jobd run ./mail.py:send --csv people.csv --key address --job-key november",
        "jobd run ./checksum.py:checksum --job 7        # go on with job 7",
    ),
)
@submission.submission_options
@click.option("--job", "job_id", metavar="ID", shell_complete=ids.complete_jobs, help="Go on with this job as it is.")
@click.option("-j", "--workers", type=click.IntRange(min=1), metavar="N", help="How many items run at once.")
@shape_options()
@pass_session
def run(
    session: Session, /, target: str, job_id: str | None, workers: int | None, *, as_json: bool, **options: Any
) -> int:
    """Submit items and see them through, live.

    With a live daemon that knows the task the job is handed over and watched: Ctrl-C leaves the watch, not the job.
    With none it runs here: the first Ctrl-C finishes what runs, the second stops; either way `run --job` goes on.
    """
    from jobd.cli.target import load_task

    source = submission.source_of(options)
    if job_id is not None and (extra := submission.typed(source, options)):
        raise UsageError(f"--job goes on with a job as it is: {', '.join(extra)} cannot be given with it")
    task = load_task(session, target)
    # It goes with the job, to whichever daemon runs it.
    options["concurrency"] = workers
    return _Run(session, task, target, source, options, job_id, workers, Output(session, as_json=as_json)).through()


class _Outrun(Exception):
    """The lock was free when we looked and was not when we took it."""


@dataclass(slots=True)
class _Run:
    """One call of `run`."""

    session: Session
    task: Task[Any, Any]
    target: str
    source: Source
    options: dict[str, Any]
    job_id: str | None
    workers: int | None
    output: Output

    def through(self) -> int:
        """See the items through, whoever runs them; return the exit code."""
        daemon = self.session.app.daemon_status()
        if not daemon.alive:
            try:
                return self._here()
            except _Outrun:
                daemon = self.session.app.daemon_status()
        if not daemon.alive:
            raise NoDaemon("the daemon of the database came and went", hint="the same command again")
        return self._there(daemon)

    def _here(self) -> int:
        """Be the daemon for this job, and for those that are handed over meanwhile.

        Raises:
            _Outrun: another daemon took the lock first.
        """
        before, others = self._before(), following.runnable(self.session.app)
        with ExitStack() as stack:
            # Before there is anything that a Ctrl-C could cut off.
            interrupts = stack.enter_context(Interrupts())
            try:
                daemon = stack.enter_context(following.daemon_here(self.session, self.workers))
            except DaemonRunning:
                raise _Outrun from None
            # While the daemon leaves at the end, what it does for others, a Ctrl-C hurries it.
            stack.callback(interrupts.close)
            job = self._job(before, interrupts)
            following.say_also_running(self.session, job, others)
            view = self._view(self.workers or self.session.app.settings.workers, following.RUNS_HERE)
            follow = following.Following(self.session, job, view, interrupts, self.workers)
            try:
                ended = follow.run(daemon)
            finally:
                follow.view.close()
            if ended:
                follow.stay(daemon)
        job.refresh()
        return self._end(job, ended=job.status in JOB_ENDS)

    def _there(self, daemon: Runner) -> int:
        """Hand the job to a live daemon and watch it.

        Raises:
            DaemonRunning: it does not know the task.
        """
        if self.task.name not in daemon.tasks:
            raise DaemonRunning(
                f"the daemon of {self.session.app.path} (pid {daemon.pid}) does not know the task {self.task.name}",
                hint="another --db, or restart the daemon with its program: jobd --app ./program.py start",
            )
        before = self._before()
        with Interrupts() as interrupts:
            job = self._job(before, interrupts)
            if self.workers is not None:
                self.session.warn(f"-j {self.workers} has no effect: the daemon (pid {daemon.pid}) has its own workers")
            self.session.say(f"job {job.id} is with the daemon (pid {daemon.pid})")
            view = self._view(None, following.RUNS_ELSEWHERE)
            follow = following.Following(self.session, job, view, interrupts, self.workers)
            try:
                ended = follow.watch(take_over=True)
            finally:
                follow.view.close()
        if not ended and not follow.took_over:
            self.session.say(f"job {job.id} goes on in the daemon (pid {daemon.pid})")
            self.session.say(f"  next: {self.session.line(f'watch {job.id}')}")
            return following.INTERRUPTED
        return self._end(job, ended=ended)

    def _before(self) -> Counts | None:
        """Return what was there before: once it runs, what it completes now would be counted in."""
        if self.job_id is not None:
            return self._known(self.job_id).counts
        return submission.counts_before(self.session.app, self.task.name, self.options["job_key"])

    def _job(self, before: Counts | None, interrupts: Interrupts) -> Job:
        """Return the job, found or submitted, and say what was there before.

        Raises:
            KeyboardInterrupt: not all of its items were read; it is not submitted.
        """
        if self.job_id is not None:
            job = self._known(self.job_id)
        else:
            keywords = submission.keywords(self.session.app, self.source, self.options)
            with interrupts.throwing():
                items = submission.items_of(self.session.app, self.source, self.task.name)
            if items is not None:
                items = interrupts.reading(items)
            job = self.task.submit(items, target=self.target, **keywords)
        submission.announce(self.session, job, before)
        return job

    def _known(self, job_id: str) -> Job:
        job = ids.job(self.session.app, job_id)
        if job.task != self.task.name:
            raise Conflict(f"job {job.id} is of task {job.task}, not {self.task.name}", hint=f"jobd show {job.id}")
        return job

    def _view(self, workers: int | None, foot: str) -> View:
        if self.session.talk.tty:
            return PanelView(self.session, self.session.talk, workers, foot)
        return LinesView(self.session.talk) if self.output.shape != "json" else Silence()

    def _end(self, job: Job, *, ended: bool) -> int:
        code = following.finish(self.session, job, self.target, ended=ended)
        if self.output.shape == "json":
            self.output.document(job.json())
        return code
