"""What every peer runs: ``run(number)``, which does what ``use`` was told last, and two ways to watch it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT: Final = 0.005  # seconds that a unit takes which takes any
_PATIENCE: Final = 120.0

_work: list[Callable[[int], None]] = []


def use(work: Callable[[int], None]) -> None:
    """Say what a unit does, once for the whole process: peers find ``run`` by its name, also after a restart."""
    _work[:] = [work]


def run(number: int) -> None:
    """Run a unit. It returns nothing, so that nobody pays for a result that the others do not have."""
    _work[0](number)


class Count:
    """Units that are counted: when the first of them began and the last ended, by time.perf_counter()."""

    def __init__(self, last: int, seconds: float = 0.0) -> None:
        self.began = self.ended = 0.0
        self._last = last
        self._seconds = seconds
        self._begun, self._done = itertools.count(1), itertools.count(1)
        self._all = threading.Event()

    def __call__(self, number: int) -> None:
        del number
        if next(self._begun) == 1:
            self.began = time.perf_counter()
        if self._seconds:
            time.sleep(self._seconds)
        if next(self._done) == self._last:
            self.ended = time.perf_counter()
            self._all.set()

    def wait(self) -> None:
        if not self._all.wait(_PATIENCE):
            left = self._last - next(self._done) + 1
            raise TimeoutError(f"{left} of {self._last} units had not ended after {_PATIENCE:.0f} s")


class Starts:
    """The moment when each unit began, by time.perf_counter()."""

    def __init__(self) -> None:
        self._at: dict[int, float] = {}
        self._came = threading.Condition()

    def __call__(self, number: int) -> None:
        now = time.perf_counter()
        with self._came:
            self._at[number] = now
            self._came.notify_all()

    def of(self, number: int) -> float:
        with self._came:
            if not self._came.wait_for(lambda: number in self._at, _PATIENCE):
                raise TimeoutError(f"unit {number} did not start within {_PATIENCE:.0f} s")
            return self._at[number]


class Witness:
    """Writes ``s NUMBER`` and ``e NUMBER`` around each unit to a file that no peer knows; a kill takes nothing back."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, number: int) -> None:
        os.write(self._file, b"s %d\n" % number)
        time.sleep(SHORT)
        os.write(self._file, b"e %d\n" % number)
