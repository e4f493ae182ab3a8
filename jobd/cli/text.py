"""Text as a terminal may see it: escaped, measured, cut.

What the store holds was written by others. A key or an error message with an ESC in it could repaint the screen, one
with a newline could forge a row, one with a right-to-left override could reverse what is read; so nothing stored
reaches a terminal or a TSV field but through here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# C0, DEL and C1; every format character but the two joiners that scripts and emoji need (bidi controls, soft hyphen,
# zero-width space, tags); line and paragraph separators; lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]",
)


def escape(text: str) -> str:
    """Return ``text`` with every character that is not plainly visible written as a backslash escape."""
    return _UNSAFE.sub(_escaped, text)


def escape_lines(text: str) -> str:
    """As ``escape``, for text of several lines: newlines and tabs are kept."""
    return "\n".join("\t".join(escape(part) for part in line.split("\t")) for line in text.split("\n"))


def escape_json(document: str) -> str:
    """Return a JSON text in which the same characters are JSON escapes; newlines of its layout are kept."""
    return "\n".join(_UNSAFE.sub(_escaped_in_json, line) for line in document.split("\n"))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _escaped_in_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def width(text: str) -> int:
    """Return how many columns ``text`` takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in {"Mn", "Me", "Cf"} else 1


def cut(text: str, columns: int) -> str:
    """Return ``text`` in at most ``columns``, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    taken = 0
    for position, character in enumerate(text):
        taken += _columns(character)
        if taken > columns - 1:
            return text[:position] + "…"
    return text


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return ``text`` cut or filled to exactly ``columns``, against the right edge where asked."""
    text = cut(text, columns)
    blank = " " * (columns - width(text))
    return blank + text if right else text + blank
