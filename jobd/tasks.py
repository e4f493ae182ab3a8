"""What a user writes against: a function with its policy, as a task."""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack

from jobd import arguments, codec, config, measures, zones
from jobd.errors import UsageError
from jobd.store.unique import Unique

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
    timeout: float | str
    job_timeout: float | str
    tolerance: int | str
    stall_after: float | str
    max_interruptions: int
    unique: Literal["day"]
    zone: str


class SubmitOptions(TypedDict, total=False):
    """The keywords of a submission.

    * ``params``: JSON for every item's handler, in ``ctx.params``.
    * ``key``: the job's own, for idempotency: the same key again for the same task adds only the items that are new.
    * ``item_key``: the field of a payload, or the function of it, that gives the item's key.
    * ``priority``: higher runs first; 0 by default.
    * ``not_before``: nothing of the job starts earlier; local time unless it carries a zone.
    * ``job_timeout``: how long the job may be without progress, in place of the task's.
    * ``tolerance``: how many items of a completed job may have failed, in place of the task's.
    * ``refresh``: of a unique task, the results of this job take their period over from older ones; where items are
      added to a job that is known, the last submission's word counts.
    * ``changed``: what to do where a known key comes with another payload, or the job with other params.
    * ``duplicates``: what to do where a key comes twice in one call.
    * ``target``: what was typed to name the task; shown, never imported.
    """

    params: Any
    key: str | None
    item_key: Callable[[Any], Any] | str | None
    priority: int
    not_before: dt.datetime | None
    job_timeout: float | str | None
    tolerance: int | str | None
    refresh: bool
    changed: Literal["error", "keep", "requeue"]
    duplicates: Literal["error", "skip"]
    target: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How the items of a task are run and how their job ends.

    ``timeout`` is how long an attempt may take, ``job_timeout`` how long a job may be without progress: seconds, None
    for as long as it takes and for the app's setting.
    ``tolerance`` is how many items of a completed job may have failed: a count, or a percentage of all. ``stall_after``
    is in seconds, None for the app's setting. ``max_interruptions`` is how many deaths of the daemon an item may
    outlive while it ran alone. ``unique`` says that a key has one result for each day, by the clock of which time
    zone: an item whose day is taken is skipped.
    """

    name: str
    timeout: float | None = None
    job_timeout: float | None = None
    tolerance: str = "0"
    stall_after: float | None = None
    max_interruptions: int = 5
    unique: Literal["day"] | None = None
    zone: str = zones.UTC

    @classmethod
    def of(cls, function: Callable[..., Any], options: PolicyOptions) -> Policy:
        """Return the policy that the keywords of ``@app.task`` mean for ``function``.

        Raises:
            UsageError: an unknown keyword, or a value that cannot be meant.
        """
        config.refuse_unknown("keyword of a task", options, PolicyOptions.__annotations__)
        return cls(
            name=_name(options.get("name"), function),
            timeout=_seconds(options.get("timeout")),
            job_timeout=_seconds(options.get("job_timeout")),
            tolerance=tolerance(options.get("tolerance", "0")),
            stall_after=_seconds(options.get("stall_after")),
            max_interruptions=_interruptions(options.get("max_interruptions", 5)),
            unique=_unique(options.get("unique")),
            zone=_zone(options.get("zone"), options.get("unique")),
        )

    @property
    def once(self) -> Unique | None:
        """How the task is unique, if it is."""
        return None if self.unique is None else Unique(self.unique, self.zone)

    def period(self, at: int) -> str | None:
        """Return the period that an attempt claims which starts ``at`` (Unix ms); None where the task is not unique."""
        return None if self.unique is None else zones.day(at, self.zone)


class Hook(NamedTuple):
    """A function of a task beside its handler, and whether it asks for the context."""

    function: Callable[..., Any]
    wants_context: bool


class Task(Generic[P, R]):
    """A function that jobd can run over items. Called, it is the plain function."""

    def __init__(self, app: Jobd, function: Callable[P, R], policy: Policy) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.function = function
        self.policy = policy
        self.name = policy.name
        self.wants_context = _check_signature(function, policy.name)
        self.verifier: Hook | None = None

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

    def submit(self, items: Iterable[Any] | None = None, **options: Unpack[SubmitOptions]) -> Job:
        """Hand ``items`` to the daemon as a job and return its handle; see :meth:`Jobd.submit`."""
        return self.app.submit(self.name, items, **options)


def name_of(task: str | Task[Any, Any]) -> str:
    """Return the name of a task, from the task or from its name.

    Raises:
        UsageError: it is neither.
    """
    return task.name if isinstance(task, Task) else arguments.text_of("task", task)


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


def _seconds(value: Any) -> float | None:
    return None if value is None else measures.duration(value)


def _interruptions(value: Any) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    return measures.count(value)


def _unique(unit: Any) -> Literal["day"] | None:
    if unit is None:
        return None
    if unit != "day":
        raise UsageError(f"unique: not {unit!a}", hint='unique="day": one result of a key for each day')
    return "day"


def _zone(name: Any, unit: Any) -> str:
    if name is None:
        return zones.UTC
    if unit is None:
        raise UsageError(f"zone={name!a} says when a day begins, and goes with unique", hint='unique="day"')
    return zones.checked(name)


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
