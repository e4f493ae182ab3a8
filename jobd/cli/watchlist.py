"""`watchlist`: the keys of a task that are run again and again, and how each went last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobd.cli import ids, signs, times
from jobd.cli.look import now
from jobd.cli.output import Output, shape_options
from jobd.cli.screen import Cell
from jobd.cli.source import Source
from jobd.cli.text import cut, escape
from jobd.cli.verb import pass_session, verb
from jobd.errors import NotFound, UsageError

if TYPE_CHECKING:
    from jobd.cli.output import Record
    from jobd.cli.screen import Screen
    from jobd.cli.session import Session

FIELDS: Final = ["task", "key", "last_job_id", "last_status", "last_run_at"]
_KEY: Final = 64


@verb(
    examples=(
        "jobd watchlist add checksum a.txt b.txt",
        "jobd watchlist list checksum",
        "jobd watchlist remove checksum --from gone.txt",
        "jobd --app ./program.py submit checksum --watchlist",
    ),
)
@click.argument("action", type=click.Choice(["list", "add", "remove"]), default="list")
@click.argument("target", metavar="[TARGET]", required=False, shell_complete=ids.complete_tasks)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--from", "lines", metavar="FILE|-", help="Keys from a file or standard input, one a line.")
@click.option("-0", "nul", is_flag=True, help="The keys of --from end with NUL instead.")
@shape_options(rows=True)
@pass_session
def watchlist(
    session: Session,
    *,
    action: str,
    target: str | None,
    keys: tuple[str, ...],
    lines: str | None,
    nul: bool,
    as_json: bool,
    as_jsonl: bool,
) -> int:
    """List the keys on the watchlist and how each was last run; or add or remove keys of a task."""
    output = Output(session, as_json=as_json, as_jsonl=as_jsonl)
    source = Source(words=keys, lines=lines, nul=nul)
    task = None if target is None else _task(session, target)
    if action == "list":
        if source.given:
            raise UsageError("list takes a task, and no keys")
        return _list(session, output, task)
    if task is None or not source.given:
        raise UsageError(f"{action} takes a task and its keys", hint=session.line(f"watchlist {action} TASK KEY..."))
    # As often as it was typed: what comes twice is one.
    wanted = list(dict.fromkeys(source.items() or ()))
    if action == "add":
        return _add(session, output, task, wanted)
    return _remove(session, output, task, wanted)


def _list(session: Session, output: Output, task: str | None) -> int:
    found = [entry.json() for entry in session.app.watchlist.entries(task)]
    output.many(found, _table, FIELDS)
    if output.human and not found:
        session.say("the watchlist is empty" if task is None else f"no key of {escape(task)} is on the watchlist")
        session.say(f"  next: {session.line('watchlist add ' + escape(task or 'TASK') + ' KEY...')}")
    return 0


def _table(screen: Screen, rows: list[Record]) -> None:
    present = now()
    screen.table(
        ["TASK", "KEY", "LAST", f"AT ({times.zone(present)})", "JOB"],
        [
            [
                Cell(escape(row["task"])),
                Cell(cut(escape(row["key"]), _KEY)),
                _status(row["last_status"]),
                Cell(times.short(row["last_run_at"], present)),
                Cell(str(row["last_job_id"] or "-"), right=True),
            ]
            for row in rows
        ],
    )


def _status(status: str | None) -> Cell:
    # Known from its first end on, since the key was put on the list.
    return Cell("-") if status is None else Cell(signs.mark(status), signs.GLYPHS[status][1])


def _add(session: Session, output: Output, task: str, keys: list[str]) -> int:
    added = session.app.watchlist.add(task, *keys)
    if output.shape in {"json", "jsonl"}:
        output.document({"task": task, "added": added, "known": len(keys) - added})
    known = f", {len(keys) - added:,} there before" if added < len(keys) else ""
    session.say(f"{added:,} added to the watchlist of {escape(task)}{known}")
    return 0


def _remove(session: Session, output: Output, task: str, keys: list[str]) -> int:
    removed = session.app.watchlist.remove(task, *keys)
    if not removed:
        raise NotFound(
            f"none of these keys of {escape(task)} is on the watchlist",
            hint=session.line(f"watchlist list {escape(task)}"),
        )
    if output.shape in {"json", "jsonl"}:
        output.document({"task": task, "removed": removed, "unknown": len(keys) - removed})
    unknown = f", {len(keys) - removed:,} not on it" if removed < len(keys) else ""
    session.say(f"{removed:,} removed from the watchlist of {escape(task)}{unknown}")
    return 0


def _task(session: Session, target: str) -> str:
    """Return the name of the task: code is loaded, a name is taken as it is."""
    from jobd.cli.target import is_code, load_task

    return load_task(session, target).name if is_code(target) else target
