"""DBOS on SQLite: workflows on a queue, submitted by its client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from dbos import DBOS, DBOSClient

from beside import normal, units
from beside.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_QUEUE: Final = "units"
# One second unless told otherwise, which would be its latency and, by what it claims each time, its pace.
_POLL: Final = 0.02


class Adapter(Peer):
    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        normal.everywhere()
        self._url = f"sqlite:///{folder / 'dbos.db'}"
        with self.working(1):  # makes the tables
            pass
        self._client = DBOSClient(system_database_url=self._url)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._client.enqueue({"workflow_name": "run", "queue_name": _QUEUE}, number)

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        DBOS(
            config={
                "name": "beside",
                "system_database_url": self._url,
                "application_version": "1",
                "max_executor_threads": workers,
                "run_admin_server": False,
                "log_level": "ERROR",
            }
        )
        DBOS.workflow(name="run")(units.run)
        DBOS.launch()
        DBOS.register_queue(_QUEUE, polling_interval_sec=_POLL)
        try:
            yield
        finally:
            DBOS.destroy()
