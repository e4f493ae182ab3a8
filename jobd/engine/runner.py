"""One attempt: call the handler, and make an outcome of whatever it does."""

from __future__ import annotations

import contextlib
import math
import threading
import traceback
from typing import TYPE_CHECKING, Final

from jobd import clock, codec
from jobd.codec import NotStorable
from jobd.context import Context, Line, storable, tail
from jobd.engine.points import Crash, reach
from jobd.errors import Cancelled, Fail, Lost, Skip
from jobd.hooks import idempotency_key
from jobd.states import CANCELLED, COMPLETED, FAILED, SKIPPED
from jobd.store.attempt import save_data, save_intent, save_progress, save_result
from jobd.store.base import Transient
from jobd.store.outcome import Kind, Outcome

if TYPE_CHECKING:
    from jobd.store import Store
    from jobd.store.claim import Claimed
    from jobd.tasks import Task

_LEFT_OPEN: Final = "jobd: the handler left a transaction open; it was rolled back"
_ERROR_LIMIT: Final = 4096


class Attempt:
    """An item in flight: from its claim until its settlement has committed."""

    __slots__ = (
        "abandoned", "began", "began_at", "cancelled", "claimed", "claimed_at", "collected", "context", "period",
        "seconds", "started", "task",
    )  # fmt: skip

    def __init__(self, claimed: Claimed, task: Task[..., object], claimed_at: float) -> None:
        self.claimed = claimed
        self.task = task
        self.claimed_at = claimed_at  # awake time
        self.context: Context | None = None
        self.cancelled = False
        self.started = False
        self.began = 0.0  # awake time
        self.began_at = 0  # Unix ms
        self.abandoned = False  # settled by somebody else while it runs: its own outcome comes late
        self.collected = False  # its outcome waits to be settled
        self.seconds = 0.0
        self.period: str | None = None  # what its result claims, where its task is unique

    def outcome(self, kind: Kind, started_at: int, completed_at: int, error: str | None = None) -> Outcome:
        """Return an outcome of this attempt."""
        claimed = self.claimed
        return Outcome(
            claimed.item_id,
            claimed.job_id,
            claimed.attempt,
            claimed.task,
            claimed.key,
            kind,
            started_at,
            completed_at,
            error=error,
        )


_inside: Final = threading.local()


def inside() -> bool:
    """Say whether the calling thread runs a handler."""
    return getattr(_inside, "handler", False)


def run(store: Store, attempt: Attempt, *, through: tuple[type[BaseException], ...] = (Crash,)) -> Outcome:
    """Run the handler and return what came of it. Whatever the handler raises is an outcome, but for ``through``."""
    attempt.began, attempt.began_at = began, started_at = clock.awake(), clock.now()
    # After its times: who sees it started looks at them.
    attempt.started = True
    if attempt.task.policy.unique is not None:
        attempt.period = attempt.task.policy.period(started_at)
    _inside.handler = True
    try:
        kind, value, error_type, error, trace = _call(store, attempt, through)
    finally:
        _inside.handler = False
    attempt.seconds = clock.awake() - began
    if store.drop_transaction():
        # It would hold the write lock for as long as this thread lives, and take every later write of it along.
        trace = "\n".join(filter(None, (trace, _LEFT_OPEN)))
    claimed, context = attempt.claimed, attempt.context
    outcome = Outcome(
        claimed.item_id,
        claimed.job_id,
        claimed.attempt,
        claimed.task,
        claimed.key,
        kind,
        started_at,
        max(started_at, clock.now()),
        value,
        error_type,
        error,
        _output(context, trace) if context is not None or trace else None,
        context is not None and context.saved,
    )
    return outcome if attempt.period is None else outcome._replace(period=attempt.period, refresh=claimed.refresh)


_Answer = tuple[Kind, str | None, str | None, str | None, str | None]


def _call(store: Store, attempt: Attempt, through: tuple[type[BaseException], ...]) -> _Answer:
    task = attempt.task
    if attempt.cancelled:
        return CANCELLED, None, "Cancelled", "before it began", None
    try:
        reach("handler.before")
        payload = codec.loads(attempt.claimed.payload)
        if task.wants_context:
            attempt.context = _context(store, attempt)
            value = task.function(payload, ctx=attempt.context)
        else:
            value = task.function(payload)
        reach("handler.after")
        return COMPLETED, codec.result(value), None, None, None
    except through:
        raise
    except NotStorable as error:
        return FAILED, None, None, _text(error), None
    except Skip as error:
        return SKIPPED, None, "Skip", _text(error), None
    except Fail as error:
        return FAILED, None, "Fail", _text(error), None
    except Cancelled as error:
        return CANCELLED, None, "Cancelled", _text(error), None
    except Lost as error:
        # The store will refuse this outcome by its attempt and leave an event.
        return FAILED, None, "Lost", _text(error), None
    except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end the thread without a word
        return FAILED, None, type(error).__name__, _text(error), _trace(error)


def _context(store: Store, attempt: Attempt) -> Context:
    claimed, timeout = attempt.claimed, attempt.task.policy.timeout
    return Context(
        job_id=claimed.job_id,
        item_id=claimed.item_id,
        key=claimed.key,
        attempt=claimed.attempt,
        params=codec.loads(claimed.params),
        deadline=None if timeout is None else attempt.began_at + int(timeout * 1000),
        idempotency_key=idempotency_key(claimed.task, claimed.job_created_at, claimed.item_id),
        task=claimed.task,
        line=Line(
            awake=clock.awake,
            cancelled=lambda: attempt.cancelled,
            progress=lambda ctx, text: _save_progress(store, ctx, text),
            # However long it takes: work that is done must not fail because the store cannot be written now.
            result=lambda ctx, text: save_result(
                store,
                ctx.item_id,
                ctx.attempt,
                text,
                now=clock.now(),
                patience=math.inf,
                period=attempt.period,
                refresh=claimed.refresh,
            ),
            intent=lambda ctx, note: save_intent(store, ctx.item_id, ctx.attempt, note, patience=math.inf),
            data=lambda ctx, data: save_data(store, ctx.item_id, ctx.attempt, data, patience=math.inf),
        ),
    )


def _save_progress(store: Store, ctx: Context, text: str) -> None:
    # Progress is for who looks on: no item fails for want of it.
    with contextlib.suppress(Transient):
        save_progress(store, ctx.job_id, ctx.item_id, ctx.attempt, text, now=clock.now(), patience=0)


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
        frames.stack = traceback.StackSummary.from_list([f for f in frames.stack if f.filename != __file__])
        return storable("".join(frames.format()).rstrip())
    return ""


def _output(context: Context | None, trace: str | None) -> tuple[str, bool] | None:
    logged = context.output() if context is not None else None
    if not trace:
        return logged
    text, cut = tail(f"{logged[0]}\n{trace}" if logged else trace)
    return text, cut or bool(logged and logged[1])
