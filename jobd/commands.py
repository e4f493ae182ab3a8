"""Commands over items: what stands in a job's params and an item's payload, and what is run for them. Nothing here
reads or writes anything.

``params`` of a job of the task `shell`::

    {"command": [WORD, …], "shell": false, "cwd": WORD}

With ``shell`` the command is one word, a script for `sh -c`. An item's payload is one of::

    {"item": WORD}                 the item as it was named
    {"fields": {NAME: JSON, …}}    an object of JSON lines

and beside it perhaps ``"n"``, its number for `{#}` (kept only where the command has it), and ``"stamp"``, the size and
the modification time in nanoseconds of the file that it names. A WORD is text, or ``{"bytes": BASE64}`` where the bytes
are not UTF-8: what a shell or a file system gave arrives byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.naming import key_of
from jobd.quoting import PLACE, references, severed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TASK: Final = "shell"
ITEM: Final = "JOBD_ITEM"
_NUMBER: Final = b"#"
# The variables of a script, by what is between the braces.
_VARIABLES: Final = {
    b"": b"JOBD_ITEM",
    b".": b"JOBD_ITEM_STEM",
    b"/": b"JOBD_ITEM_NAME",
    b"//": b"JOBD_ITEM_FOLDER",
    b"/.": b"JOBD_ITEM_NAME_STEM",
    _NUMBER: b"JOBD_ITEM_NUMBER",
}
_SYNTAX: Final = re.compile(rb"[\s|&;<>()$`\\\"'*?\[#~]")
_EXTENSION: Final = re.compile(rb"\.[^/.]*\Z")


class NoCommand(ValueError):
    """Params or a payload from which no command can be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """What runs for each item: ``words`` without a shell, or with ``shell`` the one word as a script; and where."""

    words: tuple[bytes, ...]
    shell: bool
    cwd: bytes

    @classmethod
    def of(cls, params: Any) -> Command:
        """Read a job's params.

        Raises:
            NoCommand: they are not those of a command.
        """
        try:
            words = tuple(unpack(word) for word in params["command"])
            command = cls(words, bool(params["shell"]), unpack(params["cwd"]))
        except (KeyError, TypeError, ValueError):
            raise NoCommand("the job's params are not those of a command") from None
        if not words or (command.shell and len(words) > 1):
            raise NoCommand("the job's params are not those of a command")
        return command

    def params(self) -> dict[str, Any]:
        """Return what a job's params hold of it."""
        return {"command": [pack(word) for word in self.words], "shell": self.shell, "cwd": pack(self.cwd)}

    @property
    def numbered(self) -> bool:
        """Say whether it has `{#}`, and its items need numbers."""
        return _NUMBER in self.places(objects=False)

    def places(self, *, objects: bool) -> tuple[bytes, ...]:
        """Return what is between the braces of its placeholders; names of fields only where items are ``objects``."""
        if self.shell:
            return _script(self.words[0], objects).places
        found = dict.fromkeys(place for word in self.words for place in PLACE.findall(word))
        return tuple(place for place in found if objects or place in _VARIABLES)

    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that it has in braces, where items are objects."""
        return tuple(place.decode() for place in self.places(objects=True) if place not in _VARIABLES)

    def severed(self, *, objects: bool) -> str | None:
        """Return what a script ends in that cuts the item off, which comes last in it; None where nothing does."""
        if not self.shell or not _script(self.words[0], objects).appended:
            return None
        return severed(self.words[0])

    def __str__(self) -> str:
        """Return it as it could be typed; bytes that are no text as the key of an item has them."""
        return key_of(self.words[0] if self.shell else b" ".join(map(_as_typed, self.words)))


def _as_typed(word: bytes) -> bytes:
    return os.fsencode(shlex.quote(os.fsdecode(word)))


def is_script(words: Sequence[bytes]) -> bool:
    """Say whether the words of a command line are a script for a shell, in one word, perhaps with items after it."""
    first = words[0]
    return any(blank in first for blank in (b" ", b"\t", b"\n")) or (
        len(words) == 1 and _SYNTAX.search(PLACE.sub(b"", first)) is not None
    )


# -- running -----------------------------------------------------------------------------------------------------------


def argv(params: Any, payload: Any) -> list[bytes]:
    """Return the words to execute for an item, the first of them the program.

    Raises:
        NoCommand: the params or the payload are not those of a command, or a field of it is missing.
    """
    command, values = Command.of(params), _Values(payload)
    objects = values.fields is not None
    if command.shell:
        return [b"sh", b"-c", _script(command.words[0], objects).text]
    if not command.places(objects=objects):
        return [*command.words, values.item]

    def value(place: re.Match[bytes]) -> bytes:
        return values.of(place[1]) if objects or place[1] in _VARIABLES else place[0]

    return [PLACE.sub(value, word) for word in command.words]


def environment(params: Any, payload: Any) -> dict[bytes, bytes]:
    """Return the variables that the command of an item has beside the runner's own and `JOBD_JOB`, `JOBD_ATTEMPT`.

    Raises:
        NoCommand: as in ``argv``.
    """
    command, values = Command.of(params), _Values(payload)
    found = {_VARIABLES[b""]: values.item}
    if command.shell:
        script = _script(command.words[0], values.fields is not None)
        found |= {variable: values.of(place) for place, variable in script.variables}
    return found


class _Script(NamedTuple):
    """A script for `sh -c`, the variables that stand in it for its placeholders, and whether the item comes last."""

    text: bytes
    variables: tuple[tuple[bytes, bytes], ...]
    appended: bool

    @property
    def places(self) -> tuple[bytes, ...]:
        return tuple(place for place, _ in self.variables)


@lru_cache(maxsize=64)
def _script(script: bytes, objects: bool) -> _Script:
    found: dict[bytes, bytes] = {}

    def variable(place: bytes) -> bytes | None:
        if place not in _VARIABLES and not objects:
            return None
        # A field's own name may be none that a variable can have.
        return found.setdefault(place, _VARIABLES.get(place, b"JOBD_ITEM_FIELD_%d" % len(found)))

    text = references(script, variable)
    appended = not found and ITEM.encode() not in script
    if appended:
        text = text.rstrip() + b' "${JOBD_ITEM}"'
    return _Script(text, tuple(found.items()), appended)


class _Values:
    """What the placeholders stand for in one item."""

    def __init__(self, payload: Any) -> None:
        try:
            self.fields: Mapping[str, Any] | None = payload.get("fields")
            self.item = text_of(self.fields) if self.fields is not None else unpack(payload["item"])
            self._number = payload.get("n")
        except (AttributeError, KeyError, TypeError, ValueError):
            raise NoCommand("the item's payload is not that of a command") from None

    def of(self, name: bytes) -> bytes:
        if name in _OF_ITEM:
            return _OF_ITEM[name](self.item)
        if name == _NUMBER:
            if self._number is None:
                raise NoCommand("the item has no number for {#}")
            return b"%d" % self._number
        field = name.decode()
        if self.fields is None or field not in self.fields:
            raise NoCommand(f"the item has no field {field!a}")
        return text_of(self.fields[field])


def text_of(value: Any) -> bytes:
    """Return a JSON value as an argument: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _without_extension(item: bytes) -> bytes:
    return _EXTENSION.sub(b"", item)


def _name(item: bytes) -> bytes:
    return item.rpartition(b"/")[2]


def _folder(item: bytes) -> bytes:
    bare = item.rstrip(b"/")
    if not bare:
        return b"/" if item else b"."
    folder, slash, _ = bare.rpartition(b"/")
    return folder.rstrip(b"/") or (b"/" if slash else b".")


_OF_ITEM: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"": lambda item: item,
    b".": _without_extension,
    b"/": _name,
    b"//": _folder,
    b"/.": lambda item: _without_extension(_name(item)),
}


# -- words -------------------------------------------------------------------------------------------------------------


def pack(word: bytes) -> Any:
    """Return bytes as JSON: text, or ``{"bytes": BASE64}`` where they are not UTF-8."""
    try:
        return word.decode()
    except UnicodeDecodeError:
        return {"bytes": base64.b64encode(word).decode()}


def unpack(word: Any) -> bytes:
    """Return the bytes that ``pack`` was given.

    Raises:
        ValueError, KeyError, TypeError: that was nothing of the kind.
    """
    if isinstance(word, str):
        return word.encode()
    try:
        return base64.b64decode(word["bytes"], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
