"""Logging about one trouble: the first lines, and then at most two a minute."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd import clock

if TYPE_CHECKING:
    import logging

LINES: Final = 2
PERIOD: Final = 60.0


class Sparingly:
    """Passes on at most two warnings a minute."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._recent: collections.deque[float] = collections.deque(maxlen=LINES)

    def warning(self, message: str, *args: object) -> None:
        """Log the line, or leave it out."""
        now = clock.awake()
        if len(self._recent) == LINES and now - self._recent[0] < PERIOD:
            return
        self._recent.append(now)
        self._log.warning(message, *args)
