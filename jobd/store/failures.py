"""Why a write could not be stored: it may go through later, or the database will never take it."""

from __future__ import annotations

from jobd.errors import JobdError, StoreBusy


class Transient(StoreBusy):
    """Busy, full or an I/O error: the same write may go through later. ``reason`` is one or two words."""

    def __init__(self, message: str, *, reason: str, waited: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.waited = waited


class Permanent(JobdError):
    """A constraint, a value or a text that the database will never take; the cause is ``__cause__``."""
