"""What a command prints, as it comes: the last 64 KiB of both streams together, and all of it in files where asked."""

from __future__ import annotations

import collections
import os
from typing import Final

LIMIT: Final = 65_536  # bytes of both streams that are kept
_PIECE: Final = 4_096  # smaller ones that come one after another are one
_NAMES: Final = ("out", "err")


class Kept:
    """What one command has printed. ``cut`` says that its beginning is not there any more.

    ``spool`` is the beginning of the names of two files that get everything, once it is more than is kept here; None
    where nobody wants it.
    """

    def __init__(self, spool: str | None) -> None:
        self.cut = False
        self._spool = spool
        self._pieces: collections.deque[tuple[int, bytearray]] = collections.deque()
        self._size = 0
        self._files: list[int] = []

    def add(self, stream: int, data: bytes) -> None:
        """Keep ``data`` of the stream 0 (what it printed) or 1 (its errors)."""
        if not data:
            return
        if self._files:
            self._write(stream, data)
        elif self._spool is not None and self._size + len(data) > LIMIT:
            self._begin_files()
            if self._files:
                self._write(stream, data)
        if self._pieces and self._pieces[-1][0] == stream and len(self._pieces[-1][1]) + len(data) <= _PIECE:
            self._pieces[-1][1].extend(data)
        else:
            self._pieces.append((stream, bytearray(data)))
        self._size += len(data)
        self._trim()

    def end(self) -> tuple[bytes, bytes]:
        """Return what is left of each stream; nothing is added any more."""
        for file in self._files:
            os.close(file)
        self._files = []
        streams = (bytearray(), bytearray())
        for stream, piece in self._pieces:
            streams[stream].extend(piece)
        return bytes(streams[0]), bytes(streams[1])

    def _trim(self) -> None:
        while self._size > LIMIT:
            self.cut = True
            _, first = self._pieces[0]
            excess = self._size - LIMIT
            if len(first) <= excess:
                self._pieces.popleft()
                self._size -= len(first)
            else:
                del first[:excess]
                self._size -= excess

    def _begin_files(self) -> None:
        try:
            for name in _NAMES:
                self._files.append(os.open(f"{self._spool}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        except OSError:
            # Nobody waits for it any more: the folder is gone.
            self._give_up_files()
            return
        for stream, piece in self._pieces:
            if self._files:
                self._write(stream, piece)

    def _write(self, stream: int, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._files[stream], rest) :]
        except OSError:
            # A full disk is no reason to fail a command: its end is kept all the same.
            self._give_up_files()

    def _give_up_files(self) -> None:
        for file in self._files:
            os.close(file)
        self._files, spool, self._spool = [], self._spool, None
        for name in _NAMES:
            try:
                os.unlink(f"{spool}.{name}")  # noqa: PTH108 - no pathlib in a process of which there are many
            except OSError:
                continue
