"""Named points at which a test ends what runs, as a power cut would.

A point costs one look at an empty dict. Nothing but a test arms one.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What a crash at each of them leaves, for whoever tests what comes after it. Those that a user's own test can reach.
RUNNING: Final[Mapping[str, str]] = {
    "claim.before_commit": "the item is claimed, and the claim is not written: it is queued still",
    "claim.after_commit": "the item is running, and its handler has not begun",
    "handler.before": "the item is running, and its handler is about to begin",
    "handler.after": "the handler has returned, and nobody knows of it: the item is running",
    "settle.before_commit": "the outcome is about to be written, and is not: the item is running",
    "settle.after_commit": "the outcome is written, and nothing that follows it was done",
}
# Those of a schedule, which a test can reach as well.
FIRING: Final[Mapping[str, str]] = {
    "fire.before_commit": "a schedule's job is about to be written, and is not: its slot has not fired",
    "fire.after_commit": "a schedule's job is queued, its slot has fired, and nobody was told of it",
}
# Those of the file as a whole, which end a process for good.
_WHOLE: Final = (
    "restore.copied",
    "restore.kept",
    "restore.cleared",
    "restore.replaced",
    "migrate.copied",
    "migrate.before_commit",
    "migrate.after_commit",
)
# Every point there is; arming another name is a test that would never crash.
NAMES: Final = (*RUNNING, *FIRING, *_WHOLE)
_armed: dict[str, tuple[int, Callable[[str], None]]] = {}


class Crash(BaseException):
    """Stands for the end of the process where a test wants to go on after it: nothing may catch it and clean up."""


def kill(name: str) -> None:  # noqa: ARG001 - one of the ways to end at a point
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str, count: int = 1, *, end: Callable[[str], None] = kill) -> None:
    """Make the ``count``-th reach of ``name`` call ``end(name)``: by default it kills this process.

    Raises:
        ValueError: there is no such point.
    """
    if name not in NAMES:
        raise ValueError(name)
    _armed[name] = (count, end)


def disarm(name: str) -> None:
    """Let ``name`` be passed again."""
    _armed.pop(name, None)


def reach(name: str) -> None:
    """Go on, or end here when a test has armed this point."""
    if _armed and name in _armed:
        count, end = _armed[name]
        if count > 1:
            _armed[name] = (count - 1, end)
            return
        # Once: what recovers from the crash passes here, too.
        del _armed[name]
        end(name)
