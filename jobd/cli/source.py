"""Where the items of a submission come from: arguments, lines, a pattern, a range, JSON lines or CSV.

Files are read as they are consumed, so a million lines cost no memory here. What cannot be read is one line with the
file and the line number.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from jobd.cli.text import escape
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_RANGE: Final = re.compile(r"(-?\d+):(-?\d+)", re.ASCII)
_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """What was typed; ``items()`` and ``key`` are what ``submit`` takes."""

    words: tuple[str, ...] = ()
    lines: str | None = None
    nul: bool = False
    pattern: str | None = None
    span: str | None = None
    jsonl: str | None = None
    csv: str | None = None
    watchlist: bool = False
    key: str | None = None

    def __post_init__(self) -> None:
        """Refuse combinations: two sources would need an order, and none is obvious."""
        given = [name for name, value in self._sources().items() if value]
        if len(given) > 1:
            raise UsageError(f"items come from one place, not from {' and '.join(given)}")
        if self.nul and self.lines is None:
            raise UsageError("-0 goes with --from")
        if self.key is not None and self.jsonl is None and self.csv is None:
            raise UsageError("--key goes with --jsonl or --csv", hint="the job's own key is --job-key")

    def _sources(self) -> dict[str, object]:
        return {
            "arguments": self.words,
            "--from": self.lines,
            "--glob": self.pattern,
            "--range": self.span,
            "--jsonl": self.jsonl,
            "--csv": self.csv,
            "--watchlist": self.watchlist,
        }

    @property
    def given(self) -> bool:
        """Say whether any items were named; without, a task runs once, as one item."""
        return any(self._sources().values())

    def items(self, watched: Callable[[], list[str]] = list) -> Iterable[Any] | None:
        """Return the payloads, or None where none were named; ``watched`` gives the keys of the watchlist."""
        if self.watchlist:
            return watched()
        if self.words:
            return list(self.words)
        if self.lines is not None:
            return _lines(self.lines, b"\0" if self.nul else b"\n")
        if self.pattern is not None:
            return _matches(self.pattern)
        if self.span is not None:
            return _range(self.span)
        if self.jsonl is not None:
            return _objects(self.jsonl, self.key)
        if self.csv is not None:
            return _rows(self.csv, self.key)
        return None


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        yield sys.stdin.buffer
        return
    try:
        with open(name, "rb") as stream:  # noqa: PTH123 - a name that the shell gave, kept as it is
            yield stream
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None


def records(stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield what stands between separators; the last one needs none after it."""
    if separator == b"\n":
        for line in stream:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
        return
    rest = b""
    while block := stream.read(_BLOCK):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest


def _decoded(name: str, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{label(name)} line {number} is not UTF-8: {ascii(line[:60])[2:-1]}") from None


def _lines(name: str, separator: bytes) -> Iterator[str]:
    with opened(name) as stream:
        for number, line in enumerate(records(stream, separator), 1):
            if line:
                yield _decoded(name, number, line)


def _matches(pattern: str) -> list[str]:
    """Return the files that match, in order: `**` goes down, directories are not items."""
    found = glob.glob(os.path.expanduser(pattern), recursive=True)  # noqa: PTH111, PTH207 - paths stay as they are spelt
    return sorted(path for path in found if not os.path.isdir(path))  # noqa: PTH112 - as above


def _range(span: str) -> range:
    found = _RANGE.fullmatch(span)
    if found is None:
        raise UsageError(f"not a range: '{escape(span)}'", hint="A:B counts from A up to B, B not included: 0:100")
    return range(int(found[1]), int(found[2]))


def _objects(name: str, key: str | None) -> Iterator[Any]:
    with opened(name) as stream:
        for number, line in enumerate(records(stream, b"\n"), 1):
            words = _decoded(name, number, line)
            if not words.strip():
                continue
            try:
                payload = json.loads(words)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{label(name)} line {number} is not JSON: {error}") from None
            yield _with_key(payload, key, name, number)


def _rows(name: str, key: str | None) -> Iterator[dict[str, str]]:
    with opened(name) as stream:
        reader = csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise UsageError(f"{label(name)} line {reader.line_num} has not as many fields as the header")
                yield _with_key(row, key, name, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{label(name)} line {reader.line_num + 1} cannot be read: {error}") from None


def _with_key(payload: Any, key: str | None, name: str, number: int) -> Any:
    if key is not None and (not isinstance(payload, dict) or key not in payload):
        raise UsageError(f"{label(name)} line {number} has no field '{escape(key)}'")
    return payload


def label(name: str) -> str:
    return "standard input" if name == "-" else escape(name)


def parameters(pairs: Iterable[str]) -> dict[str, Any] | None:
    """Read ``--param k=v``: a value that is JSON is read as JSON, anything else is text.

    Raises:
        UsageError: no equals sign, or a name twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"not a parameter: '{escape(pair)}'", hint="--param NAME=VALUE")
        if name in found:
            raise UsageError(f"--param {escape(name)} is given twice")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found or None
