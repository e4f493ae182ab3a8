"""One attempt: call the handler, and make an outcome of whatever it does."""

from __future__ import annotations

import contextlib
import contextvars
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from jobd import clock, codec
from jobd.context import Context
from jobd.engine.answer import Answer, answer_to, output
from jobd.engine.beside import none_left_open
from jobd.engine.line import line_to
from jobd.engine.points import Crash, reach
from jobd.errors import Cancelled
from jobd.hooks import idempotency_key
from jobd.overrides import overridden
from jobd.states import COMPLETED
from jobd.store.defer import Deferral
from jobd.store.failures import Transient
from jobd.store.outcome import OVERDUE, RESCHEDULED, TIMED_OUT, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from jobd.context import Line
    from jobd.policy import Policy
    from jobd.store import Store
    from jobd.store.claim import Claimed
    from jobd.tasks import Task


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

    @property
    def policy(self) -> Policy:
        """How it is run: as its task says, where its job says nothing itself."""
        return overridden(self.task.policy, self.claimed.policy)

    def outcome(self, kind: Kind, started_at: int, completed_at: int, error: str | None = None) -> Outcome:
        """Return an outcome of this attempt, with what its handler has logged so far, which may run on."""
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
            output=None if self.context is None else self.context.output(),
        )


# Of a context and not of a thread: an event loop runs many handlers in one.
_inside: Final = contextvars.ContextVar("jobd_inside", default=False)


def inside() -> bool:
    """Say whether a handler runs here."""
    return _inside.get()


def run(store: Store, attempt: Attempt, *, through: tuple[type[BaseException], ...] = (Crash,)) -> Outcome:
    """Run the handler and return what came of it. Whatever the handler raises is an outcome, but for ``through``."""
    with Call(store, attempt, through) as call:
        call.returned(call.begun())
    return call.outcome()


class Call:
    """One call of a handler in this process: what its block raises is the answer, but for ``through``.

    ``patience`` (seconds) is how long the context's calls try where the store cannot be written.
    """

    def __init__(
        self,
        store: Store,
        attempt: Attempt,
        through: tuple[type[BaseException], ...],
        *,
        patience: float = math.inf,
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._through = through
        self._patience = patience
        self._answer: Answer | None = None
        self._declared: str | None = None

    def __enter__(self) -> Self:
        begin(self._attempt)
        self._token = _inside.set(True)
        return self

    def begun(self) -> Any:
        """Call the handler and return what that returns: of an async one, its coroutine."""
        attempt, task = self._attempt, self._attempt.task
        if attempt.cancelled:
            raise Cancelled("before it began")
        reach("handler.before")
        payload = codec.loads(attempt.claimed.payload)
        if not task.wants_context:
            return task.function(payload)
        line = line_of(self._store, attempt, patience=self._patience)
        if self._patience < math.inf:
            line = replace(line, result=self._saving(line), defer=self._deferring(line))
        attempt.context = context_of(attempt, line)
        return task.function(payload, ctx=attempt.context)

    def _saving(self, line: Line) -> Callable[[Context, str], None]:
        def save(context: Context, text: str) -> None:
            try:
                line.result(context, text)
            except Transient:
                # Not stored, and declared nevertheless: the outcome carries it, which is kept until it can be.
                self._declared = text
                raise

        return save

    def _deferring(self, line: Line) -> Callable[[Context, Deferral], None]:
        def defer(context: Context, deferral: Deferral) -> None:
            if self._declared is None:
                # What could not be stored yet goes with the outcome: the work outside has begun.
                with contextlib.suppress(Transient):
                    line.defer(context, deferral)

        return defer

    def returned(self, value: object) -> None:
        """Take what the handler returned in the end."""
        reach("handler.after")
        self._answer = Answer(COMPLETED, codec.result(value))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        _inside.reset(self._token)
        if error is None:
            return False
        if isinstance(error, self._through):
            return False
        # SystemExit too: it would end the thread without a word.
        self._answer = answer_to(error, self._attempt.policy.retry_on)
        return True

    def outcome(self) -> Outcome:
        """Return what came of it."""
        attempt, answer, context = self._attempt, self._answer, self._attempt.context
        assert answer is not None  # noqa: S101 - the block has ended
        attempt.seconds = clock.awake() - attempt.began
        answer = none_left_open(answer, self._store.path)
        if self._declared is not None and (answer.kind != COMPLETED or answer.value == "null"):
            answer = Answer(COMPLETED, self._declared, trace=answer.trace)
        logged = context.output() if context is not None else None
        return conclude(
            attempt,
            answer,
            output(logged, answer.trace),
            saved=context is not None and context.saved,
        )


def begin(attempt: Attempt) -> None:
    """Note that an attempt begins now."""
    attempt.began, attempt.began_at = clock.awake(), clock.now()
    policy = attempt.policy
    if policy.unique is not None:
        attempt.period = policy.period(attempt.began_at)
    # After its times: who sees it started looks at them.
    attempt.started = True


def conclude(attempt: Attempt, answer: Answer, kept: tuple[str, bool] | None, *, saved: bool) -> Outcome:
    """Return the outcome of an attempt that began here and has ended now; ``kept`` is its output."""
    claimed = attempt.claimed
    outcome = Outcome(
        claimed.item_id,
        claimed.job_id,
        claimed.attempt,
        claimed.task,
        claimed.key,
        answer.kind,
        attempt.began_at,
        max(attempt.began_at, clock.now()),
        answer.value,
        answer.error_type,
        answer.error,
        kept,
        saved,
        printed=answer.printed,
    )
    if answer.deferral is not None:
        deferral = Deferral(*answer.deferral)._replace(polled=attempt.task.poller is not None)
        return outcome._replace(deferral=deferral)
    wait = _again(attempt, answer) if answer.wanted else None
    if wait is not None:
        kind: Kind = OVERDUE if answer.kind == TIMED_OUT else RESCHEDULED
        return outcome._replace(kind=kind, available_at=outcome.completed_at + int(wait * 1000))
    return outcome if attempt.period is None else outcome._replace(period=attempt.period, refresh=claimed.refresh)


def _again(attempt: Attempt, answer: Answer) -> float | None:
    """Return in how many seconds it is tried again; None where it has no try left."""
    wait = attempt.policy.retry_in(attempt.claimed.failures)
    return wait if wait is None or answer.after is None else answer.after


def line_of(store: Store, attempt: Attempt, *, patience: float = math.inf) -> Line:
    """Return the line that the calls of an attempt's context take; ``patience`` as in ``line_to``."""
    return line_to(
        store,
        lambda: attempt.cancelled,
        period=attempt.period,
        refresh=attempt.claimed.refresh,
        polled=attempt.task.poller is not None,
        patience=patience,
    )


def context_of(attempt: Attempt, line: Line) -> Context:
    """Return what the handler of an attempt that has begun is given."""
    claimed, timeout = attempt.claimed, attempt.policy.timeout
    return Context(
        job_id=claimed.job_id,
        item_id=claimed.item_id,
        key=claimed.key,
        attempt=claimed.attempt,
        params=codec.loads(claimed.params),
        deadline=None if timeout is None else attempt.began_at + int(timeout * 1000),
        idempotency_key=idempotency_key(claimed.task, claimed.job_created_at, claimed.item_id),
        task=claimed.task,
        line=line,
    )
