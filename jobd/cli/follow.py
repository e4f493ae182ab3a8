"""`watch` and `wait`: a job until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

from jobd.cli import following, ids, jobview, panel, times
from jobd.cli.interrupts import Interrupts
from jobd.cli.live import PanelView, RecordsView, Silence
from jobd.cli.output import Output, shape_options
from jobd.cli.verb import pass_session, verb
from jobd.errors import JobdError, NoDaemon
from jobd.measures import duration
from jobd.states import COMPLETED, JOB_ENDS

if TYPE_CHECKING:
    from jobd.cli.live import View
    from jobd.cli.session import Session


class WaitTimedOut(JobdError):
    """The job had not ended in the time given; it goes on."""

    exit_code: ClassVar[int] = 124  # as of timeout(1)


@verb(examples=("jobd watch 7", "jobd watch @last --exit-status", "jobd watch 7 --jsonl"))
@ids.job_argument(required=False)
@click.option("--exit-status", is_flag=True, help="Leave with 1 also for a job that had not completed before.")
@shape_options(rows=True)
@pass_session
def watch(session: Session, id_: str, *, exit_status: bool, as_json: bool, as_jsonl: bool) -> int:
    """Watch a job to its end: in place on a terminal, a record for each change elsewhere. Without ID the newest.

    With --app, a watcher that knows the task goes on with the job where its daemon goes away.
    """
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    job = ids.job(session.app, id_)
    ended_before = job.status in JOB_ENDS
    if output.human and ended_before:
        output.screen.sentence(panel.ended(job.json(), job.durations()))
        return int(exit_status and job.status != COMPLETED)
    with Interrupts() as interrupts:
        follow = following.Following(session, job, _view(session, output), interrupts)
        try:
            ended = follow.watch(take_over=job.task in session.app.tasks and session.app_name is not None)
        finally:
            follow.view.close()
    if output.shape == "json":
        output.document(job.json())
    if output.human and ended:
        output.screen.sentence(panel.ended(job.json(), job.durations()))
    if not ended and follow.took_over:
        return following.finish(session, job, None, ended=False)
    if not ended:
        session.say(f"job {job.id} goes on without this watch: {session.line(f'watch {job.id}')}")
        return following.INTERRUPTED
    if ended_before and not exit_status:
        return 0
    return int(job.status != COMPLETED)


def _view(session: Session, output: Output) -> View:
    if output.human:
        return PanelView(session, output.screen, None, following.RUNS_ELSEWHERE)
    return Silence() if output.shape == "json" else RecordsView(output.screen, as_json=output.shape == "jsonl")


@verb(examples=("jobd wait 7 --timeout 10m", "jobd wait $(jobd submit ./checksum.py:checksum a.txt)"))
@ids.job_argument()
@click.option("--timeout", metavar="TIME", help="Leave with 124 after this long; the job goes on.")
@click.option("--wait-for-daemon", is_flag=True, help="Wait also while nobody alive runs the task.")
@shape_options()
@pass_session
def wait(session: Session, id_: str, *, timeout: str | None, wait_for_daemon: bool, as_json: bool) -> int:
    """Wait until a job has ended: 0 completed, 1 failed or cancelled, 124 not in time, 7 where nobody runs it."""
    output = Output(session, as_json=as_json)
    job = ids.job(session.app, id_)
    seconds = duration(timeout) if timeout is not None else None
    try:
        job.wait(timeout=seconds, wait_for_daemon=wait_for_daemon)
    except NoDaemon as error:
        raise NoDaemon(str(error), hint=jobview.go_on(job.refresh().json(), session.line)) from None
    except TimeoutError:
        job.refresh()
        raise WaitTimedOut(
            f"job {job.id} is still {job.status} after {times.age(seconds)}",
            hint=f"{session.line(f'watch {job.id}')} to look",
        ) from None
    if as_json:
        output.document(job.json())
    else:
        session.say(panel.ended(job.json(), job.durations()))
    return int(job.status != COMPLETED)
