"""What can be asked of a job: each verb of the whole commits its request first and then does its work in batches.

Killed in between, the same call goes on, and so does the daemon. ``progress`` is told after each batch how many items
it was so far; what it raises ends the call there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from jobd import arguments, clock, codec
from jobd.errors import UsageError
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.app import Jobd
    from jobd.maintenance.report import Report
    from jobd.store import Store
    from jobd.store.item_views import ItemView

    Progress = Callable[[int], None] | None


class Steering:
    """The verbs of a job's handle."""

    id: int
    status: str
    counts: Any
    _app: Jobd

    def refresh(self) -> Self:
        """Read the job again."""
        raise NotImplementedError

    def item(self, name: str) -> ItemView:
        """Return one of its items."""
        raise NotImplementedError

    def cancel(self, reason: str | None = None, *, progress: Progress = None) -> Self:
        """Cancel the job: nothing more of it starts, what runs is told, what has completed stays.

        Return the job, read again.

        Raises:
            IllegalTransition: it has ended, and not as cancelled.
            Conflict: it is being submitted or deleted.
            UsageError: the reason is not text.
        """
        from jobd.store import steer

        store, actor = self._app.writing(), self._app.actor
        why = None if reason is None else _reason(reason)
        steer.request_cancel(store, self.id, now=clock.now(), actor=actor, reason=why)
        steer.work_off(store, self.id, now=clock.now(), actor=actor, progress=progress)
        self._follow()
        return self.refresh()

    def fail(self, reason: str, *, progress: Progress = None) -> Self:
        """Fail the job for a reason of one's own: nothing more of it starts, what runs is told, the rest is cancelled.

        It ends as failed with its last open item; if all that still ran completes and nothing was open, as completed.
        Return the job, read again.

        Raises:
            IllegalTransition: it has ended, and not as failed.
            Conflict: it is being submitted or deleted.
            UsageError: the reason is not text, or says nothing.
        """
        from jobd.store import steer

        store, actor = self._app.writing(), self._app.actor
        why = _said("a job", reason)
        steer.request_fail(store, self.id, now=clock.now(), actor=actor, reason=why)
        steer.work_off(store, self.id, now=clock.now(), actor=actor, progress=progress)
        self._follow()
        return self.refresh()

    def pause(self, reason: str | None = None) -> Self:
        """Start nothing more of the job until it is unpaused; what runs ends. Return the job, read again.

        Raises:
            IllegalTransition: it has ended, or is being cancelled or failed.
            Conflict: it is being submitted or deleted.
            UsageError: the reason is not text.
        """
        from jobd.store import pausing

        why = None if reason is None else _reason(reason)
        pausing.pause(self._app.writing(), self.id, now=clock.now(), actor=self._app.actor, reason=why)
        return self.refresh()

    def unpause(self) -> Self:
        """Let the job go on; its deadlines have moved by the whole pause. Return the job, read again.

        Raises:
            IllegalTransition: it has ended, or is being cancelled or failed.
            Conflict: it is being submitted or deleted.
        """
        from jobd.store import pausing

        pausing.unpause(self._app.writing(), self.id, now=clock.now(), actor=self._app.actor)
        return self.refresh()

    def retry(self, *, progress: Progress = None) -> Self:
        """Queue the failed items again; an ended job is reopened. Return the job, read again.

        Raises:
            IllegalTransition: no item has failed.
            Conflict: it is being submitted, deleted, cancelled or failed.
        """
        from jobd.store import retry as again

        again.retry(self._app.writing(), self.id, now=clock.now(), actor=self._app.actor, progress=progress)
        self._follow()
        return self.refresh()

    def resume(self, *, progress: Progress = None, recovered: Callable[[Report], object] | None = None) -> Self:
        """Queue the failed and cancelled items again, and what nobody runs; an ended job is reopened.

        Return the job, read again. ``recovered`` is given the report of ``recover``, where something was running.

        Raises:
            IllegalTransition: it has ended, and no item has failed or was cancelled.
            Conflict: it is being submitted, deleted, cancelled or failed.
        """
        from jobd.store import retry as again

        job = self.refresh()
        if job.counts.running:
            report = self._app.recover()
            if recovered is not None:
                recovered(report)
            job = self.refresh()
        if job.status in JOB_ENDS or job.counts.failed or job.counts.cancelled:
            again.resume(self._app.writing(), self.id, now=clock.now(), actor=self._app.actor, progress=progress)
            self._follow()
        return self.refresh()

    def delete(self, *, cascade: bool = False, progress: Progress = None) -> int:
        """Delete the job with all that it left, and return how many items went with it; its key is free at once.

        With ``cascade`` those that wait for it go as well, and those that wait for these.

        Raises:
            IllegalTransition: it is running, or with ``cascade`` one of the others is: cancel that first.
            Conflict: it is being submitted, or another job waits for it.
            NotFound: it is not there any more.
        """
        from jobd.store import removal

        store = self._app.writing()
        if cascade:
            from jobd.store import cascade as together

            gone = together.request_delete(store, self.id, now=clock.now(), actor=self._app.actor)
            return removal.remove_jobs(store, gone, progress)
        removal.request_delete(store, self.id, now=clock.now(), actor=self._app.actor)
        return removal.remove_job(store, self.id, progress)

    def is_in(self, store: Store) -> bool:
        """Say whether it is a job of this very database."""
        return self._app.path == store.path

    def _follow(self) -> None:
        """Let the jobs that come after this one follow what has just become of it."""
        from jobd.store.follow import follow

        follow(self._app.writing(), [self.id], now=clock.now(), actor=self._app.actor)

    def deliver(self, name: str, value: Any) -> bool:
        """Store the result of an item whose work was done elsewhere; false if that very result was known.

        The item completes at once, whether it waits, runs, was queued again or had failed; ``name`` is that of
        ``item``. A handler that still runs it gets its answer refused. Of a unique task whose period another result
        has, the item is skipped instead, and says why.

        Raises:
            NotFound: there is no such item.
            IllegalTransition: it was cancelled or skipped.
            Conflict: it has another result.
            UsageError: the value is not JSON, or over 1 MiB.
        """
        from jobd.store.deliver import deliver

        try:
            text = codec.result(value)
        except codec.NotStorable as error:
            raise UsageError(str(error)) from None
        now, actor = clock.now(), self._app.actor
        applied = deliver(self._app.writing(), self.item(name).id, text, now=now, actor=actor)
        self._follow()
        return applied

    def deliver_failure(self, name: str, reason: str) -> bool:
        """Store that an item's work has failed elsewhere, and why; false if that very reason was known.

        Raises:
            NotFound: there is no such item.
            IllegalTransition: it was cancelled or skipped.
            Conflict: it has a result.
            UsageError: the reason is not text, or says nothing.
        """
        from jobd.store.deliver import deliver_failure

        why = _said("an item", reason)
        now, actor = clock.now(), self._app.actor
        applied = deliver_failure(self._app.writing(), self.item(name).id, why, now=now, actor=actor)
        self._follow()
        return applied


def _said(what: str, reason: str) -> str:
    why = _reason(reason)
    if not why.strip():
        raise UsageError(f"{what} is failed for a reason, and this one says nothing")
    return why


def _reason(reason: str) -> str:
    from jobd.context import storable

    return storable(arguments.text_of("reason", reason))
