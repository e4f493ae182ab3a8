"""A stream as a place to write for people: colour, glyphs, width, tables, a panel that is drawn again in place.

Everything that reaches it was escaped before; the only escape sequences it knows are the ones it adds itself. Rich is
not used: it costs half of the time that `jobd show` may take, and markup that is never interpreted cannot be injected.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from jobd.cli import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SMALLEST: Final = 20
_USUAL: Final = os.terminal_size((80, 24))
_SGR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2", "bold": "1"}
_ASCII: Final = str.maketrans(
    {
        "✔": "v",
        "✗": "x",
        "▶": ">",
        "·": "-",
        "…": "~",
        "‖": "=",
        "⧖": "w",
        "↷": "s",
        "⊘": "o",
        "×": "x",
        "█": "#",
        "░": ".",
    }
    | dict.fromkeys("▏▎▍▌", " ")
    | dict.fromkeys("▋▊▉", "#"),
)


class Cell(NamedTuple):
    """One cell of a table: escaped text, its colour, and whether it stands against the right edge."""

    text: str
    colour: str = ""
    right: bool = False


class Screen:
    """A text stream, what it can show, and how wide it is."""

    def __init__(self, stream: IO[str], colour: str = "auto") -> None:
        self.stream = stream
        self.tty = _is_terminal(stream)
        self.coloured = _wants_colour(colour, tty=self.tty)
        self._plain = not _can_encode(stream, "✔▶█░")

    @property
    def columns(self) -> int:
        """Return the width to lay out for; COLUMNS wins, and what is too narrow for any layout wraps."""
        return max(SMALLEST, _number("COLUMNS") or self._size().columns)

    @property
    def rows(self) -> int:
        """Return how many lines fit."""
        return max(4, _number("LINES") or self._size().lines)

    @property
    def real_columns(self) -> int:
        """Return where the terminal wraps, whatever COLUMNS asks for."""
        return max(1, self._size().columns)

    def _size(self) -> os.terminal_size:
        try:
            found = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            return _USUAL
        return found if found.columns and found.lines else _USUAL

    def paint(self, words: str, colour: str) -> str:
        """Return ``words`` in ``colour`` where this screen has colours."""
        if not self.coloured or not colour or not words:
            return words
        return f"\x1b[{';'.join(_COLOURS[name] for name in colour.split())}m{words}\x1b[0m"

    def fit(self, line: str) -> str:
        """Return a painted line cut to the width; colours take no columns and are closed."""
        return _cut_painted(line, self.columns)

    def write(self, line: str) -> None:
        """Write one line: cut on a terminal, whole elsewhere."""
        self._send((self.fit(line) if self.tty else line) + "\n")

    def sentence(self, line: str) -> None:
        """Write one line that is never cut: an error, a hint, an id to copy."""
        self._send(line + "\n")

    def raw(self, sequence: str) -> None:
        """Write as it is."""
        self._send(sequence)

    def flush(self) -> None:
        """Hand over what is buffered."""
        self.stream.flush()

    def _send(self, words: str) -> None:
        self.stream.write(words.translate(_ASCII) if self._plain else words)

    def wanted(self, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
        """Return how many columns a table takes where nothing of it gives way."""
        return _across(_widths(header, rows))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, stretch: int | None = None) -> None:
        """Write a table; the column ``stretch`` gives way where the whole is too wide."""
        if not rows:
            return
        widths = _widths(header, rows)
        if stretch is not None and self.tty:
            spare = self.columns - _across(widths)
            widths[stretch] = max(min(8, widths[stretch]), widths[stretch] + min(0, spare))
        last = len(header) - 1
        titles = [
            text.pad(title, widths[place], right=rows[0][place].right)
            if place < last or rows[0][place].right
            else title
            for place, title in enumerate(header)
        ]
        self.write(self.paint("  ".join(titles), "dim"))
        for row in rows:
            cells = [
                self.paint(
                    text.pad(cell.text, widths[place], right=cell.right) if place < last or cell.right else cell.text,
                    cell.colour,
                )
                for place, cell in enumerate(row)
            ]
            self.write("  ".join(cells))


def _widths(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [
        max([text.width(title), *(text.width(row[place].text) for row in rows)]) for place, title in enumerate(header)
    ]


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


class Panel:
    """Some lines at the end of a terminal that are drawn again in place."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lines: list[str] = []

    def draw(self, lines: Iterable[str]) -> None:
        """Put these lines in the place of the former ones; what does not fit on the screen is left out."""
        shown = [self._screen.fit(line) for line in lines][: self._screen.rows - 1]
        self._screen.raw(self._back() + "".join(line + "\n" for line in shown))
        self._screen.flush()
        self._lines = shown

    def above(self, write: Callable[[], None]) -> None:
        """Let ``write`` write above the panel."""
        lines, back = self._lines, self._back()
        self._lines = []
        self._screen.raw(back)
        write()
        self.draw(lines)

    def close(self) -> None:
        """Remove the panel: what comes next is written in its place."""
        self._screen.raw(self._back())
        self._screen.flush()
        self._lines = []

    def _back(self) -> str:
        """Return the sequence that goes back to the panel's first line and clears from there.

        The terminal may have become narrower since: a line that wrapped then takes several rows.
        """
        if not self._lines:
            return ""
        columns = self._screen.real_columns
        height = sum(max(1, -(-text.width(_SGR.sub("", line)) // columns)) for line in self._lines)
        return f"\x1b[{height}A\r\x1b[J"


def bar(columns: int, share: float) -> str:
    """Return a bar of eighths: ``share`` of ``columns`` full."""
    eighths = round(max(0.0, min(1.0, share)) * columns * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]).ljust(columns)


def prepare_streams() -> None:
    """Let no character that a stream cannot encode, and no stream that was closed before we began, end a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def _number(variable: str) -> int:
    """Return a variable that a person may have set to anything; 0 where it says no number."""
    value = os.environ.get(variable, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0


def _wants_colour(choice: str, *, tty: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return tty or bool(os.environ.get("FORCE_COLOR"))


def _can_encode(stream: IO[str], sample: str) -> bool:
    try:
        sample.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cut_painted(line: str, columns: int) -> str:
    if text.width(_SGR.sub("", line)) <= columns:
        return line
    kept: list[str] = []
    left, painted = columns, False
    for part in _SGR.split(line):
        if _SGR.fullmatch(part):
            painted = part != "\x1b[0m"
            kept.append(part)
            continue
        piece = text.cut(part, left)
        kept.append(piece)
        left -= text.width(piece)
        if piece != part or left <= 0:
            break
    return "".join(kept) + ("\x1b[0m" if painted else "")
