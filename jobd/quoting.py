"""Shell scripts with placeholders: each becomes the reference of a variable, in the quotes that its place needs.

An item's text is never part of what the shell parses, so no name of a file can be taken for code. The body of a
here-document is no script: quotes are text there, and a reference needs none. Where its end is missing it is read as
script all the same: what the command sees is then a quote too many, and not a command that nobody wrote.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    # The name of the variable that stands for a placeholder (what is between its braces); None: it is none.
    Variable = Callable[[bytes], bytes | None]

PLACE: Final = re.compile(rb"\{(|\.|//?|/\.|#|[A-Za-z_][A-Za-z0-9_-]*)\}")
_OPENS: Final = re.compile(rb"\$\(\(|\$\(|\$\{")
_CLOSER: Final = {b"$((": b"))", b"$(": b")", b"${": b"}"}
_QUOTED: Final = re.compile(rb"'[^']*'?")
_COMMENT: Final = re.compile(rb"#[^\n]*")
_DOCUMENT: Final = re.compile(rb"""(?<!<)<<(-?+)[ \t]*((?:'[^'\n]*'|"(?:\\.|[^"\\\n])*"|\\[^\n]|[^\s;&|<>()'"`\\])+)""")
_PART: Final = re.compile(rb"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^'"\\]+)""")
_ESCAPED: Final = re.compile(rb"""\\(["$`\\])""")
_BODY: Final = b"\0"  # what closes the body of a here-document, whose end is known before; a script has no NUL
_DOUBLE: Final = {b'"', b"))", _BODY}
_COMMANDS: Final = {b"", b")", b"`"}
_BEFORE_COMMENT: Final = b" \t\n;&|("
# After an operator a word is a command of its own: text of an item would be run; or a file to be written.
_SEVERING: Final = {b";": "';'", b"&": "'&'", b"|": "'|'", b"<": "'<'", b">": "'>'", b"\\": "a backslash"}
_VALUE: Final = rb"""(?:[^\s;&|<>()'"`\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*"|\$\([^()]*\)|`[^`]*`)*"""
_ASSIGNMENTS: Final = re.compile(rb"(?:\A|(?<!\\)[;&|\n])\s*(?:[A-Za-z_]\w*=%s(?:\s+|\Z))+\Z" % _VALUE, re.DOTALL)


def references(script: bytes, variable: Variable) -> bytes:
    """Return ``script`` with every placeholder as the reference of its variable.

    What a `$` or a backslash stands before is the shell's own.
    """
    return _Reader(script, variable).read()


def severed(script: bytes) -> str | None:
    """Return what ``script`` ends in where a word that comes after it would be no argument; None where it would.

    Keywords are not known: after `!` the word would be a command, after `fi` a mistake.
    """
    script = script.rstrip()
    reader = _Reader(script, lambda _: None)
    reader.read()
    if reader.in_document:
        return "a here-document"
    if reader.in_comment:
        return "a comment"
    if reader.in_commands() and _ASSIGNMENTS.search(script):
        return "an assignment"
    return _SEVERING.get(reader.last)


class _Document(NamedTuple):
    """A here-document that was announced."""

    end: bytes
    literal: bool  # a part of the word was quoted: the shell replaces nothing in the body
    indented: bool  # `<<-`: tabs may come before the end

    @classmethod
    def of(cls, announced: re.Match[bytes]) -> _Document:
        dash, word = announced.groups()
        parts = (
            single or _ESCAPED.sub(rb"\1", double) or one or plain for single, double, one, plain in _PART.findall(word)
        )
        return cls(b"".join(parts), any(quote in word for quote in (b"'", b'"', b"\\")), bool(dash))

    def body(self, script: bytes, place: int, *, in_backticks: bool) -> re.Match[bytes] | None:
        """Match the body that begins at ``place``, with the line that ends it; the first group is without that."""
        # Where the shell joins lines, what follows a backslash at the end of one is no line of its own.
        line, joined = (rb"[^\n]*\n", b"") if self.literal else (rb"(?:\\.|[^\\\n])*\n", rb"(?:\\\n)*")
        end = joined + (rb"\t*" if self.indented else b"") + re.escape(self.end)
        after = rb"[\n`]|\Z" if in_backticks else rb"\n|\Z"
        return re.compile(rb"((?:%s)*?)%s(?=%s)" % (line, end, after), re.DOTALL).match(script, place)


class _Reader:
    """Reads a script, or the body of a here-document, as far as it takes to know in which quotes a place is."""

    def __init__(self, script: bytes, variable: Variable, *within: bytes) -> None:
        self._script, self._variable = script, variable
        self._place = 0
        self._open = [*within]  # what closes what is open, the innermost last
        self._made: list[bytes] = []
        self._announced: list[_Document] = []  # those whose bodies come after this line
        self.in_comment = False
        self.in_document = False  # the last line is one of a here-document

    @property
    def last(self) -> bytes:
        """The last that was read."""
        return self._made[-1] if self._made else b""

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
        elif self.in_commands() and (announced := _DOCUMENT.match(script, place)):
            self._announced.append(_Document.of(announced))
            self._take(len(announced[0]))
        elif character == b"\n" and self._announced and self.in_commands():
            self._bodies()
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

    def _bodies(self) -> None:
        """Take a newline and the bodies of the here-documents that were announced before it; no quote opens there."""
        documents, self._announced = self._announced, []
        for document in documents:
            self._take(1)
            found = document.body(self._script, self._place, in_backticks=b"`" in self._open)
            if found is None:
                self.in_document = True
                return
            body = found[1] if document.literal else _Reader(found[1], self._variable, _BODY).read()
            self._put(body + found[0][len(found[1]) :], len(found[0]))
        self.in_document = self._place == len(self._script)

    def _bracket(self, character: bytes) -> int:
        """Open or close what ``character`` does, and return how long that is."""
        innermost = self._open[-1] if self._open else b""
        if innermost and self._script.startswith(innermost, self._place):
            self._open.pop()
            return len(innermost)
        if character == b"`" and b"`" in self._open:
            del self._open[self._open.index(b"`") :]
        elif character == b"`" or (character == b'"' and self._around() != _BODY):
            self._open.append(character)
        elif character == b"(" and self.in_commands():
            self._open.append(b")")
        return 1

    def in_commands(self) -> bool:
        """Say whether commands stand here, and not a text in quotes or the word of a `${…}`."""
        return (self._open[-1] if self._open else b"") in _COMMANDS

    def _in_double(self) -> bool:
        """Say whether a quote here would be one within double quotes; in arithmetic it is none at all."""
        return self._around() in _DOUBLE

    def _around(self) -> bytes:
        """Return what closes the innermost that is open and no `${…}`, which leaves the quotes as they are."""
        return next((closer for closer in reversed(self._open) if closer != b"}"), b"")

    def _begins_comment(self) -> bool:
        before = self._script[self._place - 1 : self._place]
        return self.in_commands() and (not before or before in _BEFORE_COMMENT)
