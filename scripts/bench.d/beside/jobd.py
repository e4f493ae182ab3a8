"""jobd: all units as the items of one job, and in the peers' own shape, a job for each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from beside import units
from beside.peer import Peer
from jobd import Jobd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

_LOOK: Final = 0.002
_ENDED: Final = "select sum(items_completed) from jobs"


class Adapter(Peer):
    """A job for each unit."""

    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        self._app = Jobd(folder / "jobd.db")
        self._task = self._app.task(units.run)
        self._app.writing()

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._task.submit([number])

    def working(self, workers: int) -> AbstractContextManager[Any]:
        return self._app.daemon(workers=workers)

    def settled(self, count: int) -> None:
        """Wait for the store: it writes the ends of many units at once, after the last of them has run."""
        while self._app.store.read(lambda connection: connection.execute(_ENDED).fetchone()[0]) < count:
            time.sleep(_LOOK)

    def serve(self, workers: int, ready: Path) -> None:
        ready.touch()
        self._app.run(workers=workers)


class OneJob(Adapter):
    """One job for all units of a call."""

    submits_many = True
    submits_one = False

    def submit_many(self, numbers: Sequence[int]) -> None:
        self._task.submit(numbers)
