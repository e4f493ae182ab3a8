"""What each kind of outcome writes: its move, and everything that follows from it, for a whole batch at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, SKIPPED
from jobd.store import watchlist
from jobd.store.counters import count_moves, last_errors
from jobd.store.defer import Deferral, defer_in, not_written
from jobd.store.events import Event, record
from jobd.store.outcome import (
    BACK,
    DEFERRED,
    INTERRUPTED,
    OVERDUE,
    RELEASED,
    RESCHEDULED,
    STOPPED,
    TARGETS,
    TIMED_OUT,
    Kind,
    Outcome,
    kind_of,
    reason,
)
from jobd.store.transitions import Move
from jobd.store.unique import Judged, Wanted, hold, judge, store_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


class Uneven(Exception):
    """A guard did not hold for every row of a batch."""


_COMPLETE: Final = Move(
    "job_items", "complete", COMPLETED, source=RUNNING, fenced=True, columns=("started_at", "completed_at"),
    sets=("error_type=null", "error=null"),
)  # fmt: skip
# The same for items that share their attempt and both times, as quick ones do by hundreds: half the cost.
_COMPLETE_ALIKE: Final = Move(
    "job_items",
    "complete",
    COMPLETED,
    source=RUNNING,
    sets=("error_type=null", "error=null", "started_at=?", "completed_at=?"),
    also="job_items.attempt = ?",
)
_FAIL: Final = Move(
    "job_items", "fail", FAILED, source=RUNNING, fenced=True,
    columns=("started_at", "completed_at", "error_type", "error"), sets=("failures=failures+1",),
)  # fmt: skip
_SKIP: Final = Move(
    "job_items", "skip", SKIPPED, source=RUNNING, fenced=True,
    columns=("started_at", "completed_at", "error_type", "error"),
)  # fmt: skip
_CANCEL: Final = Move("job_items", "cancel", CANCELLED, source=RUNNING, fenced=True, columns=("completed_at",))
# What never began was no attempt. Nobody holds its token, so it may be given again.
_RELEASE: Final = Move(
    "job_items",
    "release",
    QUEUED,
    fenced=True,
    sets=("attempt=job_items.attempt-1", "daemon_id=null", "started_at=null"),
)
_STOP: Final = Move("job_items", "release", QUEUED, fenced=True, sets=("daemon_id=null",))
_INTERRUPT: Final = Move("job_items", "time_out", QUEUED, source=RUNNING, fenced=True, sets=("daemon_id=null",))
_TIME_OUT: Final = Move(
    "job_items", "time_out", FAILED, source=RUNNING, fenced=True,
    columns=("started_at", "completed_at", "error_type", "error"), sets=("failures=failures+1",),
)  # fmt: skip

_AGAIN = ("error_type", "error", "available_at")
_SETS_AGAIN = ("failures=failures+1", "daemon_id=null")
_RESCHEDULE: Final = Move("job_items", "reschedule", QUEUED, fenced=True, columns=_AGAIN, sets=_SETS_AGAIN)
_TIME_OUT_AGAIN: Final = Move(
    "job_items", "time_out", QUEUED, source=RUNNING, fenced=True, columns=_AGAIN, sets=_SETS_AGAIN
)

_WORTH_GROUPING: Final = 6  # items that a statement of its own has to serve


def write(store: Store, connection: Connection, outcomes: Sequence[Outcome], *, now: int, actor: str) -> list[Outcome]:
    """Write outcomes and return them as they were written: who lost a period was skipped.

    What has completed, :func:`completions`, is left for the caller to count: jobs may end with it.
    """
    unique = [o for o in outcomes if o.period is not None and o.kind == COMPLETED and not o.saved]
    judged = judge(store, connection, [_wanted(o) for o in unique]) if unique else None
    if judged is not None and judged.lost:
        outcomes = [_lost(o, judged) if o.item_id in judged.lost else o for o in outcomes]
    by_kind: dict[Kind, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(kind_of(outcome), []).append(outcome)
    for kind, batch in by_kind.items():
        _WRITERS[kind](store, connection, batch, now, actor)
        if kind == DEFERRED:
            continue
        # What only went back to the queue is no progress.
        target, progress = TARGETS.get(kind, kind), None if kind in BACK else now
        if kind != COMPLETED:
            count_moves(store, connection, Counter(o.job_id for o in batch), RUNNING, target, progress=progress)
        if kind not in BACK:
            watchlist.note(store, connection, batch, target)
    if judged is not None:
        hold(store, connection, judged, judged.held)
    _keep_output(store, connection, [outcome for outcome in outcomes if outcome.output])
    if printed := [outcome for outcome in outcomes if outcome.printed]:
        _keep_printed(connection, printed)
    return list(outcomes)


def completions(outcomes: Sequence[Outcome]) -> Counter[int]:
    """Return of how many items of each job these say that they have completed."""
    return Counter([outcome.job_id for outcome in outcomes if kind_of(outcome) == COMPLETED])


def _wanted(outcome: Outcome) -> Wanted:
    assert outcome.period is not None  # noqa: S101 - only who has one is asked
    return Wanted(outcome.item_id, outcome.job_id, outcome.task, outcome.key, outcome.period, outcome.refresh)


def _lost(outcome: Outcome, judged: Judged) -> Outcome:
    return outcome._replace(kind=SKIPPED, value=None, error_type="Skip", error=judged.lost[outcome.item_id])


def _apply(store: Store, connection: Connection, move: Move, rows: Sequence[Sequence[Any]]) -> None:
    if move.run(store, connection, rows, noted=True) != len(rows):
        raise Uneven


def _complete(store: Store, connection: Connection, batch: Sequence[Outcome]) -> None:
    alike: dict[tuple[int, int, int], list[tuple[int]]] = {}
    for outcome in batch:
        alike.setdefault((outcome.attempt, outcome.started_at, outcome.completed_at), []).append((outcome.item_id,))
    if len(alike) * _WORTH_GROUPING > len(batch):
        _apply(store, connection, _COMPLETE, [(o.item_id, o.attempt, o.started_at, o.completed_at) for o in batch])
        return
    for (attempt, started_at, completed_at), rows in alike.items():
        moved = _COMPLETE_ALIKE.run(store, connection, rows, (started_at, completed_at), (attempt,), noted=True)
        if moved != len(rows):
            raise Uneven


def _completed(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _complete(store, connection, batch)
    values = {o.item_id: o.value or "null" for o in batch if not o.saved}
    # After save_result only a later value replaces the stored one; None says nothing.
    values |= {o.item_id: o.value for o in batch if o.saved and o.kind == COMPLETED and o.value not in {None, "null"}}
    store_results(store, connection, values, now=now)
    overruled = [o for o in batch if o.kind != COMPLETED]
    record(
        store,
        connection,
        [
            item_event(o, "complete", RUNNING, COMPLETED, now, actor)._replace(
                message=f"its result was stored before it ended as {o.kind}: {reason(o)}"
            )
            for o in overruled
        ],
    )


def _failed(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _FAIL, batch)
    record(store, connection, [item_event(o, "fail", RUNNING, FAILED, now, actor) for o in batch])
    last_errors(store, connection, {o.job_id: reason(o) for o in batch})


def _skipped(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _SKIP, batch)
    record(store, connection, [item_event(o, "skip", RUNNING, SKIPPED, now, actor) for o in batch])


def _unhappy(store: Store, connection: Connection, move: Move, batch: Sequence[Outcome]) -> None:
    rows = [(o.item_id, o.attempt, o.started_at, o.completed_at, o.error_type, o.error) for o in batch]
    _apply(store, connection, move, rows)


def _cancelled(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _CANCEL, [(o.item_id, o.attempt, o.completed_at) for o in batch])
    record(store, connection, [item_event(o, "cancel", RUNNING, CANCELLED, now, actor) for o in batch])


def _released(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:  # noqa: ARG001 - one of the writers
    _apply(store, connection, _RELEASE, [(o.item_id, o.attempt) for o in batch])


def _stopped(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _STOP, [(o.item_id, o.attempt) for o in batch])
    record(store, connection, [item_event(o, "release", RUNNING, QUEUED, now, actor) for o in batch])


def _interrupted(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _INTERRUPT, [(o.item_id, o.attempt) for o in batch])
    record(store, connection, [item_event(o, "time_out", RUNNING, QUEUED, now, actor) for o in batch])


def _timed_out(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _TIME_OUT, batch)
    record(store, connection, [item_event(o, "time_out", RUNNING, FAILED, now, actor) for o in batch])
    last_errors(store, connection, {o.job_id: reason(o) for o in batch})


def _rescheduled(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _again(store, connection, _RESCHEDULE, batch, now, actor)


def _overdue(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _again(store, connection, _TIME_OUT_AGAIN, batch, now, actor)


def _again(store: Store, connection: Connection, move: Move, batch: Sequence[Outcome], now: int, actor: str) -> None:
    """Queue what failed for its time: the error stays with the item until it has another or none."""
    rows = [(o.item_id, o.attempt, o.error_type, o.error, o.available_at) for o in batch]
    _apply(store, connection, move, rows)
    record(store, connection, [item_event(o, move.edge.name, RUNNING, QUEUED, now, actor) for o in batch])
    last_errors(store, connection, {o.job_id: reason(o) for o in batch})


def _deferred(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    """Nearly always there is nothing to write: the handler was left after its deferral had been committed."""
    missing = not_written(store, connection, [(o.item_id, o.attempt) for o in batch])
    for o in batch:
        if o.item_id in missing and o.deferral is not None:
            deferral = Deferral(*o.deferral)
            if not defer_in(store, connection, o.item_id, o.attempt, deferral, now=now, actor=actor):
                raise Uneven


_WRITERS: Final = {
    DEFERRED: _deferred,
    COMPLETED: _completed,
    FAILED: _failed,
    SKIPPED: _skipped,
    CANCELLED: _cancelled,
    RELEASED: _released,
    STOPPED: _stopped,
    INTERRUPTED: _interrupted,
    TIMED_OUT: _timed_out,
    RESCHEDULED: _rescheduled,
    OVERDUE: _overdue,
}


def _keep_output(store: Store, connection: Connection, outcomes: Sequence[Outcome]) -> None:
    rows = [(o.item_id, o.attempt, o.output[0], int(o.output[1])) for o in outcomes if o.output]
    if rows:
        columns = "item_id, attempt, text, truncated"
        connection.execute(
            f"insert into item_output ({columns}) select {columns}"
            f" from {store.rows('item_id', 'attempt', 'text', 'truncated')} as m where true"
            " on conflict (item_id) do update set"
            " attempt=excluded.attempt, text=excluded.text, truncated=excluded.truncated",
            (store.pack(rows),),
        )


_PRINTED: Final = (
    "insert or replace into command_output (item_id, attempt, stdout, stderr, truncated) values (?, ?, ?, ?, ?)"
)


def _keep_printed(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Keep what commands printed; a row is new each time, so that its id tells the order in which they ended."""
    # Row by row: what is packed is JSON, and these are bytes. There are as many as commands that have ended.
    for o in outcomes:
        if o.printed is not None:
            streams = (o.printed.stdout.encode("latin-1"), o.printed.stderr.encode("latin-1"))
            connection.execute(_PRINTED, (o.item_id, o.attempt, *streams, int(o.printed.truncated)))


def item_event(outcome: Outcome, name: str, source: str, target: str, now: int, actor: str) -> Event:
    """Return the event that an outcome leaves of its item."""
    return Event(
        outcome.job_id, outcome.item_id, name, source, target, now, actor,
        attempt=outcome.attempt, message=reason(outcome),
    )  # fmt: skip
