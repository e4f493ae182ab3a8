"""litequeue: the loop of its README (pop, work, done) in each thread, on a connection of its own."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from litequeue import LiteQueue

from beside import units
from beside.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# It has no worker: how long to sleep on an empty queue is the user's choice.
_LOOK: Final = 0.005


class Adapter(Peer):
    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        self._path = str(folder / "litequeue.db")
        self._queue = LiteQueue(self._path)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._queue.put(str(number))

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        stop = threading.Event()
        threads = [threading.Thread(target=self._work, args=(stop,), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _work(self, stop: threading.Event) -> None:
        queue = LiteQueue(self._path)
        while not stop.is_set():
            message = queue.pop()
            if message is None:
                stop.wait(_LOOK)
                continue
            units.run(int(message.data))
            queue.done(message.message_id)
        queue.close()
