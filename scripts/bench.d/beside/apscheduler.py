"""APScheduler 3, the released series: jobs without a trigger, which run at once, in an SQLAlchemyJobStore."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from beside import normal
from beside.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A job that is late by more than a second is dropped unless it is told otherwise.
_DEFAULTS: Final = {"misfire_grace_time": None}
_POOL: Final = "units"


class Adapter(Peer):
    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        normal.everywhere()
        url = f"sqlite:///{folder / 'apscheduler.db'}"
        self._scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=url)}, job_defaults=_DEFAULTS, executors={}
        )
        # Before it has started, what is submitted is only in memory.
        self._scheduler.start(paused=True)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._scheduler.add_job("beside.units:run", args=[number], executor=_POOL)

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        self._scheduler.add_executor(ThreadPoolExecutor(workers), _POOL)
        self._scheduler.resume()
        try:
            yield
        finally:
            self._scheduler.shutdown()
