"""What a user writes against: a function with its policy, as a task."""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from jobd import codec, config
from jobd.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

    from jobd.app import Jobd
    from jobd.job import Job

P = ParamSpec("P")
R = TypeVar("R")

CONTEXT: Final = "ctx"
_TOLERANCE: Final = re.compile(r"\d{1,15}|(\d{1,3}(?:\.\d+)?)%", re.ASCII)


class PolicyOptions(TypedDict, total=False):
    """The keywords of ``@app.task``, as they are typed."""

    name: str
    tolerance: int | str
    stall_after: float | str
    max_interruptions: int


class SubmitOptions(TypedDict, total=False):
    """The keywords of a submission.

    * ``params``: JSON for every item's handler, in ``ctx.params``.
    * ``key``: the job's own, for idempotency: the same key again for the same task adds only the items that are new.
    * ``item_key``: the field of a payload, or the function of it, that gives the item's key.
    * ``priority``: higher runs first; 0 by default.
    * ``not_before``: nothing of the job starts earlier; local time unless it carries a zone.
    * ``tolerance``: how many items of a completed job may have failed, in place of the task's.
    * ``changed``: what to do where a known key comes with another payload, or the job with other params.
    * ``duplicates``: what to do where a key comes twice in one call.
    * ``target``: what was typed to name the task; shown, never imported.
    """

    params: Any
    key: str | None
    item_key: Callable[[Any], Any] | str | None
    priority: int
    not_before: dt.datetime | None
    tolerance: int | str | None
    changed: Literal["error", "keep", "requeue"]
    duplicates: Literal["error", "skip"]
    target: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How the items of a task are run and how their job ends.

    ``tolerance`` is how many items of a completed job may have failed: a count, or a percentage of all. ``stall_after``
    is in seconds, None for the app's setting. ``max_interruptions`` is how many deaths of the daemon an item may
    outlive while it ran alone.
    """

    name: str
    tolerance: str = "0"
    stall_after: float | None = None
    max_interruptions: int = 5

    @classmethod
    def of(cls, function: Callable[..., Any], options: PolicyOptions) -> Policy:
        """Return the policy that the keywords of ``@app.task`` mean for ``function``.

        Raises:
            UsageError: an unknown keyword, or a value that cannot be meant.
        """
        config.refuse_unknown("keyword of a task", options, PolicyOptions.__annotations__)
        stall_after = options.get("stall_after")
        return cls(
            name=_name(options.get("name"), function),
            tolerance=tolerance(options.get("tolerance", "0")),
            stall_after=None if stall_after is None else config.duration(stall_after),
            max_interruptions=_interruptions(options.get("max_interruptions", 5)),
        )


class Task(Generic[P, R]):
    """A function that jobd can run over items. Called, it is the plain function."""

    def __init__(self, app: Jobd, function: Callable[P, R], policy: Policy) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.function = function
        self.policy = policy
        self.name = policy.name
        self.wants_context = _check_signature(function, policy.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def submit(self, items: Iterable[Any] | None = None, **options: Unpack[SubmitOptions]) -> Job:
        """Hand ``items`` to the daemon as a job and return its handle; see :meth:`Jobd.submit`."""
        return self.app.submit(self.name, items, **options)


def tolerance(value: Any) -> str:
    """Return a tolerance as the store keeps it: ``"3"`` or ``"5%"``, from a count or from either text.

    Raises:
        UsageError: anything else, or more than 100 %.
    """
    text = str(value).strip()
    found = _TOLERANCE.fullmatch(text)
    if found is not None and type(value) in {int, str} and float(found[1] or 0) <= 100:
        return text
    raise UsageError(f"not a tolerance: {value!r}", hint='a count of items, or a percentage like "5%"')


def _interruptions(value: Any) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    return config.count(value)


def _name(given: Any, function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "") if given is None else given
    if not isinstance(name, str):
        raise UsageError(f"not the name of a task: {name!r}")
    if not name or name == "<lambda>":
        raise UsageError("the function has no name of its own", hint='@app.task(name="…") gives the task one')
    try:
        return codec.checked_key(name)
    except codec.NotStorable as error:
        raise UsageError(f"not the name of a task: {name!a} ({error})") from None


def _check_signature(function: Callable[..., Any], name: str) -> bool:
    """Say whether ``function`` asks for the context; refuse what could never run an item.

    Raises:
        UsageError: it cannot be called with a payload, or its body would not run when it is.
    """
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"task {name} is not a function: {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"task {name} is an async function, and jobd runs plain ones", hint="def instead of async def")
    if inspect.isgeneratorfunction(function):
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
