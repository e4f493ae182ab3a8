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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.cli.session import Session
    from jobd.job import Job

FIELDS: Final = ["id", "task", "key", "status", "items"]
_NAMED: Final = 5


@verb(examples=("jobd delete 7", "jobd delete 7 8 9 --yes"))
@ids.job_argument(many=True)
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@shape_options()
@pass_session
def delete(session: Session, ids_: tuple[str, ...], *, yes: bool, as_json: bool) -> int:
    """Delete jobs with their items, results, output and history; the keys are free again at once.

    A job that is running has to be cancelled before; one that another job waits for stays.
    """
    output = Output(session, as_json=as_json)
    # All of them are found before the first is touched; of two names of one job the second is no other job.
    jobs = list({job.id: job for job in (ids.job(session.app, name) for name in ids_)}.values())
    if not yes and session.talk.tty and sys.stdin.isatty() and not _agreed(session, jobs):
        session.say("nothing was deleted")
        return 1
    records = [_delete(session, job) for job in jobs]
    if as_json:
        output.document(records[0] if len(records) == 1 else records)
    elif not output.human:
        output.many(records, lambda screen, rows: None, FIELDS)  # noqa: ARG005 - on a terminal the talk has said it
    return 0


def _agreed(session: Session, jobs: Sequence[Job]) -> bool:
    items = sum(job.counts.total for job in jobs)
    named = ", ".join(f"{job.id} {escape(job.task)} ({job.status})" for job in jobs[:_NAMED])
    more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    session.talk.flush()
    return click.confirm(f"delete job {named}{more} with {items:,} items, and all that they left?", err=True)


def _delete(session: Session, job: Job) -> dict[str, Any]:
    record = {"id": job.id, "task": job.task, "key": job.key, "status": job.status, "items": job.counts.total}
    try:
        with counting(session, "deleting", job.counts.total) as progress:
            job.delete(progress=progress)
    except KeyboardInterrupt:
        again = session.line(f"delete {job.id}")
        session.say(f"job {job.id} is being deleted; {again} goes on with it, and so does a daemon by itself")
        raise
    session.say(f"job {job.id} {escape(job.task)} is deleted: {job.counts.total:,} items")
    return record
