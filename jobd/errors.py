"""What can go wrong, one class for each decision that a caller can make.

Every message is one line that says what happened and where; ``hint`` is the command or the change that mends it;
``exit_code`` is what the command line leaves with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobdError(Exception):
    """Base of everything that jobd raises."""

    exit_code: ClassVar[int] = 1
    hint: str | None = None

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class UsageError(JobdError, ValueError):
    """A setting, a name or an argument that cannot be meant; nothing was done."""

    exit_code = 2


class InvalidItem(UsageError):
    """An item whose key or payload cannot be stored. ``position`` counts from 0."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"item {position}: {reason}")
        self.position = position


class DuplicateKeys(UsageError):
    """Keys that occur twice in one submission; ``keys`` holds the first 20 of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        shown = ", ".join(ascii(key) for key in keys)
        super().__init__(
            f"duplicate keys in one submission: {shown}", hint='submit(…, duplicates="skip") keeps the first'
        )
        self.keys = tuple(keys)


class NotFound(JobdError, LookupError):
    """No such job, item, task or result."""

    exit_code = 3


class Conflict(JobdError):
    """The store holds something that forbids this; nothing was changed."""

    exit_code = 4


class ChangedInput(Conflict):
    """A known key came with another payload, or the job with other params. ``keys`` holds the first 20."""

    def __init__(self, job_id: int, keys: Sequence[str], *, params: bool) -> None:
        what = "params" if params else "payloads of " + ", ".join(ascii(key) for key in keys)
        super().__init__(
            f"job {job_id} is known with other {what}",
            hint='submit(…, changed="keep") leaves them, changed="requeue" runs them again',
        )
        self.job_id = job_id
        self.keys = tuple(keys)


class IllegalTransition(Conflict):
    """No edge leads there from the present status."""

    def __init__(self, what: str, edge: str, status: str, legal: Sequence[str]) -> None:
        exist = ", ".join(legal) or "none"
        super().__init__(f"{what} is {status}: it cannot {edge}", hint=f"from {status} it can: {exist}")
        self.edge = edge
        self.status = status
        self.legal = tuple(legal)


class StoreBusy(JobdError):
    """Another process kept the database locked for longer than the retries, or the disk is full."""

    exit_code = 5


class StoreUnusable(JobdError):
    """The file cannot be used as it is: corrupt, read-only, moved, of another application or a newer schema."""

    exit_code = 6


class DaemonRunning(JobdError):
    """Another daemon holds the file's lock."""

    exit_code = 7


class NoDaemon(JobdError):
    """Nobody alive runs this task."""

    exit_code = 7


class Fail(JobdError):
    """Raised by a handler: the item failed for good, no more tries."""


class Retry(JobdError):
    """Raised by a handler: try again ``after`` a while (seconds, or text like "5m"), or by the task's backoff.

    It counts as a failure: with the last of the task's ``retries`` the item fails.
    """

    def __init__(self, message: str = "", *, after: float | str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class Skip(JobdError):
    """Raised by a handler: there is nothing to do for this item; the reason is kept."""


class Deferred(BaseException):
    """Raised by ``ctx.defer`` to leave the handler: no ``except Exception`` keeps it. Let it pass."""


class Cancelled(JobdError):
    """Raised inside a handler whose job is being cancelled or failed."""

    exit_code = 4


class Lost(JobdError):
    """Raised inside a handler whose attempt is no longer the item's: nothing that it says is recorded."""

    exit_code = 4
