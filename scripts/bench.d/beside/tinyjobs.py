"""tinyjobs: a worker embedded by serve() as its documentation has it for servers; by itself where it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Final

from tinyjobs import TinyJobs

from beside import units
from beside.peer import LEASE, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# One by default: the unit that runs when the process is killed would be failed, not run again.
_ATTEMPTS: Final = 5


class Adapter(Peer):
    def __init__(self, folder: Path, *, killed: bool = False) -> None:
        self._url = f"sqlite:///{folder / 'tinyjobs.db'}"
        self._leases = {"lease_seconds": LEASE, "reap_interval": LEASE / 2} if killed else {}
        self._opened()

    def _opened(self) -> None:
        self._app = TinyJobs(self._url)
        self._task = self._app.task(units.run, name="run", max_attempts=_ATTEMPTS)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._task.enqueue(number)

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        """An app belongs to the loop that it was opened in: what submitted before is closed."""
        self._app.close()
        self._opened()
        runs, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            async with self._app.serve(worker=True, concurrency=workers):
                runs.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        runs.wait()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    def serve(self, workers: int, ready: Path) -> None:
        self._app.close()
        self._opened()
        ready.touch()
        self._app.worker(concurrency=workers, **self._leases).run()
