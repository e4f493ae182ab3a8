"""What it means that a handler returned or raised, in plain values that travel.

It knows of no store: also where handlers run apart from their daemon, nothing more is needed to say what came of them.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd import measures
from jobd.codec import NotStorable
from jobd.context import storable, tail
from jobd.errors import Cancelled, Deferred, Fail, Lost, Retry, Skip, UsageError
from jobd.states import CANCELLED, FAILED, SKIPPED
from jobd.store.outcome import DEFERRED

if TYPE_CHECKING:
    from jobd.store.outcome import Kind, Printed

_ERROR_LIMIT: Final = 4096
_OURS: Final = os.path.join(os.path.dirname(__file__), "")  # noqa: PTH118, PTH120 - the beginning of a text


class Answer(NamedTuple):
    """What a handler's call came to.

    ``value`` is JSON text, ``trace`` is kept with what was logged. ``wanted`` says that it is tried again where its
    task has a try left, ``after`` in how many seconds where the handler said so. ``deferral`` holds the fields of a
    ``Deferral``, of one that was left waiting. ``printed`` is what a command left.
    """

    kind: Kind
    value: str | None = None
    error_type: str | None = None
    error: str | None = None
    trace: str | None = None
    wanted: bool = False
    after: float | None = None
    deferral: tuple[Any, ...] | None = None
    printed: Printed | None = None


def answer_to(error: BaseException, retry_on: tuple[type[BaseException], ...]) -> Answer:
    """Return what it means that a handler raised ``error``; one of ``retry_on`` is tried again."""
    try:
        return _answer_to(error, retry_on)
    except BaseException as second:  # noqa: BLE001 - an exception's class is the user's own code, too
        return Answer(FAILED, None, "Exception", f"(it cannot be looked at: {type(second).__name__})")


def _answer_to(error: BaseException, retry_on: tuple[type[BaseException], ...]) -> Answer:
    match error:
        case NotStorable():
            return Answer(FAILED, error=_text(error))
        case Deferred():
            return Answer(DEFERRED, error=error.args[0], deferral=error.args)
        case Skip():
            return Answer(SKIPPED, None, "Skip", _text(error))
        case Fail():
            return Answer(FAILED, None, "Fail", _text(error))
        case Cancelled():
            return Answer(CANCELLED, None, "Cancelled", _text(error))
        case Lost():
            # The store will refuse this outcome by its attempt and leave an event.
            return Answer(FAILED, None, "Lost", _text(error))
        case Retry():
            return Answer(FAILED, None, "Retry", _text(error), wanted=True, after=_seconds(error.after))
        case _:
            wanted = isinstance(error, retry_on)
            return Answer(FAILED, None, type(error).__name__, _text(error), _trace(error), wanted)


def _seconds(after: object) -> float | None:
    try:
        return None if after is None else measures.duration(after)
    except UsageError:
        return 0.0 if type(after) in {int, float} and after == 0 else None


def _text(error: BaseException) -> str:
    """Return an exception's message, bounded and storable, even where its ``__str__`` raises."""
    try:
        text = str.__str__(str(error))  # a plain one, also of a subclass with methods of its own
    except BaseException as second:  # noqa: BLE001 - the user's own code again
        text = f"(its message cannot be read: {type(second).__name__})"
    return tail(storable(text or type(error).__name__), _ERROR_LIMIT)[0]


def _trace(error: BaseException) -> str:
    """Return the traceback below our own frames."""
    with contextlib.suppress(BaseException):  # formatting runs the user's own code; the error itself is kept
        frames = traceback.TracebackException(type(error), error, error.__traceback__)
        frames.stack = traceback.StackSummary.from_list([f for f in frames.stack if not f.filename.startswith(_OURS)])
        return storable("".join(frames.format()).rstrip())
    return ""


def output(logged: tuple[str, bool] | None, trace: str | None) -> tuple[str, bool] | None:
    """Return what is kept of an attempt and whether its beginning was cut: what it logged, and its traceback."""
    if not trace:
        return logged
    text, cut = tail(f"{logged[0]}\n{trace}" if logged else trace)
    return text, cut or bool(logged and logged[1])
