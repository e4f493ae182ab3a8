"""The facade that a program embeds: its tasks, its jobs, and the daemon that runs them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from jobd import clock, config, shell
from jobd.care import Care
from jobd.errors import UsageError
from jobd.job import Job
from jobd.lookup import Lookup
from jobd.policy import Policy, checked_executors, refuse_unknown_executor
from jobd.serving import Serving
from jobd.store import open_store
from jobd.tasks import P, R, Task, name_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent import futures

    import peewee

    from jobd.engine.bounds import Started
    from jobd.engine.daemon import Daemon
    from jobd.policy import PolicyOptions
    from jobd.schedules import ScheduleOptions, Schedules
    from jobd.store import SqliteStore
    from jobd.store.views import JobView
    from jobd.tasks import SubmitOptions
    from jobd.watchlist import Watchlist


class Jobd(Serving, Care, Lookup):
    """Tasks, and the database that their jobs are in.

    ``db`` is a path or ``sqlite:///path``; None stands for ``JOBD_DB``, else for a file in the user's data folder.
    ``settings`` are those of docs/settings.md. ``executors`` are the program's own, of ``concurrent.futures``, by the
    name that a task's ``isolation`` gives; jobd hands items to them and never shuts them down. Nothing is opened or
    created before it is needed, and reading never creates a file.

    Raises:
        UsageError: a setting or a ``JOBD_*`` variable that is unknown or cannot be meant; what is no executor, or has
            a name that is taken.
    """

    def __init__(
        self,
        db: str | os.PathLike[str] | None = None,
        *,
        executors: Mapping[str, futures.Executor] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = config.settings(settings)
        self.executors: Mapping[str, futures.Executor] = checked_executors(executors or {})
        # Who is named in the history for what is done through this object.
        self.actor = "python"
        self._tasks: dict[str, Task[Any, Any]] = {shell.NAME: shell.task(self)}
        self._store: SqliteStore | None = None
        self._running: Daemon | None = None
        self._drained_by: int | None = None  # a thread
        self._started: Started = {}
        self._db = config.database_path() if db is None else str(db)

    def __repr__(self) -> str:
        return f"<Jobd {self.path}>"

    # -- tasks ----------------------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /, **policy: Unpack[PolicyOptions]) -> Task[P, R]: ...

    @overload
    def task(self, /, **policy: Unpack[PolicyOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **policy: Unpack[PolicyOptions]) -> Any:
        """Make a function a task: ``@app.task``, ``@app.task(tolerance="5%")`` or ``app.task(function)``.

        Raises:
            UsageError: an unknown keyword, a function that cannot run items, or a second task of one name.
        """
        if function is None:
            return lambda function: self._register(function, policy)
        return self._register(function, policy)

    @overload
    def schedule(self, task: Task[P, R], /, **options: Unpack[ScheduleOptions]) -> Task[P, R]: ...

    @overload
    def schedule(self, /, **options: Unpack[ScheduleOptions]) -> Callable[[Task[P, R]], Task[P, R]]: ...

    def schedule(self, task: Task[..., Any] | None = None, /, **options: Unpack[ScheduleOptions]) -> Any:
        """Submit a task again and again: ``@app.schedule(cron="0 3 * * *")`` above ``@app.task``, or with the task.

        A daemon of this program fires each slot once ever, unless the former job has not ended. Return the task.

        Raises:
            UsageError: an unknown keyword, a value that cannot be meant, what is no task of this app, or a second
                schedule of one name.
        """
        from jobd import schedules  # noqa: PLC0415 - who has none does not pay for it

        if task is None:
            return lambda scheduled: self.schedule(scheduled, **options)
        schedules.add(self, task, options)
        if self._running is not None:
            schedules.ask(self)
        return task

    def _register(self, function: Callable[P, R], policy: PolicyOptions) -> Task[P, R]:
        task = Task(self, function, Policy.of(function, policy))
        refuse_unknown_executor(task.policy, self.executors)
        if task.name in self._tasks:
            raise UsageError(f"there is a task {task.name} already", hint='@app.task(name="…") gives one another name')
        self._tasks[task.name] = task
        return task

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The registered tasks by name; the mapping follows later registrations."""
        return MappingProxyType(self._tasks)

    # -- the database ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The database's file, as an absolute path."""
        return self._located().path

    @property
    def database(self) -> peewee.Database:
        """The peewee database, for queries of one's own."""
        return self.writing().database

    @property
    def store(self) -> SqliteStore:
        """The open store, created where there is none."""
        return self.writing()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Submit in a transaction of one's own: what the block writes and submits is stored together, or not at all.

        Models that are bound to ``app.database`` write in the same transaction; ``atomic()`` inside, of the app or of
        its database, is a savepoint. The daemon is woken after the commit. Nobody else can write meanwhile, so keep it
        short, and wait for nothing in it.

        Raises:
            StoreBusy: the database stayed locked, or the disk is full; nothing of the block is stored.
            UsageError: the block has ended the transaction by itself, or has awaited in it; or another task of this
                event loop has one open.
        """
        from jobd.atomic import atomic  # noqa: PLC0415 - who has no transactions of their own does not pay for it

        with atomic(self.writing()):
            yield

    def use(self, db: str | os.PathLike[str]) -> None:
        """Take another database, before the first use of the present one.

        Raises:
            UsageError: the present one is in use.
        """
        if self._store is not None:
            raise UsageError(f"{self.path} is in use already")
        self._db = str(db)

    @contextmanager
    def using(self, db: str | os.PathLike[str]) -> Iterator[Self]:
        """Use another database within the block, also where the present one is in use: for tests.

        Raises:
            UsageError: a daemon of this app runs.
        """
        if self._running is not None:
            raise UsageError(f"a daemon of this app runs {self.path}")
        former = self._db, self._store, self._started
        self._db, self._store, self._started = str(db), None, {}
        try:
            yield self
        finally:
            self.close()
            self._db, self._store, self._started = former

    def writing(self) -> SqliteStore:
        """Return the open store, its file created where there is none."""
        store = self._located()
        if self._db is None:
            from pathlib import Path  # noqa: PLC0415 - who only looks does not pay for it

            Path(store.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.open()
        return store

    def reading(self) -> SqliteStore:
        """Return the open store of a file that exists.

        Raises:
            NotFound: there is none.
        """
        store = self._located()
        store.open(create=False)
        return store

    def close(self) -> None:
        """Close the calling thread's connection; the next use opens it again."""
        if self._store is not None:
            self._store.close()

    def _located(self) -> SqliteStore:
        if self._store is None:
            db = str(config.user_database()) if self._db is None else self._db
            store = open_store(db, durability=self.settings.durability)
            store.wake = self._ring
            store.upgrade = self._upgrade
            self._store = store
        return self._store

    def _upgrade(self) -> None:
        """Bring the file of an older jobd to the present schema; a copy of it is kept beside it."""
        from jobd import safekeeping  # noqa: PLC0415 - once in the life of a file

        safekeeping.upgrade(self.path, now=clock.now())

    def _ring(self) -> None:
        """Wake the daemon of the database, if there is one."""
        from jobd.engine.wake import Bell  # noqa: PLC0415 - who only looks wakes nobody

        store = self._located()
        store.wake = Bell(store.path)
        store.wake()

    # -- jobs -----------------------------------------------------------------------------------------------------

    def submit(
        self, task: str | Task[Any, Any], items: Iterable[Any] | None = None, **options: Unpack[SubmitOptions]
    ) -> Job:
        """Store a job of ``task`` over ``items`` and return its handle; once this returns, it is not lost.

        A task that is not registered here is one that the daemon knows. ``items`` is read once, in constant memory;
        None is one item whose payload is None, and whose key is the task's name.

        Raises:
            UsageError: an unknown keyword or a value that cannot be meant; InvalidItem and DuplicateKeys are such.
            TypeError: ``items`` is a str, bytes or dict.
            ChangedInput: a known key came with another payload, or the job with other params.
            Conflict: the job of this key is being submitted, cancelled or deleted, or is to come after itself.
            NotFound: there is no job of those that it is to come after.
            StoreBusy: the database stayed locked, or the disk is full.
        """
        from jobd import submission  # noqa: PLC0415 - a third of what looking would have to load

        if loading := sys.modules.get("jobd.loading"):  # where it is not loaded, nobody imports for another
            loading.refuse_apart("submits a job")
        name = name_of(task)
        known = self._tasks.get(name)
        answer = submission.submit(
            self.writing(), name, known.policy if known else None, items, options, now=clock.now(), actor=self.actor
        )
        return Job(self, answer.job_id, submitted=answer)

    def _handle(self, view: JobView) -> Job:
        return Job(self, view.id, view=view)

    @property
    def watchlist(self) -> Watchlist:
        """The keys of tasks that somebody keeps an eye on, each with how it was last run."""
        from jobd.watchlist import Watchlist  # noqa: PLC0415 - who has none does not pay for it

        return Watchlist(self)

    @property
    def schedules(self) -> Schedules:
        """The schedules: how each stands, what comes next, and to run, pause and unpause them."""
        from jobd.schedules import Schedules  # noqa: PLC0415 - as above

        return Schedules(self)
