"""`cancel`, `pause`, `unpause`, `retry`, `resume`, `fail`: requests, committed first and said once they show."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from jobd import clock
from jobd.cli import ids, jobview
from jobd.cli.interrupts import Interrupts
from jobd.cli.mend import warn_of_what_stays
from jobd.cli.output import Output, shape_options
from jobd.cli.progress import counting
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.views import Counts

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


class Act(NamedTuple):
    """What a verb does to a job, as its progress names it, to how many of the job's items, and what it says then."""

    act: Callable[[Job, Callable[[int], None]], object]
    stage: str
    whole: Callable[[Counts], int]
    say: Callable[[Session, Job], None]


@verb(examples=("jobd cancel 7", "jobd cancel @last"))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def cancel(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Cancel jobs: nothing more of them starts, what runs is told, what has completed stays."""

    def act(job: Job, progress: Callable[[int], None]) -> object:
        return job.cancel(progress=progress)

    return _steer(session, ids_, Act(act, "cancelling", _unstarted, _stopped("cancelled")), as_json=as_json)


@verb(examples=("jobd fail 7 --reason 'the source is gone'",))
@ids.job_argument(many=True)
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the job and in its history.")
@shape_options()
@pass_session
def fail(session: Session, ids_: tuple[str, ...], *, reason: str, as_json: bool) -> int:
    """Fail jobs for a reason of one's own: nothing more of them starts, what runs is told, the rest is cancelled."""

    def act(job: Job, progress: Callable[[int], None]) -> object:
        with _heard(session, job, "fail", "was failed before", reason):
            return job.fail(reason, progress=progress)

    return _steer(session, ids_, Act(act, "failing", _unstarted, _stopped("failed")), as_json=as_json)


@verb(examples=("jobd pause 7", "jobd pause 7 --reason 'the source is being moved'"))
@ids.job_argument(many=True)
@click.option("--reason", metavar="TEXT", help="Why; kept in the job's history.")
@shape_options()
@pass_session
def pause(session: Session, ids_: tuple[str, ...], *, reason: str | None, as_json: bool) -> int:
    """Start nothing more of jobs until they are unpaused; what runs ends."""

    def act(job: Job, progress: Callable[[int], None]) -> object:  # noqa: ARG001 - it is one small write
        with _heard(session, job, "pause", "was paused before", reason):
            return job.pause(reason)

    return _steer(session, ids_, Act(act, "pausing", _none, _paused), as_json=as_json)


@verb(examples=("jobd unpause 7",))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def unpause(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Let paused jobs go on; their deadlines have moved by the whole pause."""

    def act(job: Job, progress: Callable[[int], None]) -> object:  # noqa: ARG001 - as above
        return job.unpause()

    return _steer(session, ids_, Act(act, "unpausing", _none, _queued_again), as_json=as_json)


@verb(examples=("jobd retry 7", "jobd retry @failed"))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def retry(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Queue the failed items of jobs again; completed ones stay."""

    def act(job: Job, progress: Callable[[int], None]) -> object:
        return job.retry(progress=progress)

    return _steer(session, ids_, Act(act, "queueing", lambda counts: counts.failed, _queued_again), as_json=as_json)


@verb(examples=("jobd resume 7",))
@ids.job_argument(many=True)
@shape_options()
@pass_session
def resume(session: Session, ids_: tuple[str, ...], *, as_json: bool) -> int:
    """Queue the failed and cancelled items of jobs again, and recover what nobody runs."""

    def act(job: Job, progress: Callable[[int], None]) -> object:
        return job.resume(progress=progress, recovered=lambda report: warn_of_what_stays(session, report))

    def whole(counts: Counts) -> int:
        return counts.failed + counts.cancelled

    return _steer(session, ids_, Act(act, "queueing", whole, _queued_again), as_json=as_json)


def _steer(session: Session, names: tuple[str, ...], verb: Act, *, as_json: bool) -> int:
    """Act on each job; all of them are found before the first is touched."""
    output = Output(session, as_json=as_json)
    found = [ids.job(session.app, name) for name in names]
    records = []
    for job in found:
        with counting(session, verb.stage, verb.whole(job.counts)) as progress:
            verb.act(job, progress)
        job.refresh()
        verb.say(session, job)
        records.append(job.json())
    if as_json:
        output.document(records[0] if len(records) == 1 else records)
    elif not output.human:
        output.many(records, _nothing, _FIELDS)
    return 0


@contextmanager
def _heard(session: Session, job: Job, verb: str, already: str, reason: str | None) -> Iterator[None]:
    """Say so where the verb was answered as one that is known: then its reason is kept nowhere."""
    takes = verb in job.json()["operations"]
    yield
    if reason is not None and not takes:
        session.warn(f"{_name(job)} {already}: this reason is not kept")


def _unstarted(counts: Counts) -> int:
    return counts.queued + counts.waiting


def _none(counts: Counts) -> int:  # noqa: ARG001 - whatever there is, it is one step
    return 0


def _nothing(screen: Screen, records: list[dict[str, object]]) -> None:
    """On a terminal the talk has said it."""
    del screen, records


def _stopped(word: str) -> Callable[[Session, Job], None]:
    """Return what says that the job is ``word``, or what it still waits for; a live daemon gets a moment to act."""

    def say(session: Session, job: Job) -> None:
        with Interrupts() as interrupts:
            until = clock.awake() + _PATIENCE
            while (
                job.status not in JOB_ENDS
                and jobview.alive(job.json())
                and clock.awake() < until
                and not interrupts.count
            ):
                interrupts.pause(0.05)
                job.refresh()
        counts = job.counts
        if job.status in JOB_ENDS:
            session.say(f"{_name(job)} is {job.status}: {counts.cancelled:,} cancelled, {counts.completed:,} completed")
            return
        session.say(f"{_name(job)} is being {word}: {counts.running:,} items still run")
        if not jobview.alive(job.json()):
            session.say(f"  hint: no daemon runs; {session.line('recover')} settles what nobody runs")

    return say


def _paused(session: Session, job: Job) -> None:
    counts = job.counts
    running = f"; {counts.running:,} still running" if counts.running else ""
    session.say(f"{_name(job)} is paused: {counts.queued:,} queued, {counts.completed:,} completed{running}")


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
