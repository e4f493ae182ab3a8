"""Named points at which a test ends the process, as a power cut would.

A point costs one look at an empty dict. Nothing but a test arms one.
"""

from __future__ import annotations

import os
import signal
from typing import Final

# Every point there is; arming another name is a test that would never crash.
NAMES: Final = (
    "claim.before_commit",
    "claim.after_commit",
    "handler.before",
    "handler.after",
    "settle.before_commit",
    "settle.after_commit",
)
_armed: dict[str, int] = {}


def arm(name: str, count: int = 1) -> None:
    """Make the ``count``-th reach of ``name`` kill this process.

    Raises:
        ValueError: there is no such point.
    """
    if name not in NAMES:
        raise ValueError(name)
    _armed[name] = count


def reach(name: str) -> None:
    """Go on, or die here when a test has armed this point."""
    if _armed and name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
