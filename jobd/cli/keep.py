"""`backup`, `restore` and `migrate`: the file as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from jobd import clock
from jobd.cli.interrupts import Interrupts
from jobd.cli.output import Output, shape_options
from jobd.cli.progress import Progress
from jobd.cli.screen import Cell
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session
    from jobd.store.copies import Watch
    from jobd.store.invariants import Violation

T = TypeVar("T")

FOUND_WORK: Final = 10
BACKUP_FIELDS: Final = ["database", "path", "bytes", "schema", "broken"]
RESTORE_FIELDS: Final = ["database", "backup", "kept", "bytes", "schema", "broken"]
STEP_FIELDS: Final = ["from_version", "to_version", "what", "jobs", "results", "superseded", "undated", "watched"]
_SHOWN: Final = 3
_COUNTED: Final = {
    "jobs": "{} jobs",
    "results": "{} results",
    "superseded": "{} of them older than another of their key and day: they keep no period",
    "undated": "{} of them without a time that can be read: they keep no period",
    "watched": "{} watched keys",
}


@verb(examples=("jobd backup /mnt/disk/jobs-monday.db", "jobd backup --force latest.db"))
@click.argument("dest", type=click.Path())
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@shape_options()
@pass_session
def backup(session: Session, dest: str, *, force: bool, as_json: bool) -> int:
    """Copy the database while it is in use, and check the copy as doctor does."""
    from jobd import safekeeping

    output = Output(session, as_json=as_json)
    found = _watched(session, lambda watch: safekeeping.backup(session.app.path, dest, force=force, watch=watch))
    _write(output, found.json(), BACKUP_FIELDS)
    session.say(f"copied {escape(found.database)} to {escape(found.path)}: {_size(found.bytes)}, schema {found.schema}")
    return _warn(session, found.broken)


@verb(examples=("jobd restore /mnt/disk/jobs-monday.db",))
@click.argument("source", metavar="BACKUP", type=click.Path())
@shape_options()
@pass_session
def restore(session: Session, source: str, *, as_json: bool) -> int:
    """Put a backup in the database's place; the old file is kept under another name."""
    from jobd import safekeeping

    output = Output(session, as_json=as_json)
    found = _watched(session, lambda watch: safekeeping.restore(session.app.path, source, now=clock.now(), watch=watch))
    _write(output, found.json(), RESTORE_FIELDS)
    session.say(f"restored {escape(found.database)} from {escape(found.backup)}: {_size(found.bytes)}")
    if found.kept is not None:
        session.say(f"the old file is kept as {escape(found.kept)}")
    session.say(f"  next: {session.line('recover')} settles what was running in it; jobd start does the same")
    return _warn(session, found.broken)


@verb(examples=("jobd migrate --check-only", "jobd --db old.db migrate"))
@click.option("--check-only", is_flag=True, help="Change nothing; leave with 10 where there is something to do.")
@shape_options()
@pass_session
def migrate(session: Session, *, check_only: bool, as_json: bool) -> int:
    """Bring the database to the present schema; a copy from before is kept beside it."""
    from jobd import safekeeping

    output = Output(session, as_json=as_json)
    found = _watched(
        session,
        lambda watch: safekeeping.migrate(session.app.path, now=clock.now(), check_only=check_only, watch=watch),
    )
    record = found.json()
    if as_json:
        output.document(record)
    else:
        output.many([{**step, **step["counts"]} for step in record["steps"]], _steps, STEP_FIELDS)
    if not found.steps:
        session.say(f"nothing to migrate: {escape(found.database)} has schema {found.to_version}")
        return 0
    if check_only:
        session.say(f"Nothing was changed. Do it: {session.line('migrate')}   (a copy from before is kept)")
        return FOUND_WORK
    session.say(f"{escape(found.database)} has schema {found.to_version} now, it had {found.from_version}")
    session.say(f"the file from before is kept as {escape(str(found.backup))}")
    return 0


def _watched(session: Session, work: Callable[[Watch], T]) -> T:
    """Do the work with its progress on a terminal; Ctrl-C ends it where nothing is half."""
    with Interrupts() as interrupts, Progress(session, interrupts) as progress:
        return work(progress.watch)


def _write(output: Output, record: Record, fields: Sequence[str]) -> None:
    """Write what a machine reads; a person is told in sentences."""
    if output.shape == "json":
        output.document(record)
    elif not output.human:
        output.one({**record, "broken": len(record["broken"])}, lambda _: None, fields)


def _warn(session: Session, broken: Sequence[Violation]) -> int:
    """Say which rules are broken in a copy, as they were in its original; return the exit code."""
    for violation in broken[:_SHOWN]:
        session.warn(f"{violation.name}: {escape(violation.text)}")
    if broken:
        many = f"{len(broken):,} break" if len(broken) > 1 else "1 breaks"
        session.warn(f"{many} a rule of truth, in the copy as in the original", f"{session.line('doctor')} says more")
    return int(bool(broken))


def _steps(screen: Screen, steps: Sequence[dict[str, Any]]) -> None:
    screen.table(
        ["FROM", "TO", "WHAT"],
        [
            [
                Cell(str(step["from_version"]), right=True),
                Cell(str(step["to_version"]), right=True),
                Cell(escape(step["what"])),
            ]
            for step in steps
        ],
    )
    for step in steps:
        for name, number in step["counts"].items():
            screen.sentence(f"  {_COUNTED.get(name, name + ' {}').format(f'{number:,}')}")


def _size(count: int) -> str:
    return f"{count / 1_000_000:,.1f} MB"
