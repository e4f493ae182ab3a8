"""What commands print, for who shows it while they run: whole, grouped by item, in constant memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from jobd.spooling import Spools
from jobd.store import printed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from jobd.store import Store

_CHUNK: Final = 65_536


class Output:
    """What an item that has ended printed. Its streams are read while its turn lasts, each once."""

    def __init__(self, ended: printed.Ended, streams: printed.Streams, files: list[int]) -> None:
        self.item_id = ended.item_id
        self.key = ended.key
        self.payload = ended.payload  # JSON
        self.status = ended.status
        self.attempt = ended.attempt
        # Only its last 64 KiB are there.
        self.cut = ended.truncated and not files
        self._kept = streams.stdout, streams.stderr
        self._files = files

    def stdout(self) -> Iterator[bytes]:
        """Yield what it printed, in pieces of up to 64 KiB."""
        return self._pieces(0)

    def stderr(self) -> Iterator[bytes]:
        """Yield its errors, in pieces of up to 64 KiB."""
        return self._pieces(1)

    def _pieces(self, stream: int) -> Iterator[bytes]:
        if self._files:
            while piece := os.read(self._files[stream], _CHUNK):
                yield piece
        elif self._kept[stream]:
            yield self._kept[stream]


class Watch:
    """Somebody shows what the commands of a job print, from the moment that the block is entered.

    Enter it before the submission, and say which job it is as soon as that is known. Until the block is left all of
    what commands print is kept, in files beside the database at ``path`` where it is more than 64 KiB; a file goes when
    the next output is asked for, and the rest when the block is left, by the last of those who wait for it.
    """

    def __init__(self, path: str) -> None:
        self._spools = Spools(path)
        self._job_id = 0
        self._after: int | None = None  # the last output that was there before, or has been shown
        self._began = 0
        self._item = 0  # the last one that was passed in order
        self._last = 0

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            OSError: there is no place for files beside the database.
        """
        self._spools.sweep()
        self._descriptor, self._name = self._spools.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        # Its own file goes as that of one that was killed would, and all that is nobody's any more.
        self._spools.sweep()

    def begin(self, store: Store) -> None:
        """Leave out what has been printed up to now."""
        self._after = self._began = printed.newest(store)

    def follow(self, job_id: int) -> None:
        """Wait for the outputs of this job only."""
        self._name = self._spools.narrow(self._name, job_id)
        self._job_id = job_id

    def ended(self, store: Store) -> Iterator[Output]:
        """Yield the outputs of items that have ended since the last call, in that order, as far as there are any."""
        while True:
            page = printed.by_end(store, self._job_id, self._after or 0)
            for one in page.ended:
                yield from self._output(store, one)
                self._after = one.row
            self._after = page.after
            if not page.more:
                return

    def in_order(self, store: Store) -> Iterator[Output]:
        """Yield the outputs of items in their own order, as far as all before them have ended."""
        while True:
            if self._item >= self._last:
                # Found out rarely, as it is read off all items.
                self._last = printed.last_item(store, self._job_id)
            page = printed.in_order(store, self._job_id, self._item, self._last)
            for one in page.ended:
                if one.row is not None and one.row > self._began:
                    yield from self._output(store, one)
                self._item = one.item_id
            if not page.more:
                return

    def _output(self, store: Store, ended: printed.Ended) -> Iterator[Output]:
        streams = printed.streams(store, ended.item_id)
        if streams is None or streams.attempt != ended.attempt:
            return  # it runs again by now
        found = (self._job_id, ended.item_id, ended.attempt)
        files = self._spools.open(*found) if ended.truncated else []
        try:
            yield Output(ended, streams, files)
        finally:
            for file in files:
                os.close(file)
        if files:
            self._spools.shown(*found)
