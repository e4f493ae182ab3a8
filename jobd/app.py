"""The facade that a program embeds: its tasks, its jobs, and the daemon that runs them."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, overload

from jobd import arguments, clock, config, running
from jobd.errors import NotFound, UsageError
from jobd.job import Job
from jobd.store import open_store, reads
from jobd.store.views import NOBODY
from jobd.tasks import P, Policy, R, Task

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import peewee

    from jobd.engine.daemon import Daemon
    from jobd.maintenance.doctor import Doctor
    from jobd.maintenance.report import Report
    from jobd.store import SqliteStore
    from jobd.store.views import JobView, ResultView, Runner
    from jobd.tasks import PolicyOptions, SubmitOptions


class Jobd:
    """Tasks, and the database that their jobs are in.

    ``db`` is a path or ``sqlite:///path``; None stands for ``JOBD_DB``, else for a file in the user's data folder.
    ``settings`` are those of docs/settings.md. Nothing is opened or created before it is needed, and reading never
    creates a file.

    Raises:
        UsageError: a setting or a ``JOBD_*`` variable that is unknown or cannot be meant.
    """

    def __init__(self, db: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        self.settings = config.settings(settings)
        # Who is named in the history for what is done through this object.
        self.actor = "python"
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._store: SqliteStore | None = None
        self._running: Daemon | None = None
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

    def _register(self, function: Callable[P, R], policy: PolicyOptions) -> Task[P, R]:
        task = Task(self, function, Policy.of(function, policy))
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

    def use(self, db: str | os.PathLike[str]) -> None:
        """Take another database, before the first use of the present one.

        Raises:
            UsageError: the present one is in use.
        """
        if self._store is not None:
            raise UsageError(f"{self.path} is in use already")
        self._db = str(db)

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
            self._store = store
        return self._store

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
            Conflict: the job of this key is being submitted, cancelled or deleted.
            StoreBusy: the database stayed locked, or the disk is full.
        """
        from jobd import submission  # noqa: PLC0415 - a third of what looking would have to load

        name = _named(task)
        known = self._tasks.get(name)
        answer = submission.submit(
            self.writing(), name, known.policy if known else None, items, options, now=clock.now(), actor=self.actor
        )
        return Job(self, answer.job_id, submitted=answer)

    def job(self, reference: int | str) -> Job:
        """Return a job by its id, or as ``"=KEY"``, ``"@last"`` or ``"@failed"``.

        Raises:
            NotFound: there is none.
            UsageError: the reference has none of these forms, or two tasks have a job of that key.
        """
        job_id = self._found(reference) if isinstance(reference, str) else arguments.job_id(reference)
        return Job(self, job_id, view=self.view(job_id))

    def _found(self, reference: str) -> int:
        store = self.reading()
        if reference.startswith("=") and not arguments.holdable(reference):
            raise NotFound(f"there is no job with the key {reference[1:]!a}", hint="jobd list shows the jobs")
        return reads.find_job(store, reference)

    def jobs(  # noqa: PLR0913 - one for each filter
        self,
        *,
        status: str | None = None,
        task: str | Task[Any, Any] | None = None,
        since: dt.datetime | None = None,
        key: str | None = None,
        external: str | None = None,
        stalled: bool = False,
        orphaned: bool = False,
        limit: int = 20,
        before: int | None = None,
    ) -> list[Job]:
        """Return the newest jobs that meet all filters, newest first; the next page is that ``before`` the last id.

        Raises:
            UsageError: an unknown status, a filter that is not text or not a time, or a number below 0 or beyond 64
                bits.
        """
        views = reads.jobs(
            self.reading(),
            now=clock.now(),
            runner=self.daemon_status(),
            status=status,
            task=None if task is None else arguments.text("task", _named(task)),
            since=None if since is None else config.moment(since),
            key=arguments.text_or_none("key", key),
            external=arguments.text_or_none("external", external),
            stalled=stalled,
            orphaned=orphaned,
            limit=arguments.count("limit", limit),
            before=arguments.count_or_none("before", before),
            stall_after=self.settings.stall_after,
        )
        return [Job(self, view.id, view=view) for view in views]

    def view(self, job_id: int) -> JobView:
        """Read a job as it stands now.

        Raises:
            NotFound: there is no such job.
        """
        return reads.job(
            self.reading(), job_id, now=clock.now(), runner=self.daemon_status(), stall_after=self.settings.stall_after
        )

    def results(
        self, task: str | Task[Any, Any], key: str | None = None, *, limit: int | None = None
    ) -> list[ResultView]:
        """Return the results of a task over all its jobs, newest first; of one key where it is named.

        Raises:
            UsageError: the task or the key has a name that none can have, or the limit is below 0.
        """
        return reads.results_of(
            self.reading(),
            arguments.text("task", _named(task)),
            arguments.text_or_none("key", key),
            limit=arguments.limit(limit),
        )

    # -- who runs them --------------------------------------------------------------------------------------------

    def daemon_status(self) -> Runner:
        """Say who runs items now: ``alive`` by the lock's word; or who did last."""
        try:
            runner = running.runner(self.reading())
        except NotFound:
            return NOBODY
        if self._running is not None and self._running.id == runner.id:
            # Its row holds what was registered when it started; it runs what was registered since, too.
            return runner._replace(tasks=tuple(sorted(self._tasks)))
        return runner

    @contextmanager
    def daemon(self, *, workers: int | None = None, allow_network: bool = False) -> Iterator[Daemon]:
        """Run items in this process while the block runs; leaving it finishes what runs and keeps the queue.

        It has threads of its own and touches no signal handler.

        Raises:
            DaemonRunning: another daemon owns the database.
            StoreUnusable: it cannot be used, or was moved or replaced meanwhile.
        """
        daemon = self._daemon(workers, allow_network=allow_network)
        with running.during(daemon):
            self._running = daemon
            try:
                yield daemon
            finally:
                self._running = None

    def run(self, *, workers: int | None = None, allow_network: bool = False) -> None:
        """Run items until SIGTERM or SIGINT: the first finishes what runs, the second leaves at once.

        Outside the main thread no signal is listened to, and only an end of the daemon's own returns.

        Raises:
            DaemonRunning: another daemon owns the database.
            StoreUnusable: it cannot be used, or was moved or replaced meanwhile.
        """
        running.until_signalled(self._daemon(workers, allow_network=allow_network))

    def recover(self, *, check_only: bool = False) -> Report:
        """Settle the running items that nobody runs, each by its evidence; a live daemon is asked to.

        With ``check_only`` nothing is changed and the report says what would be.

        Raises:
            NotFound: there is no database.
            StoreBusy: it stayed locked, or its daemon did not answer.
        """
        from jobd import mending  # noqa: PLC0415 - neither for who submits nor for who looks

        store = self.reading()
        return mending.recover(
            store, self._tasks, self.settings, now=clock.now(), actor=self.actor, check_only=check_only
        )

    def doctor(self) -> Doctor:
        """Examine versions, file, lock and every rule of truth; nothing is changed.

        Raises:
            NotFound: there is no database.
            StoreUnusable: it cannot be used as it is.
        """
        from jobd import mending  # noqa: PLC0415 - as above

        return mending.doctor(self._located(), now=clock.now())

    def _daemon(self, workers: int | None, *, allow_network: bool) -> Daemon:
        from jobd.engine.daemon import Daemon  # noqa: PLC0415 - who only submits or looks does not pay for it

        count = self.settings.workers if workers is None else config.count(workers)
        return Daemon(self.writing(), self.tasks, self.settings, workers=count, allow_network=allow_network)


def _named(task: str | Task[Any, Any]) -> str:
    return task.name if isinstance(task, Task) else arguments.text_of("task", task)
