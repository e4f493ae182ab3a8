"""A lane of a daemon's upkeep: a thread with beats of its own, which none of another lane keeps waiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jobd import clock
from jobd.maintenance.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable


class Lane(Scheduler):
    """``guard`` is put round each beat, given its name; ``at_end`` is called in the thread when it ends."""

    def __init__(
        self,
        name: str,
        *,
        guard: Callable[[str, Callable[[], None]], Callable[[], None]],
        at_end: Callable[[], None],
    ) -> None:
        super().__init__()
        self._guard = guard
        self._at_end = at_end
        self._first: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def every(self, seconds: float, name: str, beat: Callable[[], None]) -> None:
        """Add a beat that rings every so many seconds."""
        super().every(seconds, name, self._guard(name, beat))

    def as_due(self, name: str, beat: Callable[[], None], due: Callable[[], float | None]) -> None:
        """Add a beat that rings when ``due`` says so."""
        super().as_due(name, self._guard(name, beat), due)

    def on_demand(self, name: str, beat: Callable[[], None]) -> None:
        """Add a beat that rings only when asked."""
        super().on_demand(name, self._guard(name, beat))

    def begin(self, first: Callable[[], None] | None = None) -> None:
        """Start the thread; ``first`` is the first that it does, then what was asked for until now."""
        self._first = first
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended; one that never began has."""
        if self._thread.is_alive():
            self._thread.join()

    def left(self, until: float, kept: Callable[[], bool]) -> bool:
        """Wait likewise, beyond ``until`` (awake time) only while nothing keeps it that may never end."""
        while self._thread.is_alive():
            self._thread.join(0.1)
            if kept() and clock.awake() >= until:
                return False
        return True

    def _live(self) -> None:
        try:
            if self._first is not None:
                self._guard("begin", self._first)()
            self.run()
        finally:
            self._at_end()
