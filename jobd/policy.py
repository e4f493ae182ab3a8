"""How the items of a task are run: the keywords of ``@app.task``, checked."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from jobd import codec, config, measures, zones
from jobd.errors import UsageError
from jobd.store.unique import Unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent import futures

    from jobd.measures import Rate

THREAD: Final = "thread"
PROCESS: Final = "process"
ASYNCIO: Final = "asyncio"
COMMAND: Final = "command"  # of the task `shell` alone
_OWN: Final = (THREAD, PROCESS, ASYNCIO, COMMAND)
HANDLERS: Final = 100  # of an async task that run at once, where it has no concurrency of its own
DEFAULT_BACKOFF: Final = 1.0  # seconds
LONGEST_BACKOFF: Final = 3_600.0
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
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    backoff: float | str
    concurrency: int
    rate: str
    isolation: str
    recycle_after: int
    recycle_mb: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How the items of a task are run and how their job ends.

    ``timeout`` is how long an attempt may take, ``job_timeout`` how long a job may be without progress: seconds, None
    for as long as it takes and for the app's setting.
    ``tolerance`` is how many items of a completed job may have failed: a count, or a percentage of all. ``stall_after``
    is in seconds, None for the app's setting. ``max_interruptions`` is how many deaths of the daemon an item may
    outlive while it ran alone. ``unique`` says that a key has one result for each day, by the clock of which time
    zone: an item whose day is taken is skipped.

    An attempt that raises one of ``retry_on`` is tried again, ``retries`` times: the first time after up to ``backoff``
    seconds, then after up to twice as many each time. ``concurrency`` is how many items of the task run at once, and
    ``rate`` how many may start in a while, both in one daemon. ``isolation`` names what runs them: threads, processes
    (which are replaced after ``recycle_after`` items or with ``recycle_mb`` megabytes), an event loop, or an executor
    of the app's own.
    """

    name: str
    timeout: float | None = None
    job_timeout: float | None = None
    tolerance: str = "0"
    stall_after: float | None = None
    max_interruptions: int = 5
    unique: Literal["day"] | None = None
    zone: str = zones.UTC
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    backoff: float = DEFAULT_BACKOFF
    concurrency: int | None = None
    rate: Rate | None = None
    isolation: str = THREAD
    recycle_after: int | None = None
    recycle_mb: int | None = None

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
            retries=measures.amount(options.get("retries", 0)),
            retry_on=_exceptions(options.get("retry_on", Exception)),
            backoff=measures.duration(options.get("backoff", DEFAULT_BACKOFF)),
            concurrency=None if options.get("concurrency") is None else measures.count(options["concurrency"]),
            rate=None if options.get("rate") is None else measures.rate(options["rate"]),
            isolation=_isolation(options.get("isolation"), function),
            recycle_after=None if options.get("recycle_after") is None else measures.count(options["recycle_after"]),
            recycle_mb=None if options.get("recycle_mb") is None else measures.count(options["recycle_mb"]),
        ).checked(options)

    @property
    def bounded(self) -> bool:
        """Whether it may have to wait though slots are free: for its concurrency, or for its rate."""
        return self.concurrency is not None or self.rate is not None

    @property
    def once(self) -> Unique | None:
        """How the task is unique, if it is."""
        return None if self.unique is None else Unique(self.unique, self.zone)

    def period(self, at: int) -> str | None:
        """Return the period that an attempt claims which starts ``at`` (Unix ms); None where the task is not unique."""
        return None if self.unique is None else zones.day(at, self.zone)

    def checked(self, options: PolicyOptions) -> Policy:
        """Return the policy if its parts go together.

        Raises:
            UsageError: they do not.
        """
        if self.isolation != PROCESS and (self.recycle_after is not None or self.recycle_mb is not None):
            raise UsageError("recycle_after and recycle_mb are for processes", hint='isolation="process"')
        if self.isolation == ASYNCIO and options.get("concurrency") is None:
            return replace(self, concurrency=HANDLERS)
        return self

    def retries_on(self, kind: type[BaseException]) -> bool:
        """Say whether an error of this kind is tried again while there are tries left."""
        return any(issubclass(kind, one) for one in self.retry_on)

    def retry_in(self, failures: int) -> float | None:
        """Return after how many seconds an attempt that failed is tried again, ``failures`` before it counted; None
        where it is not.

        The wait is exponential with full jitter: any time up to the doubled one, so that what failed together does not
        come back together (AWS Architecture Blog, "Exponential Backoff And Jitter").
        """
        if failures >= self.retries:
            return None
        return random.uniform(0, min(LONGEST_BACKOFF, self.backoff * 2.0 ** min(failures, 64)))  # noqa: S311 - no secret


def checked_executors(executors: Any) -> dict[str, futures.Executor]:
    """Return the executors of an app, by name.

    Raises:
        UsageError: they have no names; one has a name that jobd has for its own, or cannot be handed anything.
    """
    if not isinstance(executors, Mapping):
        raise UsageError(
            f"executors: {type(executors).__name__} does not name them",
            hint='executors={"pool": ProcessPoolExecutor()}',
        )
    for name, executor in executors.items():
        if not isinstance(name, str) or not name or name in _OWN:
            raise UsageError(
                f"executors: {name!r} is no name for one", hint='executors={"pool": ProcessPoolExecutor()}'
            )
        if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
            raise UsageError(f"executors: {name} is not an executor of concurrent.futures: {executor!r}")
    return dict(executors)


def refuse_unknown_executor(policy: Policy, executors: Iterable[str]) -> None:
    """Refuse a task that nothing would run; ``executors`` are those of its app, by name.

    Raises:
        UsageError: what it names as its isolation is none.
    """
    config.refuse_unknown("isolation", [policy.isolation], [*_OWN, *executors])


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


def _exceptions(given: Any) -> tuple[type[BaseException], ...]:
    classes = given if isinstance(given, tuple) else (given,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise UsageError(f"retry_on: not an exception's class: {one!r}", hint="retry_on=(OSError, TimeoutError)")
    return classes


def _isolation(given: Any, function: Callable[..., Any]) -> str:
    if inspect.iscoroutinefunction(function):
        if given not in {None, ASYNCIO}:
            raise UsageError(f"isolation: an async function runs on an event loop, not {given!r}", hint="leave it out")
        return ASYNCIO
    if given is None:
        return THREAD
    if not isinstance(given, str) or not given or given in {ASYNCIO, COMMAND}:
        hint = 'isolation="thread", "process", or the name of one of Jobd(executors=…)'
        raise UsageError(f"isolation: not {given!r}", hint=hint)
    return given
