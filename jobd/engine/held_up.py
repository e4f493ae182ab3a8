"""Whether what was claimed has found no slot, whatever was counted, so that more of it would only wait as well."""

from __future__ import annotations

from typing import Final

FIRST: Final = (
    1.0  # seconds for which nothing more is claimed, unless anything ends; longer each time that it is in vain
)
LONGEST: Final = 60.0


class HeldUp:
    """Of one executor. Times are awake time.

    An end says that there is a slot. Where what runs takes hours none may come, though the slots are free: those who
    were slow to take theirs, on a busy machine, have it by now. So it is tried again after a while.
    """

    def __init__(self) -> None:
        self._until: float | None = None
        self._pause = FIRST

    def __bool__(self) -> bool:
        return self._until is not None

    def begin(self, awake: float) -> None:
        """Something waited too long for its slot."""
        if self._until is None:
            self._until = awake + self._pause
            self._pause = min(2 * self._pause, LONGEST)

    def end(self) -> bool:
        """There is a slot; say whether that was waited for."""
        waited = bool(self)
        self._until, self._pause = None, FIRST
        return waited

    def left(self, awake: float) -> float | None:
        """Return for how many more seconds nothing more is claimed; None where it is tried again."""
        if self._until is not None and awake >= self._until:
            self._until = None
        return None if self._until is None else self._until - awake
