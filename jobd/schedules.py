"""The schedules of an app: how they are declared, and what people do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypedDict

from jobd import arguments, clock, config, recurrence, zones
from jobd.codec import NotStorable, checked_key
from jobd.errors import Conflict, DuplicateKeys, NotFound, UsageError
from jobd.items import normalise
from jobd.store import schedules
from jobd.store.schedules import ONCE, SKIP, WATCHLIST, Declared
from jobd.store.views import iso
from jobd.tasks import Task
from jobd.watchlist import Watchlist

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from jobd.app import Jobd
    from jobd.job import Job
    from jobd.store.schedules import Row
    from jobd.store.views import Runner

_LONGEST_NAME: Final = 255
OK, PAUSED, UNKNOWN, NO_DAEMON = "ok", "paused", "unknown", "no_daemon"


class ScheduleOptions(TypedDict, total=False):
    """The keywords of ``app.schedule``.

    * ``every``: a length of time; its slots are a fixed grid from when the schedule is first seen.
    * ``cron``: the five fields of cron, in place of ``every``.
    * ``zone``: the time zone of ``cron`` by name; this machine's own by default.
    * ``catch_up``: what to do where slots were missed: fire "once" for all of them (by default), or "skip" them.
    * ``items``: the items of each job, or ``app.watchlist`` for the keys of the task that are on it then.
    * ``params``: JSON for every item's handler, in ``ctx.params``.
    * ``name``: the schedule's own; the task's by default.
    """

    every: float | str | dt.timedelta
    cron: str
    zone: str
    catch_up: Literal["once", "skip"]
    items: Iterable[Any] | Watchlist | None
    params: Any
    name: str


def add(app: Jobd, task: object, options: ScheduleOptions) -> None:
    """Add a schedule to a task.

    Raises: what :func:`declare` raises; UsageError also for what is no task of this app.
    """
    if not isinstance(task, Task) or app.tasks.get(task.name) is not task:
        raise UsageError(f"not a task of this app: {task!r}", hint="@app.schedule(…) stands above @app.task")
    task.schedules.append(declare(app, task, options))


def declare(app: Jobd, task: Task[Any, Any], options: ScheduleOptions) -> Declared:
    """Check a schedule of ``task`` and return it.

    Raises:
        UsageError: an unknown keyword, a value that cannot be meant, or a second schedule of one name; DuplicateKeys
            and InvalidItem are such.
        TypeError: ``items`` is a str, bytes or dict.
    """
    config.refuse_unknown("keyword of a schedule", options, ScheduleOptions.__annotations__)
    name = _name(options.get("name", task.name))
    if any(known.name == name for other in app.tasks.values() for known in other.schedules):
        raise UsageError(f"there is a schedule {name!a} already", hint='name="…" gives one another name')
    catch_up = options.get("catch_up", ONCE)
    if catch_up not in {ONCE, SKIP}:
        raise UsageError(f"catch_up: not {catch_up!r}", hint=f"one of {ONCE}, {SKIP}")
    spec = _spec(options)
    zone = zones.checked(options["zone"]) if options.get("zone") is not None else zones.local()
    from jobd import submission  # noqa: PLC0415 - a third of what looking would have to load

    made = submission.prepare(task.name, task.policy, {"params": options.get("params")})
    items = options.get("items")
    if isinstance(items, Watchlist):
        return Declared(name, spec, zone, catch_up, made, (), WATCHLIST)
    pairs = tuple(normalise(items, task.name))
    _refuse_duplicates(pairs)
    kept = None if items is None else _json(pairs)
    return Declared(name, spec, zone, catch_up, made, pairs, kept)


def _spec(options: ScheduleOptions) -> str:
    every, cron = options.get("every"), options.get("cron")
    if (every is None) == (cron is None):
        raise UsageError("a schedule has either every= or cron=", hint='every="10m", or cron="0 3 * * *"')
    return recurrence.cron(cron) if every is None else recurrence.every(every)


def _name(value: Any) -> str:
    try:
        name = checked_key(arguments.text_of("name", value))
    except NotStorable as error:
        raise UsageError(f"name: {error}") from None
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"name: longer than {_LONGEST_NAME} characters")
    return name


def _refuse_duplicates(pairs: tuple[tuple[str, str], ...]) -> None:
    seen: set[str] = set()
    twice = dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    if twice:
        raise DuplicateKeys(tuple(twice)[:20])


def _json(pairs: tuple[tuple[str, str], ...]) -> str:
    """Return the payloads, JSON as they are, by key."""
    from json.encoder import encode_basestring  # noqa: PLC0415 - only for who declares some

    return "{" + ", ".join(f"{encode_basestring(key)}: {payload}" for key, payload in pairs) + "}"


class ScheduleView(NamedTuple):
    """A schedule as it stands; times in Unix ms. ``state`` is one of ``ok paused unknown no_daemon``.

    ``unknown`` is one whose code is not in the program that runs: it does not fire. ``skipped_at`` is the slot that was
    left out last, ``skipped_why`` says why.
    """

    name: str
    task: str
    spec: str
    words: str
    zone: str
    catch_up: str
    state: str
    next_at: int | None
    last_fired_at: int | None
    last_job_id: int | None
    last_job_status: str | None
    skipped_at: int | None
    skipped_why: str | None
    paused_at: int | None

    def json(self) -> dict[str, Any]:
        return {name: iso(value) if name.endswith("_at") else value for name, value in self._asdict().items()}


class Schedules:
    """What ``app.schedules`` is."""

    def __init__(self, app: Jobd) -> None:
        self._app = app

    def entries(self) -> list[ScheduleView]:
        """Return the schedules by name: those that the file knows, and those of this program that it does not yet."""
        runner, now = self._app.daemon_status(), clock.now()
        return [_view(row, runner) for _, row in sorted(self._rows(now).items())]

    def preview(self, name: str, n: int = 5) -> list[int]:
        """Return the next ``n`` slots of a schedule, in Unix ms.

        Raises:
            NotFound: there is none of that name.
            UsageError: ``n`` is no count.
        """
        count, now = arguments.count("n", n), clock.now()
        recurs = self._row(name, now).recurrence()
        slots: list[int] = []
        while len(slots) < count:
            slots.append(recurs.after(slots[-1] if slots else now))
        return slots

    def run(self, name: str) -> Job:
        """Make a job of a schedule now, apart from its slots; a live daemon is asked to. Return the job.

        Raises:
            NotFound: there is none of that name.
            Conflict: the job that it fired last has not ended, or its code is not in the program that runs.
            StoreBusy: the database stayed locked, or its daemon did not answer.
        """
        from jobd import mending  # noqa: PLC0415 - neither for who declares nor for who looks

        now = clock.now()
        self._row(name, now)
        report = mending.run_pass(
            self._app.writing(),
            "fire",
            self._app.tasks,
            self._app.settings,
            now=now,
            actor=self._app.actor,
            check_only=False,
            options={"run": name},
        )
        for change in report.changes:
            if change.job_id is not None:
                return self._app.job(change.job_id)
        why = next(iter(report.stays), f"schedule {name}: the daemon did not fire it")
        raise Conflict(why, hint="jobd schedule list shows how each of them stands")

    def pause(self, name: str) -> bool:
        """Have a schedule fire no more, and say whether it did so far.

        Raises:
            NotFound: there is none of that name.
        """
        return schedules.pause(self._app.writing(), self._stored(name), now=clock.now())

    def unpause(self, name: str) -> bool:
        """Have a schedule fire again from its next slot on, none of those in between; say whether it was paused.

        Raises:
            NotFound: there is none of that name.
        """
        store, now = self._app.writing(), clock.now()
        unpaused = schedules.unpause(store, self._stored(name), now=now)
        if unpaused:
            ask(self._app)
        return unpaused

    # -- the rows -------------------------------------------------------------------------------------------------

    def _rows(self, now: int) -> dict[str, Row]:
        try:
            stored = {row.name: row for row in self._app.reading().read(schedules.rows)}
        except NotFound:
            stored = {}
        mine = declared(self._app)
        return {**{name: schedules.as_declared(wanted, now) for name, wanted in mine.items()}, **stored}

    def _row(self, name: str, now: int) -> Row:
        row = self._rows(now).get(arguments.text_of("a schedule", name))
        if row is None:
            raise schedules.unknown(name)
        return row

    def _stored(self, name: str) -> str:
        """Return the name of a schedule that has a row: what is declared here is taken over."""
        if name in (mine := declared(self._app)):
            schedules.take_over(self._app.writing(), [mine[name]], now=clock.now())
        return arguments.text_of("a schedule", name)


def declared(app: Jobd) -> dict[str, Declared]:
    """Return the schedules that a program declares, by name."""
    return {schedule.name: schedule for task in tuple(app.tasks.values()) for schedule in task.schedules}


def ask(app: Jobd) -> None:
    """Have a live daemon look at the schedules again; nobody waits for it."""
    if app.daemon_status().alive:
        from jobd.store import daemons  # noqa: PLC0415 - as above

        daemons.request(app.writing(), "fire", now=clock.now())


def _view(row: Row, runner: Runner) -> ScheduleView:
    return ScheduleView(
        name=row.name, task=row.task, spec=row.spec, words=_words(row), zone=row.zone, catch_up=row.catch_up,
        state=_state(row, runner), next_at=row.next_at, last_fired_at=row.last_fired_at, last_job_id=row.last_job_id,
        last_job_status=row.job_status, skipped_at=row.skipped_at, skipped_why=row.skipped_why, paused_at=row.paused_at,
    )  # fmt: skip


def _words(row: Row) -> str:
    try:
        return row.recurrence().words()
    except UsageError:
        # A zone that this machine does not know.
        return f"{row.spec}, {row.zone}"


def _state(row: Row, runner: Runner) -> str:
    if row.paused_at is not None:
        return PAUSED
    if not runner.alive:
        return NO_DAEMON
    return OK if row.name in runner.state.get("schedules", ()) else UNKNOWN
