"""What an adapter is: one file for each peer, with these functions and nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

from beside import units

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

# Where a lease must run out before a killed unit is anybody's again, this is it in the experiment, in seconds.
LEASE: Final = 2.0


class Peer:
    """A queue of ``units.run`` in a folder: opened where it is there, else made.

    ``killed`` says that it is for the experiment with kills, where leases are short.
    """

    submits_many: ClassVar[bool] = False
    submits_one: ClassVar[bool] = True

    def __init__(self, folder: Path, *, killed: bool = False) -> None:
        raise NotImplementedError

    def submit(self, numbers: Sequence[int]) -> None:
        """Submit units, each by a call of its own."""
        raise NotImplementedError

    def submit_many(self, numbers: Sequence[int]) -> None:
        """Submit units by one call, where the peer has one."""
        raise NotImplementedError

    def working(self, workers: int) -> AbstractContextManager[Any]:
        """Run units in threads of this process, as long as the context lasts."""
        raise NotImplementedError

    def settled(self, count: int) -> None:
        """Wait until the end of so many units is in the store; most write each end before they go on."""

    def drained(self, numbers: Sequence[int], workers: int, seconds: float) -> float:
        """Return how long it takes to run so many units that are there already, from the first one's start."""
        counted = units.Count(len(numbers), seconds)
        units.use(counted)
        self.fill(numbers)
        with self.working(workers):
            counted.wait()
            self.settled(len(numbers))
            return counted.ended - counted.began

    def fill(self, numbers: Sequence[int]) -> None:
        """Submit units the quicker way."""
        (self.submit_many if self.submits_many else self.submit)(numbers)

    def serve(self, workers: int, ready: Path) -> None:
        """Run units until a signal ends this process, by the peer's own handling of signals where it has one."""
        with self.working(workers):
            ready.touch()
            threading.Event().wait()
