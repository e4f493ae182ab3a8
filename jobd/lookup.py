"""Looking: the jobs of a store, and the results of a task, as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobd import arguments, clock, measures
from jobd.errors import NotFound
from jobd.store import reads
from jobd.tasks import name_of

if TYPE_CHECKING:
    import datetime as dt

    from jobd.config import Settings
    from jobd.job import Job
    from jobd.store import SqliteStore
    from jobd.store.item_views import ResultView
    from jobd.store.views import JobView, Runner
    from jobd.tasks import Task


class Lookup:
    """The part of an app that reads what its jobs are and what they left."""

    settings: Settings

    def reading(self) -> SqliteStore:
        """Return the store, if there is one."""
        raise NotImplementedError

    def daemon_status(self) -> Runner:
        """Say who runs items."""
        raise NotImplementedError

    def _handle(self, view: JobView) -> Job:
        raise NotImplementedError

    def job(self, reference: int | str) -> Job:
        """Return a job by its id, or as ``"=KEY"``, ``"@last"`` or ``"@failed"``.

        Raises:
            NotFound: there is none.
            UsageError: the reference has none of these forms, or two tasks have a job of that key.
        """
        job_id = self._found(reference) if isinstance(reference, str) else arguments.job_id(reference)
        return self._handle(self.view(job_id))

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
            task=None if task is None else arguments.text("task", name_of(task)),
            since=None if since is None else measures.moment(since),
            key=arguments.text_or_none("key", key),
            external=arguments.text_or_none("external", external),
            stalled=stalled,
            orphaned=orphaned,
            limit=arguments.count("limit", limit),
            before=arguments.count_or_none("before", before),
            stall_after=self.settings.stall_after,
        )
        return [self._handle(view) for view in views]

    def view(self, job_id: int) -> JobView:
        """Read a job as it stands now.

        Raises:
            NotFound: there is no such job.
        """
        return reads.job(
            self.reading(), job_id, now=clock.now(), runner=self.daemon_status(), stall_after=self.settings.stall_after
        )

    def results(
        self,
        task: str | Task[Any, Any],
        key: str | None = None,
        *,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[ResultView]:
        """Return the results of a task over all its jobs, newest first; of one key, its history.

        The next page is that ``before`` the ``item_id`` of the last one. A result's ``data()`` is read when it is
        called.

        Raises:
            UsageError: the task or the key has a name that none can have, or a number is below 0 or beyond 64 bits.
        """
        return reads.results_of(
            self.reading(),
            arguments.text("task", name_of(task)),
            arguments.text_or_none("key", key),
            limit=arguments.limit(limit),
            before=arguments.ALL if before is None else arguments.count("before", before),
        )
