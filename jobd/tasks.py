"""What a user writes against: a function with its policy, as a task."""

from __future__ import annotations

import functools
import inspect
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from jobd import arguments
from jobd.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

    from jobd.app import Jobd
    from jobd.job import Job
    from jobd.policy import Policy
    from jobd.store.schedules import Declared

P = ParamSpec("P")
R = TypeVar("R")

CONTEXT: Final = "ctx"


class SubmitOptions(TypedDict, total=False):
    """The keywords of a submission.

    * ``params``: JSON for every item's handler, in ``ctx.params``.
    * ``key``: the job's own, for idempotency: the same key again for the same task adds only the items that are new.
    * ``item_key``: the field of a payload, or the function of it, that gives the item's key.
    * ``priority``: higher runs first; 0 by default.
    * ``not_before``: nothing of the job starts earlier; local time unless it carries a zone.
    * ``job_timeout``: how long the job may be without progress, in place of the task's.
    * ``tolerance``: how many items of a completed job may have failed, in place of the task's.
    * ``concurrency``: how many of its items run at once, and ``rate``, how many may start in a while: beside what the
      task says.
    * ``timeout``, ``retries``, ``backoff``: of its attempts, in place of the task's.
    * ``halt``: after so many failed items the job fails; what has not begun by then is cancelled.
    * ``refresh``: of a unique task, the results of this job take their period over from older ones; where items are
      added to a job that is known, the last submission's word counts.
    * ``changed``: what to do where a known key comes with another payload, or the job with other params.
    * ``duplicates``: what to do where a key comes twice in one call.
    * ``after``: a job, or several, by handle or id: nothing of this one starts before they have ended as ``on`` asks.
    * ``on``: "completed" by default: where one of them fails or is cancelled, so is this job, and comes back with it;
      "ended": however they end.
    * ``target``: what was typed to name the task; shown, never imported.
    """

    params: Any
    key: str | None
    item_key: Callable[[Any], Any] | str | None
    priority: int
    not_before: dt.datetime | None
    job_timeout: float | str | None
    tolerance: int | str | None
    concurrency: int | None
    rate: str | None
    timeout: float | str | None
    retries: int | None
    backoff: float | str | None
    halt: int | None
    refresh: bool
    changed: Literal["error", "keep", "requeue"]
    duplicates: Literal["error", "skip"]
    after: Job | int | Iterable[Job | int] | None
    on: Literal["completed", "ended"]
    target: str | None


class Hook(NamedTuple):
    """A function of a task beside its handler, and whether it asks for the context."""

    function: Callable[..., Any]
    wants_context: bool
    many: bool = False


class Task(Generic[P, R]):
    """A function that jobd can run over items. Called, it is the plain function."""

    def __init__(self, app: Jobd, function: Callable[P, R], policy: Policy) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.function = function
        self.policy = policy
        self.name = policy.name
        self.wants_context = _check_signature(function, policy.name, awaited=True)
        self.verifier: Hook | None = None
        self.schedules: list[Declared] = []
        self.poller: Hook | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def verify(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register, as a decorator, what answers whether the work of an orphan is in fact done.

        It is called as the handler is, with the payload and, where it asks for it, a ``ctx``
        (:class:`jobd.hooks.HookContext`) that holds what the attempt noted by ``ctx.intend``. A value is the result
        of work that is done, None says that it is not. Where it raises, the item stays as it is and is asked about
        again.

        Raises:
            UsageError: it cannot be called with a payload.
        """
        self.verifier = Hook(function, _check_signature(function, f"{self.name}: its verify"))
        return function

    @overload
    def poll(self, function: Callable[..., Any]) -> Callable[..., Any]: ...

    @overload
    def poll(
        self, function: None = None, *, many: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...

    def poll(self, function: Callable[..., Any] | None = None, *, many: bool = False) -> Any:
        """Register, as a decorator, what asks the outside about the items that ``ctx.defer`` left waiting.

        It is called with an external id and, where it asks for it, a ``ctx`` (:class:`jobd.hooks.HookContext`). A
        value is the item's result; it raises ``Fail`` for work that has failed, and ``Retry`` for work that goes on:
        then it is asked again, after ``after`` or less and less often, up to once an hour. None, and any other
        exception, which is logged, count as not yet as well.

        With ``many`` it is called with a list of ids, and returns a mapping of each to a value or to such an exception;
        what it leaves out is not there yet.

        Raises:
            UsageError: it cannot be called with an id, or with ``many`` it asks for ``ctx``.
        """
        if function is None:
            return functools.partial(self._poll, many=many)
        return self._poll(function, many=many)

    def _poll(self, function: Callable[..., Any], *, many: bool) -> Callable[..., Any]:
        name = f"{self.name}: its poll"
        hook = Hook(function, _check_signature(function, name), many)
        if many and hook.wants_context:
            raise UsageError(f"task {name} asks about many items: there is no ctx of one")
        self.poller = hook
        return function

    def submit(self, items: Iterable[Any] | None = None, **options: Unpack[SubmitOptions]) -> Job:
        """Hand ``items`` to the daemon as a job and return its handle; see :meth:`Jobd.submit`."""
        return self.app.submit(self.name, items, **options)


def name_of(task: str | Task[Any, Any]) -> str:
    """Return the name of a task, from the task or from its name.

    Raises:
        UsageError: it is neither.
    """
    return task.name if isinstance(task, Task) else arguments.text_of("task", task)


def _check_signature(function: Callable[..., Any], name: str, *, awaited: bool = False) -> bool:
    """Say whether ``function`` asks for the context; refuse what could never run an item.

    ``awaited`` says that whoever calls it awaits what an async one returns.

    Raises:
        UsageError: it cannot be called with a payload, or its body would not run when it is.
    """
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"task {name} is not a function: {function!r}")
    if inspect.iscoroutinefunction(function) and not awaited:
        raise UsageError(f"task {name} is an async function, where a plain one is called", hint="def, not async def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"task {name} is a generator: called, its body does not run", hint="return a list instead")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell
        return False
    wants_context = CONTEXT in signature.parameters
    try:
        signature.bind(None, **({CONTEXT: None} if wants_context else {}))
    except TypeError as error:
        raise UsageError(
            f"task {name} cannot be called with a payload: {error}",
            hint=f"def {name}(payload): the payload is its one positional argument, ctx where it wants one",
        ) from None
    return wants_context
