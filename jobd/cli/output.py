"""What goes to stdout, in the four shapes: for people, TSV, JSON, JSONL.

On a terminal people read; in a pipe a program does, and gets every field untruncated with a header. A record is the
dict that ``.json()`` of a handle gives, so the machine shapes are the same data everywhere.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli import text
from jobd.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobd.cli.session import Session

Record = dict[str, Any]
_PREFIXES: Final = {"counts": "items_", "daemon": "daemon_"}
# A job's counts, as columns.
COUNT_FIELDS: Final = [
    "items_total", "items_queued", "items_running", "items_waiting", "items_completed", "items_failed",
    "items_skipped", "items_cancelled",
]  # fmt: skip
_NO_DAEMON: Final = {"alive": False}
_DAEMON: Final = ("id", "pid", "host", "heartbeat_at", "alive")


class Output:
    """The shape that was asked for, and stdout."""

    def __init__(self, session: Session, *, as_json: bool = False, as_jsonl: bool = False) -> None:
        if as_json and as_jsonl:
            raise click.UsageError("--json and --jsonl exclude each other")
        self.screen = Screen(sys.stdout, session.colour)
        self.shape = "json" if as_json else "jsonl" if as_jsonl else "human" if self.screen.tty else "tsv"

    @property
    def human(self) -> bool:
        """Say whether a person reads."""
        return self.shape == "human"

    def one(self, record: Record, show: Callable[[Screen], object], fields: Sequence[str] | None = None) -> None:
        """Write one record: a document, a TSV header and row, or what ``show`` writes."""
        if self.human:
            show(self.screen)
        elif self.shape == "tsv":
            self._tsv([record], fields)
        else:
            self.document(record)

    def many(
        self, records: Iterable[Record], show: Callable[[Screen, list[Record]], object], fields: Sequence[str]
    ) -> None:
        """Write a list of records; everything but the human table and the JSON document streams."""
        if self.human:
            show(self.screen, list(records))
        elif self.shape == "json":
            self.document(list(records))
        elif self.shape == "jsonl":
            for record in records:
                self.screen.raw(dump(record) + "\n")
        else:
            self._tsv(records, fields)

    def document(self, value: object) -> None:
        """Write one JSON document."""
        self.screen.raw(dump(value, indent=None if self.shape == "jsonl" else 2) + "\n")

    def _tsv(self, records: Iterable[Record], fields: Sequence[str] | None) -> None:
        header = list(fields) if fields is not None else None
        if header is not None:
            self.screen.raw("\t".join(header) + "\n")
        for record in records:
            flat = flatten(record)
            if header is None:
                header = list(flat)
                self.screen.raw("\t".join(header) + "\n")
            self.screen.raw("\t".join(field(flat.get(name)) for name in header) + "\n")


def dump(value: object, indent: int | None = None) -> str:
    """Return JSON whose strings cannot act on a terminal; other characters stay readable."""
    return text.escape_json(json.dumps(value, ensure_ascii=False, indent=indent))


def field(value: object) -> str:
    """Return a value as a TSV field: backslash, tab, newline and every control character escaped, None empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return text.escape(value.replace("\\", "\\\\"))
    return dump(value).replace("\\", "\\\\")


def flatten(record: Record) -> Record:
    """Return the record with its counts and its daemon as columns of their own."""
    flat: Record = {}
    for name, value in record.items():
        if name == "daemon":
            flat |= {f"daemon_{part}": (value or _NO_DAEMON).get(part) for part in _DAEMON}
        elif name in _PREFIXES and isinstance(value, dict):
            flat |= {_PREFIXES[name] + part: number for part, number in value.items()}
        else:
            flat[name] = value
    return flat


def shape_options(*, rows: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--json`` and, for verbs that print a list, ``--jsonl``."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        if rows:
            function = click.option("--jsonl", "as_jsonl", is_flag=True, help="One JSON document a line.")(function)
        return click.option("--json", "as_json", is_flag=True, help="One JSON document.")(function)

    return add
