"""Looking after a store: its passes, its health, its figures, and the doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobd import arguments, clock, measures
from jobd.tasks import name_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from jobd.config import Settings
    from jobd.maintenance.doctor import Doctor
    from jobd.maintenance.health import Health
    from jobd.maintenance.report import Report
    from jobd.overview import Overview
    from jobd.store import SqliteStore
    from jobd.store.views import Runner
    from jobd.tasks import Task


class Care:
    """The part of an app that keeps its store in order, and says how it is."""

    settings: Settings
    actor: str
    _tasks: dict[str, Task[Any, Any]]

    def reading(self) -> SqliteStore:
        """Return the store, if there is one."""
        raise NotImplementedError

    def daemon_status(self) -> Runner:
        """Say who runs items."""
        raise NotImplementedError

    def _located(self) -> SqliteStore:
        raise NotImplementedError

    def recover(self, *, check_only: bool = False) -> Report:
        """Settle the running items that nobody runs, each by its evidence; a live daemon is asked to.

        With ``check_only`` nothing is changed and the report says what would be.

        Raises:
            NotFound: there is no database.
            StoreBusy: it stayed locked, or its daemon did not answer.
        """
        from jobd import mending  # noqa: PLC0415 - neither for who submits nor for who looks

        store = self.reading()
        return mending.run_pass(
            store, "recover", self._tasks, self.settings, now=clock.now(), actor=self.actor, check_only=check_only
        )

    def time_out(self, *, check_only: bool = False) -> Report:
        """Fail what waits past its deadline, and see to jobs without progress for too long; a live daemon is asked to.

        Without a daemon time stands still: nothing times out for want of one. With ``check_only`` nothing is changed
        and the report says what would be.

        Raises:
            NotFound: there is no database.
            StoreBusy: it stayed locked, or its daemon did not answer.
        """
        from jobd import mending  # noqa: PLC0415 - as above

        return mending.run_pass(
            self.reading(),
            "time_out",
            self._tasks,
            self.settings,
            now=clock.now(),
            actor=self.actor,
            check_only=check_only,
        )

    def reconcile(self, *, every: bool = False, check_only: bool = False) -> Report:
        """Bring items in line with their stored results, and their jobs with them; a live daemon is asked to.

        It looks at the newest 10,000 that wait, failed or were interrupted; with ``every`` at all results there are.
        With ``check_only`` nothing is changed and the report says what would be.

        Raises:
            NotFound: there is no database.
            StoreBusy: it stayed locked, or its daemon did not answer.
        """
        from jobd import mending  # noqa: PLC0415 - as above

        return mending.run_pass(
            self.reading(),
            "reconcile",
            self._tasks,
            self.settings,
            now=clock.now(),
            actor=self.actor,
            check_only=check_only,
            options={"every": True} if every else None,
        )

    def prune(
        self,
        older_than: float | str | dt.timedelta | None = None,
        *,
        check_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Remove the ended jobs that are not kept for longer, and the values of results that are not.

        With ``older_than`` (a number is of days, a text a duration) jobs of every outcome that ended longer ago, in
        place of the settings' ages. A live daemon is asked to; where there is none, ``progress`` is told how many items
        have been removed, of how many. With ``check_only`` nothing is changed and the report says what would be.

        Raises:
            NotFound: there is no database.
            StoreBusy: it stayed locked, or its daemon did not answer.
            UsageError: ``older_than`` is no age.
        """
        from jobd import mending  # noqa: PLC0415 - as above

        store = self.reading()
        options = None if older_than is None else {"older_than_ms": int(measures.days(older_than) * 1000)}
        return mending.run_pass(
            store,
            "prune",
            self._tasks,
            self.settings,
            now=clock.now(),
            actor=self.actor,
            check_only=check_only,
            options=options,
            progress=progress,
        )

    def health(self) -> Health:
        """Say whether jobs are looked after: daemon, lock, items, passes, database, disk; nothing is changed.

        Raises:
            NotFound: there is no database.
            StoreUnusable: it cannot be used as it is.
        """
        from jobd import overview  # noqa: PLC0415 - as above

        return overview.health(self.reading(), self.settings, self.daemon_status(), now=clock.now())

    def stats(
        self, task: str | Task[Any, Any] | None = None, *, window: float | str | dt.timedelta = "24h"
    ) -> Overview:
        """Return what is active, what ended within ``window``, how long items take, and what the passes have done.

        Raises:
            NotFound: there is no database.
            UsageError: the task has a name that none can have, or the window is no duration.
        """
        from jobd import overview  # noqa: PLC0415 - as above

        return overview.stats(
            self.reading(),
            self.settings,
            self.daemon_status(),
            task=None if task is None else arguments.text("task", name_of(task)),
            window=measures.duration(window),
            now=clock.now(),
        )

    def doctor(self) -> Doctor:
        """Examine versions, file, lock and every rule of truth; nothing is changed.

        Raises:
            NotFound: there is no database.
            StoreUnusable: it cannot be used as it is.
        """
        from jobd import mending  # noqa: PLC0415 - as above

        return mending.doctor(self._located(), now=clock.now())
