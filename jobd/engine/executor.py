"""What a dispatcher asks of whoever runs attempts for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome


Deliver = Callable[["Attempt", "Outcome"], None]


class Executor(Protocol):
    """Runs ``size`` attempts at once and delivers an outcome for each that it began.

    ``shares_process`` says whether an item that crashes takes the daemon along; ``tells_late`` whether an attempt that
    was given up and runs on is delivered when it returns, however it does.
    """

    shares_process: bool
    tells_late: bool

    @property
    def size(self) -> int:
        """How many attempts may run at once; fewer where it has lost places, more where tasks have been added."""

    @property
    def abandoned(self) -> int:
        """How many attempts were given up and run on."""

    @property
    def spare(self) -> int:
        """How many more attempts can be given up, and each leave its place to another."""

    @property
    def ailment(self) -> str | None:
        """Why it runs less than it should; None while it is well."""

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts over; they run in this order."""

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""

    def oldest(self) -> float | None:
        """Return the awake time at which the first in line was claimed; None where nobody waits."""

    def cancel(self, attempt: Attempt) -> None:
        """Its job is being cancelled: end it where it can be ended. ``attempt.cancelled`` says so already."""

    def abandon(self, attempt: Attempt) -> None:
        """Give up an attempt that has begun: its place is another's, its outcome is delivered when it returns."""

    def close(self) -> None:
        """Begin nothing more."""
