"""How long this process stood still: stopped by a signal, as by Ctrl-Z, while its clocks went on."""

from __future__ import annotations

from typing import Final

from jobd import clock

STOOD: Final = 10.0  # seconds: no round of the dispatcher takes as long, even where the database is locked elsewhere


class Standstill:
    """Noticed by the dispatcher, which goes round once a second at least; others may ask before it does."""

    def __init__(self) -> None:
        self._at = clock.real()
        self._total = 0.0

    def goes(self) -> float:
        """Say that the dispatcher goes round, and return for how many seconds it has not; 0.0 where it always did."""
        real = clock.real()
        stood = real - self._at
        if stood < STOOD:
            stood = 0.0
        # In this order: who asks in between may count it twice, but not miss it.
        self._total += stood
        self._at = real
        return stood

    @property
    def total(self) -> float:
        """All of it so far in seconds, noticed or not."""
        pending = clock.real() - self._at
        return self._total + (pending if pending >= STOOD else 0.0)
