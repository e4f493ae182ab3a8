"""The warnings of a job: every inconsistency that can be seen without writing, each with the verb that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import COMPLETED, QUEUED, RUNNING
from jobd.store.wording import failed, gone, items, named, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.closeup import Closeup
    from jobd.store.standing import Holding, Standing

# A pass that is due is not late at once: two of its usual beats.
_LATE: Final = 120_000
_RECOVER: Final = "jobd recover"
_DOCTOR: Final = "jobd doctor"


def warnings(at: Standing) -> list[str]:
    """Return what of the job contradicts itself, and what keeps it from going on."""
    row = at.row
    if row.sealed_at is None:
        dead = at.around.submitter_alive is False
        return [f"its submitter is gone: {_RECOVER} removes the job"] if dead else []
    found = [_flight(at, held) for held in at.lost] if at.open else []
    if at.open:
        found += _runner(at)
    found += _requests(at)
    if row.deleted_at is not None:
        return found
    if row.status == COMPLETED and row.items_failed:
        found.append(failed(row))
    if row.status == COMPLETED and not row.items_total:
        found.append("no items")
    found += _contradictions(at)
    if at.around.closeup is not None:
        found += _from_close(at, at.around.closeup)
    return found


def _flight(at: Standing, held: Holding) -> str:
    if held.daemon_id is None:
        return f"{items(held.items)} running, and no daemon named: {_RECOVER}"
    since = "" if held.heartbeat_at is None else f" for {span(at.now - held.heartbeat_at)}"
    return f"{named(held.daemon_id, held.pid)} is gone{since}; {items(held.items)} in flight: {_RECOVER}"


def _runner(at: Standing) -> Iterator[str]:
    """What the one who runs items, or the lack of one, means for an open job."""
    row, runner = at.row, named(at.runner.id, at.runner.pid)
    if not at.runner.alive and not at.lost:
        why = f" ({gone(at)})" if row.status == RUNNING and gone(at) else ""
        yield f"no daemon is running{why}: jobd start"
    if at.unknown_task:
        yield f"{runner} does not know the task {row.task}: start the program that registers it"
    if at.runner.alive and at.runner.state.get("degraded"):
        yield f"{runner} is degraded ({at.runner.state['degraded']}): jobd health"
    if at.stalled and not at.idle:
        yield f"no progress for {span(at.silence or 0)}: jobd items {row.id} --status running"
    overdue = at.now - at.timeout_at if at.timeout_at is not None else 0
    if at.runner.alive and overdue > _LATE:
        yield f"its timeout passed {span(overdue)} ago: jobd time-out"


def _requests(at: Standing) -> Iterator[str]:
    """What was asked of the job and is not carried out, though there was time for it."""
    row = at.row
    left = row.counts.queued + row.items_waiting
    for verb, asked_at in (("cancel", row.cancel_requested_at), ("fail", row.fail_requested_at)):
        if at.open and left and asked_at is not None and _left_alone(at, asked_at):
            yield f"{verb} was requested {span(at.now - asked_at)} ago, {items(left)} open still: jobd {verb} {row.id}"
    if row.deleted_at is not None and _left_alone(at, row.deleted_at):
        yield f"its removal was requested {span(at.now - row.deleted_at)} ago: {_RECOVER}"


def _left_alone(at: Standing, asked_at: int) -> bool:
    return not at.runner.alive or at.now - asked_at > _LATE


def _contradictions(at: Standing) -> Iterator[str]:
    """What no sequence of commits leaves behind, as far as it shows in what was read anyway."""
    row, counts = at.row, at.row.counts
    held = sum(holding.items for holding in at.around.holdings)
    if held != row.items_running:
        yield f"the counter says {row.items_running:,} running, the items say {held:,}: {_DOCTOR}"
    if held and row.status != RUNNING:
        yield f"{row.status}, but {items(held)} running: {_DOCTOR}"
    if not at.open and counts.open:
        yield f"{row.status}, but {items(counts.open)} open: {_DOCTOR}"
    if at.open and not counts.open and not at.blocked_by:
        yield f"{row.status}, but nothing of it is open: {_RECOVER}"
    if at.open == (row.completed_at is not None):
        yield f"{row.status}, but {'with' if at.open else 'without'} a time of its end: {_DOCTOR}"
    if row.status == RUNNING and row.started_at is None:
        yield f"running, but without a time of its start: {_DOCTOR}"
    if row.created_at > at.now + 1_000:
        yield f"created {span(row.created_at - at.now)} in the future: the clock was set back"


def _from_close(at: Standing, seen: Closeup) -> Iterator[str]:
    others = [differs for differs in seen.differs if differs.status != QUEUED]
    # What is queued is what remains: with another counter it only goes along. That of the running ones is told already.
    for status, counter, found in others or seen.differs:
        if status != RUNNING:
            yield f"the counter says {counter:,} {status}, the items say {found:,}: {_DOCTOR}"
    for status, count in seen.stored:
        yield f"a result is stored of {items(count)} {status}: jobd reconcile"
    if seen.unstarted:
        yield f"{items(seen.unstarted)} running without a start or an attempt: {_DOCTOR}"
    late = at.now - seen.deadline_at if seen.deadline_at is not None else 0
    if seen.overdue and at.runner.alive and late > _LATE:
        yield f"the deadline of {items(seen.overdue)} waiting passed {span(late)} ago: jobd time-out"
