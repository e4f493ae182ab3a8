"""`cancel`, `retry` and `resume`: requests that are committed first, and said once they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.cli import ids, jobview
from jobd.cli.interrupts import Interrupts
from jobd.cli.output import Output, shape_options
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.job import Job

_PATIENCE: Final = 2.0
_FIELDS: Final = [
    "id",
    "task",
    "status",
    "health",
    "items_total",
    "items_queued",
    "items_running",
    "items_failed",
    "items_cancelled",
    "daemon_alive",
]


@verb(examples=("jobd cancel 7", "jobd cancel @last"))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def cancel(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Cancel jobs: nothing more of them starts, what runs is told, what has completed stays."""
    return _steer(session, ids_, lambda job: job.cancel(), _cancelled, as_json=as_json)


@verb(examples=("jobd retry 7", "jobd retry @failed"))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def retry(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Queue the failed items of jobs again; completed ones stay."""
    return _steer(session, ids_, lambda job: job.retry(), _queued_again, as_json=as_json)


@verb(examples=("jobd resume 7",))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def resume(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Queue the failed and cancelled items of jobs again, and recover what nobody runs."""
    return _steer(session, ids_, lambda job: job.resume(), _queued_again, as_json=as_json)


def _steer(
    session: Session,
    names: tuple[str, ...],
    act: Callable[[Job], object],
    say: Callable[[Session, Job], None],
    *,
    as_json: bool,
) -> int:
    """Act on each job; all of them are found before the first is touched."""
    output = Output(session, as_json=as_json)
    found = [ids.job(session.app, name) for name in names]
    records = []
    for job in found:
        act(job)
        job.refresh()
        say(session, job)
        records.append(job.json())
    if as_json:
        output.document(records[0] if len(records) == 1 else records)
    elif not output.human:
        output.many(records, _nothing, _FIELDS)
    return 0


def _nothing(screen: Screen, records: list[dict[str, object]]) -> None:
    """On a terminal the talk has said it."""
    del screen, records


def _cancelled(session: Session, job: Job) -> None:
    """Say that the job is cancelled, or what it still waits for; a live daemon gets a moment to act."""
    with Interrupts() as interrupts:
        until = clock.awake() + _PATIENCE
        while (
            job.status not in JOB_ENDS and jobview.alive(job.json()) and clock.awake() < until and not interrupts.count
        ):
            interrupts.pause(0.05)
            job.refresh()
    counts = job.counts
    if job.status in JOB_ENDS:
        session.say(f"{_name(job)} is {job.status}: {counts.cancelled:,} cancelled, {counts.completed:,} completed")
        return
    session.say(f"{_name(job)} is being cancelled: {counts.running:,} items still run")
    if not jobview.alive(job.json()):
        session.say(f"  hint: no daemon runs; {session.line('recover')} settles what nobody runs")


def _queued_again(session: Session, job: Job) -> None:
    """Say what is queued now, and who will run it."""
    record = job.json()
    counts = record["counts"]
    session.say(f"{_name(job)} is {job.status}: {counts['queued']:,} queued, {counts['completed']:,} completed")
    if jobview.nobody_runs(record):
        why = "the daemon does not know the task" if jobview.alive(record) else "no daemon runs"
        session.warn(f"nobody runs job {job.id}: {why}", jobview.go_on(record, session.line))


def _name(job: Job) -> str:
    return f"job {job.id} {escape(job.task)}"
