"""huey: SqliteHuey with threads; its worker leaves at once at SIGTERM, as by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from huey import Huey
from peers import Normal, consumer

from beside import units
from beside.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path


class Adapter(Peer):
    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        self._huey = Huey("beside", storage_class=Normal, filename=str(folder / "huey.db"))
        self._task = self._huey.task()(units.run)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._task(number)

    def working(self, workers: int) -> AbstractContextManager[Any]:
        return consumer(self._huey, workers)

    def serve(self, workers: int, ready: Path) -> None:
        ready.touch()
        self._huey.create_consumer(workers=workers, worker_type="thread", periodic=False).run()
