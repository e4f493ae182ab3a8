"""How much one transaction takes, by how long the last ones held the lock."""

from __future__ import annotations

from typing import Final

HOLD: Final = 0.010  # seconds that one transaction may last
SMALLEST, LARGEST = 64, 2_000
_WANTED: Final = 0.8  # of that


class Batch:
    """``size`` is how many items the next may take; it shrinks with the excess and grows while there is room."""

    def __init__(self) -> None:
        self.size = SMALLEST

    def held(self, seconds: float) -> None:
        """One has held the lock that long."""
        if seconds > HOLD:
            self.size = max(SMALLEST, int(self.size * _WANTED * HOLD / seconds))
        elif seconds < HOLD / 2:
            self.size = min(LARGEST, self.size * 2)
        elif seconds < _WANTED * HOLD:
            self.size = min(LARGEST, int(self.size * _WANTED * HOLD / seconds))
