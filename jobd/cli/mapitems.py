"""The words of `map`: where its command ends, and where its items come from. They are bytes: names of files are."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobd.cli.source import label, opened, records
from jobd.cli.text import escape
from jobd.codec import dumps
from jobd.commands import Command, is_script
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MARK: Final = ":::"
_NO_COMMAND: Final = "jobd map gzip -9 ::: a.txt b.txt, or jobd map 'gzip -9 < {} > {.}.gz' a.txt b.txt"


def split(words: Sequence[str], *, objects: bool) -> tuple[Command, tuple[bytes, ...] | None]:
    """Return the command, and the items that were named after it; None where none were.

    With ``objects`` a placeholder may name a field.

    Raises:
        UsageError: there is no command, it has no place for the item, or items stand in two places.
    """
    named: Sequence[str] | None = None
    before: Sequence[str] = words
    if _MARK in words:
        place = words.index(_MARK)
        before, named = words[:place], words[place + 1 :]
        if _MARK in named:
            raise UsageError(f"'{_MARK}' stands twice", hint="one list of items; combinations of several are not made")
    if not before or not before[0]:
        raise UsageError("no command is given", hint=_NO_COMMAND)
    command = [os.fsencode(word) for word in before]
    shell = is_script(command)
    if shell and len(command) > 1:
        if named is not None:
            raise UsageError(
                f"items stand before '{_MARK}' and after it",
                hint="where the command is one word with blanks, the words after it are items",
            )
        command, named = command[:1], before[1:]
    items = None if named is None else tuple(map(os.fsencode, named))
    return _checked(Command(tuple(command), shell, _folder()), objects=objects), items


def _checked(command: Command, *, objects: bool) -> Command:
    if end := command.severed(objects=objects):
        raise UsageError(
            f"the script ends in {end}: an item after it would be no argument",
            hint="{} is where the item belongs",
        )
    return command


def _folder() -> bytes:
    try:
        return os.getcwdb()  # noqa: PTH109 - bytes
    except OSError as error:
        raise UsageError(f"the folder that the line was typed in cannot be named: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Items:
    """What was typed of the items. ``fields`` are those that the command names."""

    words: tuple[bytes, ...] | None
    file: str | None = None
    nul: bool = False
    jsonl: bool = False
    key: str | None = None
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.words is not None and self.file is not None:
            raise UsageError("items come from one place, not from arguments and -a")
        if self.nul and (self.words is not None or self.jsonl):
            raise UsageError(f"-0 does not go with {'--jsonl' if self.jsonl else 'items as arguments'}")
        if self.key is not None and not self.jsonl:
            raise UsageError("--key goes with --jsonl", hint="the job's own name is --job")

    def read(self) -> Iterator[Any]:
        """Yield them, bytes or documents, as they come.

        Raises:
            UsageError: there is nowhere to read from, or an item cannot be one.
        """
        if self.words is not None:
            return self._checked("argument", self.words)
        file = "-" if self.file is None else self.file
        # Closed before this began, it is None; what prepares the streams leaves it so.
        if self.file is None and (sys.stdin is None or sys.stdin.isatty()):
            raise UsageError("no items are given", hint=f"after '{_MARK}', from -a FILE, or on standard input")
        return self._checked(f"{label(file)} line", _lines(file, b"\0" if self.nul else b"\n"))

    def _checked(self, where: str, items: Iterable[bytes]) -> Iterator[Any]:
        for number, item in enumerate(items, 1):
            if self.jsonl:
                if item.strip():
                    yield self._document(f"{where} {number}", item)
            elif b"\0" in item:
                raise UsageError(f"{where} {number} has a NUL", hint="-0 where the items end with NUL")
            elif item or self.words is not None:
                # A line without anything on it is none; an argument that is empty was typed so.
                yield item

    def _document(self, where: str, line: bytes) -> Any:
        try:
            found = json.loads(line)
            dumps(found, what="it")
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} is not JSON: {error}") from None
        for name in (*self.fields, *([self.key] if self.key is not None else [])):
            if not isinstance(found, dict) or name not in found:
                raise UsageError(f"{where} has no field '{escape(name)}'")
            _refuse_nul(f"{where}, field '{escape(name)}',", found[name])
        _refuse_nul(where, found)
        return found


def _refuse_nul(where: str, value: Any) -> None:
    """Raise UsageError for a text that can be no argument of a command."""
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{where} has a NUL", hint="an argument of a command cannot have one")


def _lines(file: str, separator: bytes) -> Iterator[bytes]:
    with opened(file) as stream:
        if separator == b"\n":
            # A carriage return may end the name of a file.
            for line in stream:
                yield line.removesuffix(b"\n")
        else:
            yield from records(stream, separator)
