"""The only reader of the clock.

The loops and the edges (engine, app, command line) read the time here and hand it on; the store and the passes are
given it. Wall time is what rows hold; awake time is what durations inside one process are measured with, because it
neither jumps nor counts a suspend.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Final

_UTC: Final = dt.UTC
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=_UTC)
_MS: Final = dt.timedelta(milliseconds=1)


def now() -> int:
    """Return the wall time as integer Unix milliseconds (UTC).

    Read through ``datetime``: it is the one clock that freezegun also freezes inside threads.
    """
    return (dt.datetime.now(_UTC) - _EPOCH) // _MS


def awake() -> float:
    """Return the seconds that this machine was awake, from an arbitrary start."""
    return time.monotonic()


def real() -> float:
    """Return the same, and also where a test has stopped the time: by it a process finds out that it was stopped."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
