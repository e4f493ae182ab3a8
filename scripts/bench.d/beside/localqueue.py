"""localqueue: its Worker, one for each thread, on a SimpleQueue that they share."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from localqueue import DeliveryPolicy, SimpleQueue, Worker

from beside import units
from beside.peer import LEASE, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Adapter(Peer):
    submits_many = True

    def __init__(self, folder: Path, *, killed: bool = False) -> None:
        policy = DeliveryPolicy(lease_seconds=LEASE) if killed else DeliveryPolicy()
        self._queue: SimpleQueue[int] = SimpleQueue(str(folder), delivery=policy)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._queue.put(number)

    def submit_many(self, numbers: Sequence[int]) -> None:
        self._queue.put_many(numbers)

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        all_of_them = [Worker(self._queue, _run) for _ in range(workers)]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in all_of_them]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for worker in all_of_them:
                worker.stop()
            for thread in threads:
                thread.join()


def _run(job: Any) -> None:
    units.run(job.data)
