"""What is said of a job beside its status. Lengths of time, never times of day: it is read in every time zone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import CANCELLED, COMPLETED, FAILED, RUNNING

if TYPE_CHECKING:
    from jobd.store.standing import JobRow, Standing

_MINUTE: Final = 60


def sentence(at: Standing) -> str:
    """Return the status in words, with what makes it more or less than it says."""
    row = at.row
    if row.deleted_at is not None:
        return "being deleted"
    if row.sealed_at is None:
        left = ", but its submitter is gone" if at.around.submitter_alive is False else ""
        return f"submitting: {items(row.items_total)} so far{left}"
    if at.open:
        return _open_sentence(at)
    pruned = "" if row.values_pruned_at is None else f"; values pruned {span(at.now - row.values_pruned_at)} ago"
    return _end_sentence(row) + pruned


def _end_sentence(row: JobRow) -> str:
    if row.status == COMPLETED and row.items_failed:
        return f"completed with warnings: {failed(row)}"
    why = row.status_message or _why(row)
    return f"{row.status}: {why}" if why else row.status


def _why(row: JobRow) -> str | None:
    if not row.items_total:
        return "no items"
    if row.status == CANCELLED and row.items_cancelled:
        return f"{row.items_cancelled:,} of {row.items_total:,} items"
    if row.status != FAILED:
        return None
    if row.items_failed:
        return failed(row)
    return "by request" if row.fail_requested_at is not None else row.last_error


def failed(row: JobRow) -> str:
    return f"{row.items_failed:,} of {row.items_total:,} items failed"


def _open_sentence(at: Standing) -> str:
    base = _base(at)
    runner = named(at.runner.id, at.runner.pid)
    if at.orphaned:
        what = f"{sum(held.items for held in at.lost):,} of its items" if at.runner.alive else "it"
        who = gone(at)
        return f"{base}, but nobody runs {what}" + (f": {who}" if who else "")
    if not at.runner.alive:
        return f"{base}, but no daemon is running"
    if at.row.paused_at is not None:
        return base
    if at.unknown_task:
        return f"{base}, but {runner} does not know the task {at.row.task}"
    if at.stalled and not at.idle:
        return f"{base}, but without progress for {span(at.silence or 0)}"
    return base


def _base(at: Standing) -> str:
    row = at.row
    # A fail comes before a cancel, as it does when the job ends.
    if row.fail_requested_at is not None:
        return "failing by request" + (f": {items(row.items_running)} running" if row.items_running else "")
    if row.cancel_requested_at is not None:
        return "cancelling" + (f": {items(row.items_running)} running" if row.items_running else "")
    if row.paused_at is not None:
        return "paused" + (f": {items(row.items_running)} still running" if row.items_running else "")
    if at.blocked_by:
        return f"{row.status}, after job {', '.join(map(str, at.blocked_by))}"
    if at.idle and at.due_in is not None:
        return f"{row.status}, next item in {span(at.due_in)}"
    if row.status == RUNNING and row.items_waiting and not row.items_running and not row.counts.queued:
        return f"running: {items(row.items_waiting)} waiting for the outside world"
    return f"{row.status}: {row.status_message}" if row.status_message else row.status


def named(daemon_id: int | None, pid: int | None) -> str:
    return "no daemon" if daemon_id is None else f"daemon {daemon_id}" + (f" (pid {pid})" if pid is not None else "")


def gone(at: Standing) -> str:
    """Say who ran what nobody runs now; empty where no daemon is known."""
    for held in at.lost:
        if held.daemon_id is not None:
            return f"{named(held.daemon_id, held.pid)} is gone"
    if not at.runner.alive and at.runner.id is not None:
        return f"{named(at.runner.id, at.runner.pid)} is gone"
    return ""


def items(count: int) -> str:
    return f"{count:,} item" if count == 1 else f"{count:,} items"


def seconds(length: float) -> str:
    """Return a length of time that somebody has set: ``1.5 s``, ``2 min``."""
    return f"{length:g} s" if length < _MINUTE else span(int(length * 1000))


def span(ms: int) -> str:
    """Return a length of time in words: its two largest units."""
    seconds = max(0, ms) // 1000
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
