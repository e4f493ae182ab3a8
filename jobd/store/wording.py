"""What is said of a job: the sentence beside its status, and the warnings. Lengths of time, never times of day: a
sentence is read in every time zone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.states import CANCELLED, COMPLETED, FAILED, RUNNING

if TYPE_CHECKING:
    from jobd.store.standing import Holding, JobRow, Standing


def sentence(at: Standing) -> str:
    """Return the status in words, with what makes it more or less than it says."""
    row = at.row
    if row.deleted_at is not None:
        return "being deleted"
    if row.sealed_at is None:
        gone = ", but its submitter is gone" if at.around.submitter_alive is False else ""
        return f"submitting: {_items(row.items_total)} so far{gone}"
    return _open_sentence(at) if at.open else _end_sentence(row)


def _end_sentence(row: JobRow) -> str:
    if row.status == COMPLETED and row.items_failed:
        return f"completed with warnings: {_failed(row)}"
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
        return _failed(row)
    return "by request" if row.fail_requested_at is not None else row.last_error


def _failed(row: JobRow) -> str:
    return f"{row.items_failed:,} of {row.items_total:,} items failed"


def _open_sentence(at: Standing) -> str:
    base = _base(at)
    runner = _named(at.runner.id, at.runner.pid)
    if at.orphaned:
        what = f"{sum(held.items for held in at.lost):,} of its items" if at.runner.alive else "it"
        gone = _gone(at)
        return f"{base}, but nobody runs {what}" + (f": {gone}" if gone else "")
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
    if row.cancel_requested_at is not None:
        return "cancelling" + (f": {_items(row.items_running)} running" if row.items_running else "")
    if row.fail_requested_at is not None:
        return "failing by request" + (f": {_items(row.items_running)} running" if row.items_running else "")
    if row.paused_at is not None:
        return "paused" + (f": {_items(row.items_running)} still running" if row.items_running else "")
    if at.blocked_by:
        return f"{row.status}, after job {', '.join(map(str, at.blocked_by))}"
    if at.idle and at.due_in is not None:
        return f"{row.status}, next item in {span(at.due_in)}"
    if row.status == RUNNING and row.items_waiting and not row.items_running and not row.counts.queued:
        return f"running: {_items(row.items_waiting)} waiting for the outside world"
    return f"{row.status}: {row.status_message}" if row.status_message else row.status


def warnings(at: Standing) -> list[str]:
    """Return every inconsistency that can be seen without writing."""
    row = at.row
    if row.sealed_at is None:
        gone = at.around.submitter_alive is False
        return ["its submitter is gone: jobd recover removes the job"] if gone else []
    found = [_flight(at, held) for held in at.lost]
    if at.open:
        found += _runner_warnings(at)
    if row.status == COMPLETED and row.items_failed:
        found.append(_failed(row))
    if row.status == COMPLETED and not row.items_total:
        found.append("no items")
    return found + _contradictions(at)


def _flight(at: Standing, held: Holding) -> str:
    if held.daemon_id is None:
        return f"{_items(held.items)} running, and no daemon named"
    since = "" if held.heartbeat_at is None else f" for {span(at.now - held.heartbeat_at)}"
    return f"{_named(held.daemon_id, held.pid)} is gone{since}; {_items(held.items)} in flight"


def _runner_warnings(at: Standing) -> list[str]:
    """What the one who runs items, or the lack of one, means for an open job."""
    found, runner = [], _named(at.runner.id, at.runner.pid)
    if not at.runner.alive and not at.lost:
        found.append("no daemon is running" + (f": {_gone(at)}" if at.row.status == RUNNING and _gone(at) else ""))
    if at.unknown_task:
        found.append(f"{runner} does not know the task {at.row.task}")
    if at.runner.alive and at.runner.state.get("degraded"):
        found.append(f"{runner} is degraded: {at.runner.state['degraded']}")
    if at.stalled and not at.idle:
        found.append(f"no progress for {span(at.silence or 0)}")
    return found


def _contradictions(at: Standing) -> list[str]:
    """What no sequence of commits leaves behind, as far as it shows in what was read anyway."""
    row, counts, found = at.row, at.row.counts, []
    held = sum(holding.items for holding in at.around.holdings)
    if at.open and held != row.items_running:
        found.append(f"the counter says {row.items_running:,} running, the items say {held:,}: jobd doctor")
    if not at.open and counts.open:
        found.append(f"{row.status}, but {_items(counts.open)} open: jobd doctor")
    if at.open == (row.completed_at is not None):
        found.append(f"{row.status}, but {'with' if at.open else 'without'} a time of its end: jobd doctor")
    if row.status == RUNNING and row.started_at is None:
        found.append("running, but without a time of its start: jobd doctor")
    if row.created_at > at.now + 1_000:
        found.append(f"created {span(row.created_at - at.now)} in the future: the clock was set back")
    return found


def _named(daemon_id: int | None, pid: int | None) -> str:
    return "no daemon" if daemon_id is None else f"daemon {daemon_id}" + (f" (pid {pid})" if pid is not None else "")


def _gone(at: Standing) -> str:
    """Say who ran what nobody runs now; empty where no daemon is known."""
    for held in at.lost:
        if held.daemon_id is not None:
            return f"{_named(held.daemon_id, held.pid)} is gone"
    if not at.runner.alive and at.runner.id is not None:
        return f"{_named(at.runner.id, at.runner.pid)} is gone"
    return ""


def _items(count: int) -> str:
    return f"{count:,} item" if count == 1 else f"{count:,} items"


def span(ms: int) -> str:
    """Return a length of time in words: its two largest units."""
    seconds = max(0, ms) // 1000
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
