"""`submit`: items handed over, and the job's id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobd.cli import following, submission
from jobd.cli.output import Output, shape_options
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.views import Runner
    from jobd.tasks import Task


@verb(
    examples=(
        "jobd --app ./program.py submit checksum a.txt b.txt",
        "find . -name '*.mp4' -print0 | jobd submit ./thumbs.py:thumb --from - -0 --job-key thumbs",
        "jobd submit --after 7 ./embed.py:embed --from documents.txt",
        "jobd wait $(jobd submit ./checksum.py:checksum --range 0:100)",
    ),
)
@submission.submission_options
@click.option(
    "-j",
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many items of the job run at once, at most.",
)
@shape_options()
@pass_session
def submit(session: Session, /, target: str, *, as_json: bool, **options: Any) -> int:
    """Submit items and print the job's id; a daemon runs them."""
    source = submission.source_of(options)
    output = Output(session, as_json=as_json)
    words = submission.keywords(session.app, source, options)
    task = task_of(session, target)
    name = task if isinstance(task, str) else task.name
    before = submission.counts_before(session.app, name, words.get("key"))
    job = session.app.submit(task, submission.items_of(session.app, source, name), target=target, **words)
    return handed_over(session, output, job, lambda: submission.announce(session, job, before))


def handed_over(session: Session, output: Output, job: Job, announce: Callable[[], None]) -> int:
    """Print the job's id, say what ``announce`` says, and warn where nobody runs it; return the exit code."""
    daemon = session.app.daemon_status()
    known = daemon.alive and job.task in daemon.tasks
    if output.shape == "json":
        output.document(_record(job, daemon, known=known))
    else:
        output.screen.raw(f"{job.id}\n")
        output.screen.flush()
    announce()
    if job.status in JOB_ENDS:
        for warning in job.warnings:
            session.warn(escape(warning))
    elif not known:
        why = f"the daemon (pid {daemon.pid}) does not know {escape(job.task)}" if daemon.alive else "no daemon runs"
        session.warn(f"nobody runs job {job.id}: {why}", following.go_on(session, job, None))
    return 0


def task_of(session: Session, target: str) -> Task[Any, Any] | str:
    """Return the task; a name that is not registered here may be one that the live daemon has registered."""
    from jobd.cli.target import is_code, load_task

    if not is_code(target) and target not in session.app.tasks:
        daemon = session.app.daemon_status()
        if daemon.alive and target in daemon.tasks:
            return target
    return load_task(session, target)


def _record(job: Job, daemon: Runner, *, known: bool) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "count": job.counts.total,
        "created": job.created,
        "added": job.added,
        "known": job.known,
        "daemon_alive": daemon.alive,
        "task_known": known,
    }
