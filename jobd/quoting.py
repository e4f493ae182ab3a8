"""Shell scripts with placeholders: each becomes the reference of a variable, in the quotes that its place needs.

An item's text is never part of what the shell parses, so no name of a file can be taken for code; and where the place
is judged wrongly (a here-document), what the command sees is a quote too many and not a command that nobody wrote.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    # The name of the variable that stands for a placeholder (what is between its braces); None: it is none.
    Variable = Callable[[bytes], bytes | None]

PLACE: Final = re.compile(rb"\{(|\.|//?|/\.|#|[A-Za-z_][A-Za-z0-9_-]*)\}")
_OPENS: Final = re.compile(rb"\$\(\(|\$\(|\$\{")
_CLOSER: Final = {b"$((": b"))", b"$(": b")", b"${": b"}"}
_QUOTED: Final = re.compile(rb"'[^']*'?")
_COMMENT: Final = re.compile(rb"#[^\n]*")
_DOCUMENT: Final = re.compile(rb"""(?<!<)<<-?[ \t]*(?:'([^'\n]+)'|"([^"\n]+)"|\\?([^\s;&|<>()'"\\]+))""")
_BEFORE_COMMENT: Final = b" \t\n;&|("
# After an operator a word is a command of its own: text of an item would be run.
_SEVERING: Final = {b";": "';'", b"&": "'&'", b"|": "'|'", b"\\": "a backslash"}


def references(script: bytes, variable: Variable) -> bytes:
    """Return ``script`` with every placeholder as the reference of its variable.

    What a `$` or a backslash stands before is the shell's own.
    """
    return _Reader(script, variable).read()


def severed(script: bytes) -> str | None:
    """Return what ``script`` ends in where a word that comes after it would be no argument; None where it would."""
    reader = _Reader(script.rstrip(), lambda _: None)
    reader.read()
    if reader.in_comment:
        return "a comment"
    return "a here-document" if reader.in_document() else _SEVERING.get(reader.last)


class _Reader:
    """Reads a script as far as it takes to know in which quotes a place is."""

    def __init__(self, script: bytes, variable: Variable) -> None:
        self._script, self._variable = script, variable
        self._place = 0
        self._open: list[bytes] = []  # what closes what is open, the innermost last
        self._made: list[bytes] = []
        self._documents: list[tuple[int, bytes]] = []  # where each here-document was announced, and its last line
        self.in_comment = False

    @property
    def last(self) -> bytes:
        """The last that was read."""
        return self._made[-1] if self._made else b""

    def in_document(self) -> bool:
        """Say whether the last line of the script belongs to a here-document."""
        return any(self._lasts(place, end) for place, end in self._documents)

    def _lasts(self, place: int, end: bytes) -> bool:
        lines = [line.lstrip(b"\t") for line in self._script[place:].split(b"\n")[1:]]
        return bool(lines) and end not in lines[:-1]

    def read(self) -> bytes:
        while self._place < len(self._script):
            self._step()
        return b"".join(self._made)

    def _step(self) -> None:
        script, place = self._script, self._place
        self.in_comment = False
        character = script[place : place + 1]
        if character == b"\\":
            self._take(2)
        elif found := self._reference(place):
            self._put(*found)
        elif opened := _OPENS.match(script, place):
            self._open.append(_CLOSER[opened[0]])
            self._take(len(opened[0]))
        elif character == b"'" and not self._in_double():
            self._quoted()
        elif not self._in_double() and (document := _DOCUMENT.match(script, place)):
            self._documents.append((document.end(), document[1] or document[2] or document[3]))
            self._take(len(document[0]))
        elif character == b"#" and self._begins_comment():
            self.in_comment = True
            self._take(len(_COMMENT.match(script, place)[0]))  # type: ignore[index] # it begins with one
        else:
            self._take(self._bracket(character))

    def _take(self, length: int) -> None:
        self._put(self._script[self._place : self._place + length], length)

    def _put(self, text: bytes, length: int) -> None:
        self._made.append(text)
        self._place += length

    def _reference(self, place: int) -> tuple[bytes, int] | None:
        found = PLACE.match(self._script, place)
        name = self._variable(found[1]) if found is not None else None
        if found is None or name is None:
            return None
        return (b"${%s}" if self._in_double() else b'"${%s}"') % name, len(found[0])

    def _quoted(self) -> None:
        """Take a text in single quotes: within it a reference stands outside of them."""
        found = _QUOTED.match(self._script, self._place)
        assert found is not None  # noqa: S101 - it begins with one

        def outside(place: re.Match[bytes]) -> bytes:
            name = self._variable(place[1])
            return place[0] if name is None else b"'\"${%s}\"'" % name

        self._put(PLACE.sub(outside, found[0]), len(found[0]))

    def _bracket(self, character: bytes) -> int:
        """Open or close what ``character`` does, and return how long that is."""
        innermost = self._open[-1] if self._open else b""
        if innermost and self._script.startswith(innermost, self._place):
            self._open.pop()
            return len(innermost)
        if character == b"`" and b"`" in self._open:
            del self._open[self._open.index(b"`") :]
        elif character in {b'"', b"`"} or (character == b"(" and not self._in_double()):
            self._open.append({b"(": b")"}.get(character, character))
        return 1

    def _in_double(self) -> bool:
        """Say whether a quote here would be one within double quotes; in arithmetic it is none at all."""
        for closer in reversed(self._open):
            if closer != b"}":
                return closer in {b'"', b"))"}
        return False

    def _begins_comment(self) -> bool:
        before = self._script[self._place - 1 : self._place]
        return not self._in_double() and (not before or before in _BEFORE_COMMENT)
