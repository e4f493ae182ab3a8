"""What a dispatcher asks of whoever runs attempts for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.engine.runner import Attempt


class Executor(Protocol):
    """Runs ``size`` attempts at once and delivers an outcome for each that it began.

    ``abandoned`` counts what was given up and runs on; it costs places where there are too many of those.
    """

    size: int
    abandoned: int

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""

    def abandon(self, attempt: Attempt) -> None:
        """Give up an attempt that has begun: its place is another's, its outcome is delivered when it returns."""

    def close(self) -> None:
        """Begin nothing more."""
