"""`recover`, `reconcile` and `doctor`: what a crash left, and whether everything is as it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import times
from jobd.cli.look import now
from jobd.cli.output import Output, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape
from jobd.cli.verb import pass_session, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.maintenance.report import Change, Report

FOUND_WORK: Final = 10
CHANGE_FIELDS: Final = ["job_id", "item_id", "key", "from_status", "to_status", "evidence"]
CHECK_FIELDS: Final = ["name", "level", "text", "hint"]
_LEVELS: Final = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


@verb(examples=("jobd recover --check-only", "jobd recover"))
@click.option("--check-only", is_flag=True, help="Change nothing; leave with 10 where there is something to do.")
@shape_options()
@pass_session
def recover(session: Session, *, check_only: bool, as_json: bool) -> int:
    """Settle the running items that nobody runs, each by its evidence; leave with 1 where one stays without an answer.

    Whether the work of an item was done, its task's own verify is asked: --app names the program that has it.
    """
    return tell(session, session.app.recover(check_only=check_only), "recover", as_json=as_json)


@verb(examples=("jobd time-out --check-only", "jobd time-out"))
@click.option("--check-only", is_flag=True, help="Change nothing; leave with 10 where there is something to do.")
@shape_options()
@pass_session
def time_out(session: Session, *, check_only: bool, as_json: bool) -> int:
    """Fail what waits past its deadline, and see to jobs that have made no progress for too long."""
    return tell(session, session.app.time_out(check_only=check_only), "time-out", as_json=as_json)


@verb(examples=("jobd reconcile --check-only", "jobd reconcile --all"))
@click.option("--all", "every", is_flag=True, help="Look at all results there are, not at the newest 10,000 items.")
@click.option("--check-only", is_flag=True, help="Change nothing; leave with 10 where there is something to do.")
@shape_options()
@pass_session
def reconcile(session: Session, *, every: bool, check_only: bool, as_json: bool) -> int:
    """Bring items that say something else than the result stored for them in line with it, and their jobs too."""
    report = session.app.reconcile(every=every, check_only=check_only)
    return tell(session, report, "reconcile --all" if every else "reconcile", as_json=as_json)


def tell(session: Session, report: Report, line: str, *, as_json: bool) -> int:
    """Print what a pass did or would do, and return the exit code; ``line`` is what was typed, but for --check-only."""
    output = Output(session, as_json=as_json)
    changes, check_only = report.changes, report.check_only
    if as_json:
        output.document(report.json())
    else:
        records = [change.json() for change in changes]
        output.many(records, lambda screen, _: _changes(screen, changes, check_only=check_only), CHANGE_FIELDS)
    if output.human or not as_json:
        session.say(_verdict(session, report, line))
    warn_of_what_stays(session, report)
    if check_only and (changes or report.stays):
        return FOUND_WORK
    return int(bool(report.stays))


def warn_of_what_stays(session: Session, report: Report) -> None:
    """Say what a pass would have settled and could not, and why."""
    for why, count in report.stays.items():
        session.warn(f"{count:,} item{' stays' if count == 1 else 's stay'}: {escape(why)}")


def _verdict(session: Session, report: Report, line: str) -> str:
    count, name = report.total, report.name.replace("_", " ")
    if not count:
        return f"nothing {'else ' if report.stays else ''}to {name}"
    if report.check_only:
        same = "" if line.endswith("--all") else "   (jobd start does the same)"
        return f"Nothing was changed. Do it: {session.line(line)}{same}"
    if report.name == "time_out":
        return _timed_out(report.counts)
    past = {"recover": "recovered", "reconcile": "reconciled"}.get(report.name, f"{name}:")
    return f"{past} {count:,} item{'' if count == 1 else 's'}"


def _timed_out(counts: Mapping[str, int]) -> str:
    words = {
        "failed": "waiting item{} failed",
        "timed_out": "job{} without progress timed out",
        "interrupted": "running item{} interrupted",
    }
    found = [(counts[word], words[word].format("" if counts[word] == 1 else "s")) for word in words if word in counts]
    return ", ".join(f"{count:,} {what}" for count, what in found)


def _changes(screen: Screen, changes: Sequence[Change], *, check_only: bool) -> None:
    from jobd.store.views import iso

    present = now()
    screen.table(
        ["ITEM", f"SINCE ({times.zone(present)})", "ATTEMPT", "EVIDENCE", "WOULD BECOME" if check_only else "BECAME"],
        [
            [
                Cell(
                    f"job {change.job_id}" if change.key is None else f"{change.job_id}:{cut(escape(change.key), 48)}"
                ),
                Cell(times.short(iso(change.since), present)),
                Cell(str(change.attempt or "-"), right=True),
                Cell(escape(change.evidence)),
                Cell(change.to_status),
            ]
            for change in changes
        ],
        stretch=0,
    )


@verb(examples=("jobd doctor", "jobd doctor --json | jq '.checks[] | select(.level != \"ok\")'"))
@shape_options()
@pass_session
def doctor(session: Session, *, as_json: bool) -> int:
    """Check versions, file system, lock and WAL, and every invariant: warnings leave 0, a broken invariant 1."""
    output = Output(session, as_json=as_json)
    found = session.app.doctor()
    record: dict[str, Any] = found.json()
    if as_json:
        output.document(record)
        return int(found.exit_code)
    output.many(record["checks"], _checks, CHECK_FIELDS)
    broken = sum(check["level"] == "broken" for check in record["checks"])
    warnings = sum(check["level"] == "warning" for check in record["checks"])
    verdict = f"{broken} broken" if broken else "healthy"
    if warnings:
        verdict += f", {warnings} warning{'' if warnings == 1 else 's'}"
    session.say(f"{verdict}: {escape(str(session.app.path))}", "red" if broken else "")
    return int(found.exit_code)


def _checks(screen: Screen, checks: list[Record]) -> None:
    room = max((len(check["name"]) for check in checks), default=0)
    for check in checks:
        glyph, colour = _LEVELS[check["level"]]
        screen.sentence(f"  {screen.paint(glyph, colour)} {escape(check['name']):<{room}}  {escape(check['text'])}")
        if check.get("hint"):
            screen.sentence(f"    {'':<{room}}hint: {escape(check['hint'])}")
