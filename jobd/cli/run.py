"""`run` and `submit`: items handed over, and seen through."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jobd.cli import following, submission
from jobd.cli.interrupts import Interrupts
from jobd.cli.live import LinesView, PanelView, Silence
from jobd.cli.output import Output, shape_options
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import Conflict, DaemonRunning, NoDaemon, UsageError
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.cli.source import Source
    from jobd.job import Job
    from jobd.tasks import Task


@verb(
    examples=(
        "jobd run ./checksum.py:checksum --glob '/usr/lib/python3*/**/*.py'",
        "jobd run ./mail.py:send --csv people.csv --key address --job-key november",
        "jobd run ./checksum.py:checksum --job 7        # go on with job 7",
    ),
)
@submission.submission_options
@click.option("--job", "job_id", metavar="ID", help="Go on with this job instead of submitting one.")
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
    session.log()
    output = Output(session, as_json=as_json)
    submit = _Submission(session, task, target, source, options, job_id)
    if (code := _hand_over(session, task, submit, output, workers)) is None:
        try:
            code = _run_here(session, task, submit, output, workers)
        except _Outrun:
            code = _hand_over(session, task, submit, output, workers)
    if code is None:
        raise NoDaemon("the daemon of the database came and went", hint="the same command again")
    return code


class _Outrun(Exception):
    """The lock was free when we looked and was not when we took it."""


@dataclass(slots=True)
class _Submission:
    """The job that a call of `run` is about: found or submitted, once."""

    session: Session
    task: Task[Any, Any]
    target: str
    source: Source
    options: dict[str, Any]
    job_id: str | None

    def job(self) -> Job:
        """Return the job, and say on stderr which one it is and what was there before."""
        if self.job_id is not None:
            return self._known(self.job_id)
        job = self.task.submit(
            self.source.items(), target=self.target, **submission.keywords(self.source, self.options)
        )
        announce(self.session, job)
        return job

    def _known(self, job_id: str) -> Job:
        from jobd.cli import ids

        job = ids.job(self.session.app, job_id)
        if job.task != self.task.name:
            raise Conflict(
                f"job {job.id} is of task {escape(job.task)}, not {escape(self.task.name)}", hint=f"jobd show {job.id}"
            )
        return job


def announce(session: Session, job: Job) -> None:
    """Say what a submission did."""
    if job.known:
        again = "" if job.created else f"job {job.id} goes on: "
        completed = job.counts.completed
        session.say(f"{again}{completed:,} completed before, {job.counts.queued:,} to do, {job.added:,} new")


def _hand_over(
    session: Session, task: Task[Any, Any], submit: _Submission, output: Output, workers: int | None
) -> int | None:
    """Hand the job to a live daemon and watch it; None where there is none.

    Raises:
        DaemonRunning: it does not know the task.
    """
    daemon = session.app.daemon_status()
    if not daemon.alive:
        return None
    if task.name not in daemon.tasks:
        raise DaemonRunning(
            f"the daemon of {session.app.path} (pid {daemon.pid}) does not know the task {task.name}",
            hint="another --db, or restart the daemon with its program: jobd --app ./program.py start",
        )
    job = submit.job()
    if workers is not None:
        session.warn(f"-j {workers} has no effect: the daemon (pid {daemon.pid}) has its own workers")
    session.say(f"job {job.id} is with the daemon (pid {daemon.pid})")
    with Interrupts() as interrupts:
        view = _view(session, output, None, following.RUNS_ELSEWHERE)
        follow = following.Following(session, job, view, interrupts, workers)
        try:
            ended = follow.watch(take_over=True)
        finally:
            follow.view.close()
    if not ended and session.app.daemon_status().alive:
        session.say(f"job {job.id} goes on in the daemon (pid {daemon.pid})")
        session.say(f"  next: {session.line(f'watch {job.id}')}")
        return following.INTERRUPTED
    return _end(session, job, submit, output, ended=ended)


def _run_here(session: Session, task: Task[Any, Any], submit: _Submission, output: Output, workers: int | None) -> int:
    """Be the daemon for this job, and for those that are handed over meanwhile.

    Raises:
        _Outrun: another daemon took the lock first.
    """
    del task
    with ExitStack() as stack:
        try:
            daemon = stack.enter_context(following.daemon_here(session, workers))
        except DaemonRunning:
            raise _Outrun from None
        job = submit.job()
        interrupts = stack.enter_context(Interrupts())
        view = _view(session, output, workers or session.app.settings.workers, following.RUNS_HERE)
        follow = following.Following(session, job, view, interrupts, workers)
        try:
            ended = follow.run(daemon)
        finally:
            follow.view.close()
        if ended:
            follow.stay(daemon)
    job.refresh()
    return _end(session, job, submit, output, ended=job.status in JOB_ENDS)


def _end(session: Session, job: Job, submit: _Submission, output: Output, *, ended: bool) -> int:
    code = following.finish(session, job, submit.target, ended=ended)
    if output.shape == "json":
        output.document(job.json())
    return code


def _view(session: Session, output: Output, workers: int | None, foot: str) -> View:
    if session.talk.tty:
        return PanelView(session, session.talk, workers, foot)
    return LinesView(session.talk) if output.shape != "json" else Silence()


@verb(
    examples=(
        "jobd --app ./program.py submit checksum a.txt b.txt",
        "find . -name '*.mp4' -print0 | jobd submit ./thumbs.py:thumb --from - -0 --job-key thumbs",
        "jobd wait $(jobd submit ./checksum.py:checksum --range 0:100)",
    ),
)
@submission.submission_options
@shape_options()
@pass_session
def submit(session: Session, /, target: str, *, as_json: bool, **options: Any) -> int:
    """Submit items and print the job's id; a daemon runs them."""
    from jobd.cli.target import is_code, load_task

    source = submission.source_of(options)
    output = Output(session, as_json=as_json)
    words = submission.keywords(source, options)
    daemon = session.app.daemon_status() if not is_code(target) else None
    # A name that is not registered here may be one that the live daemon has registered.
    theirs = daemon is not None and daemon.alive and target in daemon.tasks
    task = target if theirs else load_task(session, target)
    job = session.app.submit(task, source.items(), target=target, **words)
    daemon = session.app.daemon_status()
    known = daemon.alive and job.task in daemon.tasks
    if as_json:
        output.document(
            {
                "id": job.id,
                "status": job.status,
                "count": job.counts.total,
                "created": job.created,
                "added": job.added,
                "known": job.known,
                "daemon_alive": daemon.alive,
                "task_known": known,
            }
        )
    else:
        output.screen.raw(f"{job.id}\n")
        output.screen.flush()
    announce(session, job)
    if job.status in JOB_ENDS:
        for warning in job.warnings:
            session.warn(escape(warning))
    elif not known:
        why = f"the daemon (pid {daemon.pid}) does not know {escape(job.task)}" if daemon.alive else "no daemon runs"
        session.warn(
            f"nobody runs job {job.id}: {why}", following.go_on(session, job, target if is_code(target) else None)
        )
    return 0
