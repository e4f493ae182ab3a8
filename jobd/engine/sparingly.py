"""Logging about one trouble: the first lines, then at most two a minute; where many things have it, of each once."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd import clock

if TYPE_CHECKING:
    import logging
    from collections.abc import Hashable

LINES: Final = 2
PERIOD: Final = 60.0
AGAIN: Final = 3_600.0
_THINGS: Final = 10_000


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


class OfEach:
    """Tells of the trouble of many things, each of which has it again and again.

    Of each it tells once; with the traceback where the reason is another than that of the one before. The same reason
    of the same thing is told again after an hour, another at once, both as a line and at most two of these a minute.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._again = Sparingly(log)
        self._told: dict[Hashable, tuple[str, float]] = {}
        self._last: str | None = None

    def error(self, thing: Hashable, reason: BaseException, words: str, message: str, *args: object) -> None:
        """Tell that ``thing`` is in trouble, or leave it out; ``words`` are the reason's."""
        now = clock.awake()
        before, at = self._told.pop(thing, (None, now))
        if before == words and 0 <= now - at < AGAIN:
            self._told[thing] = before, at
            return
        if len(self._told) >= _THINGS:
            del self._told[next(iter(self._told))]
        self._told[thing] = words, now
        if before is not None:
            self._again.warning(f"{message}: %s", *args, words)
        elif words == self._last:
            self._log.error(f"{message}: %s", *args, words)
        else:
            self._last = words
            self._log.error(message, *args, exc_info=reason)
