"""`prune`: what has ended and is not kept for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobd.cli import times
from jobd.cli.interrupts import Interrupts
from jobd.cli.look import now
from jobd.cli.output import Output, shape_options
from jobd.cli.progress import Progress
from jobd.cli.screen import Cell
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.maintenance.report import Change, Report

FOUND_WORK: Final = 10
FIELDS: Final = ["job_id", "from_status", "to_status", "evidence"]


@verb(examples=("jobd prune --check-only", "jobd prune --older-than 14", "jobd prune --older-than 36h"))
@click.option(
    "--older-than",
    metavar="DAYS|DURATION",
    help="Jobs of every outcome that ended longer ago, in place of the settings' ages.",
)
@click.option("--check-only", is_flag=True, help="Change nothing; leave with 10 where there is something to do.")
@shape_options()
@pass_session
def prune(session: Session, *, older_than: str | None, check_only: bool, as_json: bool) -> int:
    """Remove the ended jobs, and the values of results, that are not kept for longer.

    How long each is kept are settings (jobd start --help); a daemon prunes by itself. A job that is open, or that
    another one waits for, stays.
    """
    output = Output(session, as_json=as_json)
    with Interrupts() as interrupts, Progress(session, interrupts) as bar:
        report = session.app.prune(
            older_than,
            check_only=check_only,
            progress=lambda count, whole: bar.watch("removing" if whole else "waiting", count, whole),
        )
    changes = report.changes
    if as_json:
        output.document(report.json())
    else:
        records = [change.json() for change in changes]
        output.many(records, lambda screen, _: _changes(screen, changes, check_only=check_only), FIELDS)
    if output.human or not as_json:
        session.say(_verdict(session, report, older_than))
    return FOUND_WORK if check_only and changes else 0


def _verdict(session: Session, report: Report, older_than: str | None) -> str:
    counts = report.counts
    if not report.changes:
        return "nothing to prune"
    said = []
    if counts.get("removed"):
        said.append(f"{_count(counts['removed'], 'job')} with {_count(counts['items'], 'item')}")
    if counts.get("values"):
        said.append(f"the values of {_count(counts['values'], 'job')}")
    what = " and ".join(said)
    if report.check_only:
        again = session.line("prune" if older_than is None else f"prune --older-than {older_than}")
        return f"Nothing was changed. It would be {what}: {again}   (a daemon does it by itself)"
    return f"pruned {what}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _changes(screen: Screen, changes: Sequence[Change], *, check_only: bool) -> None:
    from jobd.store.views import iso

    present = now()
    screen.table(
        ["JOB", f"ENDED ({times.zone(present)})", "EVIDENCE", "WOULD BECOME" if check_only else "BECAME"],
        [
            [
                Cell(str(change.job_id), right=True),
                Cell(times.short(iso(change.since), present)),
                Cell(escape(change.evidence)),
                Cell(change.to_status if change.to_status != change.from_status else "without values"),
            ]
            for change in changes
        ],
    )
