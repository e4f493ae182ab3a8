"""`schedule`: what is submitted again and again, when it comes next, and to run, pause and unpause it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import click

from jobd.cli import ids, signs, times
from jobd.cli.look import now
from jobd.cli.output import Output, shape_options
from jobd.cli.screen import Cell
from jobd.cli.text import cut, escape, width
from jobd.cli.verb import pass_session, verb
from jobd.errors import UsageError
from jobd.store.schedules import unknown
from jobd.store.views import iso

if TYPE_CHECKING:
    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session

FIELDS: Final = [
    "name", "task", "spec", "words", "zone", "catch_up", "state", "next_at", "last_fired_at", "last_job_id",
    "last_job_status", "skipped_at", "skipped_why", "paused_at",
]  # fmt: skip
_SLOTS: Final = ["name", "at", "local"]
_MANY: Final = 10_000
_NAME: Final = 24  # columns that a name keeps however narrow the terminal is
_DOCUMENTS: Final = ("json", "jsonl")
_STATES: Final = {
    "ok": ("ok", ""),
    "paused": ("‖ paused", "yellow"),
    "unknown": ("! not in the daemon's program", "yellow"),
    "no_daemon": ("no daemon", "yellow"),
}


@verb(
    examples=(
        "jobd schedule",
        "jobd --app ./program.py schedule preview nightly -n 5",
        "jobd schedule run nightly",
        "jobd schedule pause nightly",
    ),
)
@click.argument(
    "action", type=click.Choice(["list", "preview", "run", "pause", "unpause"]), default="list", metavar="[ACTION]"
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=ids.complete_schedules)
@click.option("-n", "count", type=click.IntRange(1, _MANY), default=5, show_default=True, help="How many to preview.")
@shape_options(rows=True)
@pass_session
def schedule(
    session: Session, *, action: str, names: tuple[str, ...], count: int, as_json: bool, as_jsonl: bool
) -> int:
    """List the schedules and when each comes next; preview, run, pause or unpause them: ACTION is one of these words.

    A program declares them by @app.schedule; the daemon of that program fires them.
    """
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    if action == "list":
        if names:
            raise UsageError("list takes no names", hint=session.line(f"schedule preview {escape(names[0])}"))
        return _list(session, output)
    if not names and action == "preview":
        names = tuple(entry.name for entry in session.app.schedules.entries())
    elif not names:
        raise UsageError(f"{action} takes the name of a schedule", hint=session.line("schedule list"))
    known = {entry.name for entry in session.app.schedules.entries()}
    for name in names:
        # All of them are found before the first is touched.
        if name not in known:
            raise unknown(name)
    if action == "preview":
        return _preview(session, output, names, count)
    if action == "run":
        return _run(session, output, names)
    return _steer(session, output, names, action)


def _list(session: Session, output: Output) -> int:
    found = [entry.json() for entry in session.app.schedules.entries()]
    output.many(found, _table, FIELDS)
    if output.human and not found:
        session.say("there are no schedules")
        session.say('  hint: @app.schedule(cron="0 3 * * *") above @app.task; the daemon of that program fires it')
    for entry in found:
        if output.human and entry["skipped_at"] is not None and entry["skipped_at"] > (entry["last_fired_at"] or ""):
            local = times.short(entry["skipped_at"], now())
            session.warn(f"{escape(entry['name'])}: the slot of {local} was left out: {escape(entry['skipped_why'])}")
    return 0


def _table(screen: Screen, rows: list[Record]) -> None:
    present = now()
    header = ["NAME", "CRON", "WHEN", f"NEXT ({times.zone(present)})", "JOB", "STATE"]
    cells = [
        [
            Cell(escape(row["name"])),
            Cell("-" if row["spec"].startswith("every ") else escape(row["spec"])),
            Cell(escape(row["words"])),
            Cell(times.short(row["next_at"], present) if row["state"] != "paused" else "-"),
            _job(row),
            Cell(*_STATES[row["state"]]),
        ]
        for row in rows
    ]
    if screen.tty and screen.wanted(header, cells) > screen.columns:
        # The words say the same, and cut to a few of them they would say nothing.
        header.remove("CRON")
        cells = [[name, *rest] for name, _, *rest in cells]
        # By its name a schedule is paused and run: no more of it goes than has to.
        longest = max(width(name.text) for name, *_ in cells)
        room = max(_NAME, longest - max(0, screen.wanted(header, cells) - screen.columns))
        cells = [[Cell(cut(name.text, room)), *rest] for name, *rest in cells]
    screen.table(header, cells, stretch=header.index("WHEN"))


def _job(row: Record) -> Cell:
    status = row["last_job_status"]
    if status is None:
        return Cell("-")
    return Cell(f"{row['last_job_id']} {signs.mark(status)}", signs.GLYPHS[status][1])


def _preview(session: Session, output: Output, names: tuple[str, ...], count: int) -> int:
    known = {entry.name: entry for entry in session.app.schedules.entries()}
    records: list[Record] = []
    for name in names:
        slots = session.app.schedules.preview(name, count)
        zone = known[name].zone
        records += [{"name": name, "at": iso(slot), "local": _local(slot, zone)} for slot in slots]

    def show(screen: Screen, rows: list[Record]) -> None:
        for name in names:
            screen.sentence(f"{escape(name)}  {escape(known[name].words)}")
            for row in rows:
                if row["name"] == name:
                    screen.sentence(f"  {escape(row['local'])}")

    output.many(records, show, _SLOTS)
    if output.human and not records:
        session.say("there are no schedules")
    return 0


def _run(session: Session, output: Output, names: tuple[str, ...]) -> int:
    records: list[Record] = []
    for name in names:
        job = session.app.schedules.run(name)
        records.append({"name": name, "id": job.id, "status": job.status})
        if output.shape not in _DOCUMENTS:
            output.screen.raw(f"{job.id}\n")
            output.screen.flush()
        session.say(f"job {job.id} of schedule {escape(name)} is {job.status}")
        if not session.app.daemon_status().alive:
            session.warn("nobody runs it: no daemon runs", session.line("start"))
    _document(output, records)
    return 0


def _steer(session: Session, output: Output, names: tuple[str, ...], action: str) -> int:
    found = session.app.schedules
    records: list[Record] = []
    for name in names:
        changed = found.pause(name) if action == "pause" else found.unpause(name)
        records.append({"name": name, "changed": changed})
        if action == "pause":
            session.say(f"schedule {escape(name)} is paused{'' if changed else ' already'}")
        else:
            word = "is unpaused" if changed else "was not paused"
            session.say(f"schedule {escape(name)} {word}{_following(session, name)}")
    _document(output, records)
    return 0


def _document(output: Output, records: list[Record]) -> None:
    if output.shape == "json":
        output.document(records[0] if len(records) == 1 else records)
    elif output.shape == "jsonl":
        for record in records:
            output.document(record)


def _following(session: Session, name: str) -> str:
    entry = next(entry for entry in session.app.schedules.entries() if entry.name == name)
    return f"; next: {_local(entry.next_at, entry.zone)}" if entry.next_at is not None else ""


def _local(at: int, zone: str) -> str:
    """Return a slot as a clock in its own zone shows it, with the zone: around a change of the clock that matters."""
    from jobd import zones

    return f"{dt.datetime.fromtimestamp(at / 1000, tz=zones.zone(zone)):%a %Y-%m-%d %H:%M:%S %Z}"
