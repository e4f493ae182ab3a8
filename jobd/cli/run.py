"""`run`: items submitted and seen through, by the daemon that lives or by this process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jobd.cli import following, ids, submission
from jobd.cli.live import LinesView, PanelView, Silence
from jobd.cli.output import Output, shape_options
from jobd.cli.through import Through
from jobd.cli.verb import pass_session, verb
from jobd.errors import Conflict, UsageError

if TYPE_CHECKING:
    from jobd.cli.interrupts import Interrupts
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.cli.source import Source
    from jobd.job import Job
    from jobd.store.views import Counts
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


@dataclass
class _Run(Through):
    """One call of `run`."""

    session: Session
    task: Task[Any, Any]
    target: str
    source: Source
    options: dict[str, Any]
    job_id: str | None
    workers: int | None
    output: Output

    @property
    def task_name(self) -> str:
        return self.task.name

    def before(self) -> Counts | None:
        if self.job_id is not None:
            return self._known(self.job_id).counts
        return submission.counts_before(self.session.app, self.task.name, self.options["job_key"])

    def submit(self, before: Counts | None, interrupts: Interrupts) -> Job:
        if self.job_id is not None:
            job = self._known(self.job_id)
            if self.workers is not None and self.session.app.daemon_status().pid != os.getpid():
                self.session.warn(f"-j {self.workers} has no effect: job {job.id} runs as it was submitted")
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

    def view(self, workers: int | None, foot: str) -> View:
        if self.session.talk.tty:
            return PanelView(self.session, self.session.talk, workers, foot)
        return LinesView(self.session.talk) if self.output.shape != "json" else Silence()

    def end(self, job: Job, *, ended: bool) -> int:
        code = following.finish(self.session, job, self.target, ended=ended)
        if self.output.shape == "json":
            self.output.document(job.json())
        return code
