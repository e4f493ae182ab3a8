"""What `map` would run, and what became of each item: lines for a person, rows for a program."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from jobd import mapping
from jobd.cli.output import Output, dump, field
from jobd.cli.text import escape
from jobd.commands import argv, environment
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.item_views import ItemView

FIELDS: Final = ["key", "status", "exit", "signal", "attempt", "started_at", "duration_ms", "error"]
_EXIT: Final = re.compile(r"exit (\d+)")
_SIGNAL: Final = re.compile(r"killed by (SIG\w+)")
_PAGE: Final = 1_000


def dry_run(session: Session, wanted: mapping.Wanted, items: Iterator[Any], *, as_json: bool) -> int:
    """Print the command of each item that would run; nothing is written anywhere."""
    output = Output(session, as_json=as_json)
    job = mapping.find(session.app, wanted)
    planned = _counted(session, wanted, mapping.plan(session.app, wanted, job, items), job)
    if as_json:
        output.document([{"key": item.key, "line": " ".join(words)} for item, words in planned])
        return 0
    for _, words in planned:
        output.screen.raw(" ".join(words) + "\n")
    return 0


def _counted(
    session: Session, wanted: mapping.Wanted, plan: Iterator[mapping.Planned], job: Job | None
) -> Iterator[tuple[mapping.Planned, list[str]]]:
    """Yield the items that would run, each with its line as it could be typed; say at the end how many would not."""
    params, left = wanted.command.params(), 0
    for item in plan:
        if mapping.runs(wanted, item):
            yield item, _typed(params, item.payload, script=wanted.command.shell)
        else:
            left += 1
    if job is not None:
        session.say(f"job {job.id} goes on: {left:,} of the input would not run again")


def _typed(params: Any, payload: Any, *, script: bool) -> list[str]:
    """Return the words of an item's line, quoted; those of a script have their variables before them."""
    variables = environment(params, payload).items() if script else ()
    named = [f"{name.decode()}={_word(value)}" for name, value in variables]
    return named + [_word(word) for word in argv(params, payload)]


def _word(word: bytes) -> str:
    """Quote a word for a shell; what a terminal must not see is no longer what was meant."""
    return shlex.quote(escape(word.decode(errors="backslashreplace")))


def check(file: str) -> None:
    """Refuse a file that could not be written at the end.

    Raises:
        UsageError: it is a folder, may not be written to, or is none that is there.
    """
    path = Path(file)
    if file == "-":
        raise UsageError("--results cannot be standard output", hint="that is for what the commands print")
    try:
        # pathlib answers this otherwise for links in a circle: a RuntimeError, or that there is nothing.
        with suppress(FileNotFoundError):
            path.stat()
    except OSError as error:
        raise _unwritable(file, error) from None
    place = path if path.exists() and not _replaced(path) else path.resolve().parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise UsageError(f"cannot write {escape(file)}", hint="--results names a file in a folder that is there")


def write(file: str, job: Job) -> None:
    """Write what became of all items of a job, in their order, in place of what the file held.

    Raises:
        UsageError: that cannot be done; what the file held is still there, unless it is a device or a link.
    """
    path = Path(file)
    as_json = path.suffix in {".jsonl", ".json"}
    try:
        if _replaced(path):
            _replace(path, job, as_json=as_json)
        else:
            with path.open("w", encoding="utf-8") as stream:
                _rows(stream, job, as_json=as_json)
    except OSError as error:
        raise _unwritable(file, error) from None


def _unwritable(file: str, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write {escape(file)}: {error.strerror}", hint="--results names a file that can be written"
    )


def _replaced(path: Path) -> bool:
    """Say whether another file may take its place: a device or a pipe would be gone, and of a link what it is."""
    return not path.is_symlink() and (path.is_file() or not path.exists())


def _replace(path: Path, job: Job, *, as_json: bool) -> None:
    # A name of its own: one that is derived from the file's may be too long, or somebody's.
    made = path.with_name(f".jobd-{secrets.token_hex(8)}")
    try:
        with made.open("x", encoding="utf-8") as stream:
            _rows(stream, job, as_json=as_json)
        if path.exists():
            shutil.copymode(path, made)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def _rows(stream: IO[str], job: Job, *, as_json: bool) -> None:
    if not as_json:
        stream.write("\t".join(FIELDS) + "\n")
    for item in _items(job):
        row = _row(item)
        stream.write((dump(row) if as_json else "\t".join(map(field, row.values()))) + "\n")


def _items(job: Job) -> Iterator[ItemView]:
    last = 0
    while page := job.items(after=last, limit=_PAGE):
        yield from page
        last = page[-1].id


def _row(item: ItemView) -> dict[str, Any]:
    record = item.json()
    said = item.error or ""
    code, signal = _EXIT.match(said), _SIGNAL.match(said)
    left: dict[str, Any] = {"exit": int(code[1]) if code else 0 if item.status == "completed" else None}
    left["signal"] = signal[1] if signal else None
    return {name: left[name] if name in left else record[name] for name in FIELDS}
