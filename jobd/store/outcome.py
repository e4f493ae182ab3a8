"""What an attempt reports, and the status in which that leaves its item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from jobd.states import COMPLETED, FAILED, QUEUED, WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

# What an attempt came to: a status to end in, or back to the queue. RELEASED never began; STOPPED was under way when
# its daemon left, INTERRUPTED when its job had made no progress for too long; TIMED_OUT took too long itself;
# RESCHEDULED failed and OVERDUE took too long, and both are tried again at their time; DEFERRED left its item waiting
# for the outside. Plain texts, because an enum's hash costs more than the rest of an outcome.
Kind = Literal[
    "completed",
    "failed",
    "skipped",
    "cancelled",
    "released",
    "stopped",
    "interrupted",
    "timed_out",
    "rescheduled",
    "overdue",
    "deferred",
]
RELEASED: Final = "released"
STOPPED: Final = "stopped"
INTERRUPTED: Final = "interrupted"
TIMED_OUT: Final = "timed_out"
RESCHEDULED: Final = "rescheduled"
OVERDUE: Final = "overdue"
DEFERRED: Final = "deferred"
KINDS: Final = frozenset(get_args(Kind))
BACK: Final = frozenset({RELEASED, STOPPED, INTERRUPTED, RESCHEDULED, OVERDUE})
# What somebody else says of an attempt, whose handler runs on.
GIVEN_UP: Final = frozenset({STOPPED, INTERRUPTED, TIMED_OUT, OVERDUE})
LOOK_AGAIN: Final = BACK - {RELEASED}  # what was under way, and is now queued for its time
RUN_ON: Final = GIVEN_UP - {STOPPED}  # beside a daemon that stays
TARGETS: Final = {**dict.fromkeys(BACK, QUEUED), TIMED_OUT: FAILED, DEFERRED: WAITING}


class Printed(NamedTuple):
    """What a command printed, as far as it is kept: each character stands for a byte, so that it travels as JSON."""

    stdout: str
    stderr: str
    truncated: bool


class Outcome(NamedTuple):
    """What one attempt reports. Times are Unix ms; ``value`` is JSON text; ``output`` is (text, truncated)."""

    item_id: int
    job_id: int
    attempt: int
    task: str
    key: str
    kind: Kind
    started_at: int
    completed_at: int
    value: str | None = None
    error_type: str | None = None
    error: str | None = None
    output: tuple[str, bool] | None = None
    saved: bool = False  # ctx.save_result has stored the result already: the work is declared complete
    period: str | None = None  # that the result of a unique task claims
    refresh: bool = False  # it takes its period over from an older result
    available_at: int = 0  # when an item that is tried again is due
    deferral: Sequence[Any] | None = None  # the fields of a Deferral: under which id it waits, and how
    printed: Printed | None = None


def kind_of(outcome: Outcome) -> Kind:
    """Return what an outcome counts as."""
    # save_result declared the work complete: what the handler did after that does not undo it.
    return COMPLETED if outcome.saved else outcome.kind


def status_of(outcome: Outcome) -> str:
    """Return the status in which an outcome leaves its item."""
    kind = kind_of(outcome)
    return TARGETS.get(kind, kind)


def reason(outcome: Outcome) -> str | None:
    """Return an outcome's error in one line, if it has one."""
    if outcome.error_type and outcome.error:
        return f"{outcome.error_type}: {outcome.error}"
    return outcome.error_type or outcome.error
