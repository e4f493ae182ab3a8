"""What rings the passes: the ``schedule`` library in one thread, with callbacks that never raise."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import TYPE_CHECKING, Final, cast

import schedule

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("jobd.maintenance")

_SHORTEST: Final = 0.01


class Scheduler:
    """Rings each beat every so many seconds, and at once when asked. ``wait`` makes the thread's sleep testable."""

    def __init__(self) -> None:
        # A private one: the library's default scheduler belongs to the user's program.
        self._schedule = schedule.Scheduler()
        self._beats: dict[str, Callable[[], None]] = {}
        self._due: dict[str, Callable[[], float | None]] = {}
        self._asked: set[str] = set()
        self._changed = threading.Condition()
        self._stopped = False

    def every(self, seconds: float, name: str, beat: Callable[[], None]) -> None:
        """Add a beat. Its errors are logged, not raised: one failing beat must not starve the others."""
        self._beats[name] = beat
        # Declared for whole seconds, the library only adds them up.
        self._schedule.every(cast("int", max(_SHORTEST, seconds))).seconds.do(self._ring, name)

    def as_due(self, name: str, beat: Callable[[], None], due: Callable[[], float | None]) -> None:
        """Add a beat that rings when it is due: ``due`` says in how many seconds, None for not until it is asked.

        Whatever makes it due sooner than it said has to ask for it.
        """
        self._beats[name] = beat
        self._due[name] = due

    def on_demand(self, name: str, beat: Callable[[], None]) -> None:
        """Add a beat that rings only when asked."""
        self._beats[name] = beat

    def ask(self, name: str) -> None:
        """Have one beat rung now, in the scheduler's thread."""
        with self._changed:
            self._asked.add(name)
            self._changed.notify()

    @property
    def stopped(self) -> bool:
        """Say whether it was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Let ``run`` return after the beat that it is in."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Ring until stopped."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or bool(self._asked), self._idle())
                if self._stopped:
                    return
                asked, self._asked = self._asked, set()
            for name in asked:
                self._ring(name)
            self.run_pending()

    def run_pending(self) -> None:
        """Ring what is due."""
        self._schedule.run_pending()
        # The library lives in naive local time: where the clock goes back (an hour of autumn), its next run would be
        # an hour away.
        latest = dt.datetime.now()  # noqa: DTZ005 - the library's own kind of time
        for job in self._schedule.get_jobs():
            period = dt.timedelta(seconds=job.interval)
            if job.next_run is not None and job.next_run > latest + period:
                job.next_run = latest + period
        for name, due in self._due.items():
            seconds = due()
            if seconds is not None and seconds <= 0:
                self._ring(name)

    def _idle(self) -> float:
        idle = self._schedule.idle_seconds
        shortest = min((job.interval for job in self._schedule.get_jobs()), default=1)
        beats = min(max(0.0, idle), shortest) if idle is not None else 1.0
        return min(beats, *(max(0.0, seconds) for due in self._due.values() if (seconds := due()) is not None), beats)

    def _ring(self, name: str) -> None:
        if self._stopped:
            return
        try:
            self._beats[name]()
        except Exception:
            log.exception("the pass %s failed", name)
