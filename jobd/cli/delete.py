"""`delete`: a job with all that it left, gone for good."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import ids
from jobd.cli.output import Output, shape_options
from jobd.cli.progress import counting
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.cli.session import Session
    from jobd.job import Job

FIELDS: Final = ["id", "task", "key", "status", "items"]
_NAMED: Final = 5


@verb(examples=("jobd delete 7", "jobd delete 7 8 9 --yes", "jobd delete 7 --cascade"))
@ids.job_argument(many=True)
@click.option("--cascade", is_flag=True, help="Also the jobs that wait for these, and those that wait for them.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@shape_options()
@pass_session
def delete(session: Session, ids_: tuple[str, ...], *, cascade: bool, yes: bool, as_json: bool) -> int:
    """Delete jobs with their items, results, output and history; the keys are free again at once.

    A job that is running has to be cancelled before; one that another job waits for stays, unless
    that one goes with it.
    """
    output = Output(session, as_json=as_json)
    # All of them are found before the first is touched; of two names of one job the second is no other job.
    jobs = list({job.id: job for job in (ids.job(session.app, name) for name in ids_)}.values())
    if not yes and session.talk.tty and sys.stdin.isatty() and not _agreed(session, jobs, cascade=cascade):
        session.say("nothing was deleted")
        return 1
    records = [_delete(session, job, cascade=cascade) for job in jobs]
    if as_json:
        output.document(records[0] if len(records) == 1 else records)
    elif not output.human:
        output.many(records, lambda screen, rows: None, FIELDS)  # noqa: ARG005 - on a terminal the talk has said it
    return 0


def _agreed(session: Session, jobs: Sequence[Job], *, cascade: bool) -> bool:
    items = sum(job.counts.total for job in jobs)
    named = ", ".join(f"{job.id} {escape(job.task)} ({job.status})" for job in jobs[:_NAMED])
    more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    others = ", and whatever waits for them" if cascade else ""
    session.talk.flush()
    return click.confirm(f"delete job {named}{more} with {items:,} items, and all that they left{others}?", err=True)


def _delete(session: Session, job: Job, *, cascade: bool) -> dict[str, Any]:
    record = {"id": job.id, "task": job.task, "key": job.key, "status": job.status, "items": job.counts.total}
    try:
        with counting(session, "deleting", job.counts.total) as progress:
            gone = _gone(job, cascade=cascade, progress=progress)
    except KeyboardInterrupt:
        again = session.line(f"delete {job.id}" + " --cascade" * cascade)
        session.say(f"job {job.id} is being deleted; {again} goes on with it, and so does a daemon by itself")
        raise
    session.say(f"job {job.id} {escape(job.task)} is deleted: {gone:,} items" + " with what waited for it" * cascade)
    return record


def _gone(job: Job, *, cascade: bool, progress: Callable[[int], None] | None) -> int:
    """Delete the job and return how many items went with it."""
    try:
        removed = job.delete(cascade=cascade, progress=progress)
    except NotFound:
        # It went with another of those that were named.
        if not cascade:
            raise
        return 0
    return removed if cascade else int(job.counts.total)
