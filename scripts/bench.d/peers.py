"""huey, the quickest peer with an SQLite file: threads as its documentation advises, synchronous=NORMAL as jobd has."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from statistics import median
from typing import TYPE_CHECKING

from huey import Huey
from huey.storage import SqliteStorage
from limits import SHORT, THREADS, ideal
from measure import timed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from measure import Scale


class Normal(SqliteStorage):  # type: ignore[misc]
    """Its own switch knows only FULL and OFF."""

    def _create_connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._create_connection()
        connection.execute("pragma synchronous=normal")
        return connection


def peers(folder: Path, scale: Scale) -> dict[str, float]:
    queue = Huey("bench", storage_class=Normal, filename=str(folder / "huey.db"))
    noop, short = _Counted(queue, _nothing), _Counted(queue, lambda: time.sleep(SHORT))
    submitted, drained, slept = [], [], []
    for _ in range(scale.repeats):
        submitted.append(scale.many / timed(lambda: noop.enqueue(scale.many)))
        with consumer(queue, 4):
            drained.append(scale.many / timed(noop.wait))
        short.enqueue(scale.short)
        with consumer(queue, THREADS):
            slept.append(timed(short.wait) / ideal(scale))
    return {"huey-submit": median(submitted), "huey-drain": median(drained), "huey-short": median(slept)}


def _nothing() -> None:
    pass


class _Counted:
    """A task of huey that says when the last of a number of calls has run."""

    def __init__(self, queue: Huey, work: Callable[[], None]) -> None:
        self._ended = threading.Event()
        self._last = 0
        self._calls = itertools.count(1)

        def call(_number: int) -> None:
            work()
            if next(self._calls) == self._last:
                self._ended.set()

        self._task = queue.task(name=f"bench{id(self)}")(call)

    def enqueue(self, count: int) -> None:
        self._ended.clear()
        self._last += count
        for number in range(count):
            self._task(number)

    def wait(self) -> None:
        if not self._ended.wait(120):
            raise TimeoutError("huey did not finish in two minutes")


@contextlib.contextmanager
def consumer(queue: Huey, workers: int) -> Iterator[None]:
    consumer = queue.create_consumer(workers=workers, worker_type="thread", periodic=False)
    consumer.start()
    try:
        yield
    finally:
        consumer.stop(graceful=True)
