"""When to look for interrupted items that may run: in rounds over all of them, and no round twice for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

PAUSE: Final = 0.1  # seconds of rest after a round that found nothing, whatever happens in the store
LONGEST: Final = 60.0  # and after so many another round begins, though nothing seems to have changed


class Rounds:
    """``after`` is the last job that the round has looked at, 0 at its beginning. Times are awake time, in seconds.

    After a round that found nothing another is worth it when ``state``, whatever the caller makes of it, has become
    another: an idle daemon does not look at all, a busy one ten times a second, which is what ``pause`` says.
    """

    def __init__(self, pause: float = PAUSE) -> None:
        self.after = 0
        self._pause = pause
        self._found = False
        self._state: Hashable = None
        self._ended: float | None = None

    def wait(self, state: Hashable, awake: float) -> float:
        """Return for how many seconds there is nothing to look for; 0 to look now."""
        if self._ended is None:
            return 0.0
        rest = LONGEST if state == self._state else self._pause
        return max(0.0, self._ended + rest - awake)

    def looked(self, state: Hashable, awake: float, *, last: int, found: bool) -> None:
        """One look of the round is over, and with ``last`` 0 the round."""
        if not self.after:
            # What changes while it goes round may have changed behind it.
            self._state, self._found = state, False
        self._found = self._found or found
        self.after = last
        self._ended = None if last or self._found else awake
