"""What the commands of `map` print, item by item as they end, beside the view of how the job goes."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from jobd.cli.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.printed import Output, Watch
    from jobd.store import Store

READER_GONE: Final = (errno.EPIPE, errno.EIO)  # the latter of a terminal that was closed


class Quiet:
    """Where there is no terminal: nothing of how the job goes, but what a signal has done is said."""

    interval = 0.1

    def __init__(self, session: Session) -> None:
        self._session = session

    def update(self, job: Job, record: dict[str, Any]) -> None:
        """Show nothing."""

    def foot(self, line: str) -> None:
        """Say it."""
        self._session.say(line)

    def close(self) -> None:
        """Nothing to take back."""


class Printing:
    """A view that prints first what has ended since the last look, and then shows the job in ``shown``."""

    interval = 0.1

    def __init__(
        self, session: Session, shown: View, watch: Watch, store: Store, *, in_order: bool, tagged: bool
    ) -> None:
        self._session, self._shown = session, shown
        self._watch, self._store = watch, store
        self._in_order, self._tagged = in_order, tagged
        self.cut = 0  # items whose output was not there whole
        self.failure: OSError | None = None  # why no more is printed; whoever read has gone where it is BrokenPipeError

    def update(self, job: Job, record: dict[str, Any]) -> None:
        """Print, then show."""
        found = iter(self._watch.in_order(self._store) if self._in_order else self._watch.ended(self._store))
        first = next(found, None)
        if first is not None:
            panel = self._session.panel
            if panel is None:
                self._print(first, found)
            else:
                panel.above(lambda: self._print(first, found))
        self._shown.update(job, record)

    def foot(self, line: str) -> None:
        """Say what Ctrl-C does, or what is happening."""
        self._shown.foot(line)

    def close(self) -> None:
        """Leave the screen as it should stay."""
        self._shown.close()

    def _print(self, first: Output, rest: Iterator[Output]) -> None:
        # What stands on the terminal already was written as text, and may wait in its own buffer.
        sys.stderr.flush()
        self._item(first)
        for one in rest:
            self._item(one)

    def _item(self, one: Output) -> None:
        if self.failure is not None:
            return
        tag = f"{escape(one.key)}\t".encode() if self._tagged else b""
        self.cut += one.cut
        try:
            self._copy(one.stdout(), sys.stdout, tag)
        except OSError as error:
            self.failure = error
            return
        # Where nobody hears what is said, that is no reason not to print.
        try:
            self._copy(one.stderr(), sys.stderr, tag)
            if one.cut:
                sys.stderr.write(f"{escape(one.key)}: only the last 64 KiB of what it printed are there\n")
                sys.stderr.flush()
        except OSError:
            pass

    def _copy(self, chunks: Iterator[bytes], stream: TextIO, tag: bytes) -> None:
        last = b""
        for chunk in chunks:
            stream.buffer.write(_tagged(chunk, tag, begins=not last or last.endswith(b"\n")) if tag else chunk)
            last = chunk
        if last and not last.endswith(b"\n") and (tag or (self._session.panel is not None and stream.isatty())):
            # The next line is another item's, or the panel's.
            stream.buffer.write(b"\n")
        stream.buffer.flush()


def _tagged(chunk: bytes, tag: bytes, *, begins: bool) -> bytes:
    """Return the chunk with a tag before each line that begins in it."""
    pieces = chunk.split(b"\n")
    lines = [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
    return b"".join((tag if place or begins else b"") + line for place, line in enumerate(lines))
