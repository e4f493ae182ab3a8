"""How an attempt's outcome is written: once, guarded by its attempt, with everything that follows from it.

A batch is one transaction. Where a guard does not hold for one of its rows, or the database refuses one, the batch is
rolled back to its beginning and replayed with a savepoint for each outcome: the culprit alone is judged, the others
commit in the same pass.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, SKIPPED
from jobd.store import watchlist
from jobd.store.base import Permanent
from jobd.store.ending import Ended, end_jobs
from jobd.store.transitions import Event, Move, count_moves, last_errors, record
from jobd.store.unique import Judged, Wanted, hold, judge, store_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


# What an attempt came to: a status to end in, or back to the queue. RELEASED never began; STOPPED was under way when
# its daemon left, INTERRUPTED when its job had made no progress for too long; TIMED_OUT took too long itself. Plain
# texts, because an enum's hash costs more than the rest of an outcome.
Kind = Literal["completed", "failed", "skipped", "cancelled", "released", "stopped", "interrupted", "timed_out"]
RELEASED: Final = "released"
STOPPED: Final = "stopped"
INTERRUPTED: Final = "interrupted"
TIMED_OUT: Final = "timed_out"
_CANNOT: Final = "cannot be stored: "
KINDS: Final = frozenset(get_args(Kind))
BACK: Final = frozenset({RELEASED, STOPPED, INTERRUPTED})
# What somebody else says of an attempt, whose handler runs on.
GIVEN_UP: Final = frozenset({STOPPED, INTERRUPTED, TIMED_OUT})
_TARGETS: Final = {**dict.fromkeys(BACK, QUEUED), TIMED_OUT: FAILED}


class Outcome(NamedTuple):
    """What one attempt reports. Times are Unix ms; ``value`` is JSON text; ``output`` is (text, truncated)."""

    item_id: int
    job_id: int
    attempt: int
    task: str
    key: str
    kind: Kind
    started_at: int
    completed_at: int
    value: str | None = None
    error_type: str | None = None
    error: str | None = None
    output: tuple[str, bool] | None = None
    saved: bool = False  # ctx.save_result has stored the result already: the work is declared complete
    period: str | None = None  # that the result of a unique task claims
    refresh: bool = False  # it takes its period over from an older result


class Settled(NamedTuple):
    """What became of a batch: outcomes applied now, applied before, come too late, refused by the database even as
    failures, and the jobs that ended.
    """

    applied: list[Outcome]
    replayed: list[Outcome]
    late: list[Outcome]
    unstorable: list[Outcome]
    ended: list[Ended]


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


_WORTH_GROUPING: Final = 6  # items that a statement of its own has to serve


def settle(
    store: Store, connection: Connection, outcomes: Sequence[Outcome], *, now: int, actor: str,
    late: Sequence[Outcome] = (),
) -> Settled:  # fmt: skip
    """Write a batch of outcomes, and end the jobs that have nothing open any more.

    ``late`` are those of attempts that were given up before: each leaves an event and changes nothing.

    Raises:
        Transient: the store cannot be written now; nothing was.
    """
    outcomes = _declared(store, connection, _under_request(store, connection, outcomes))
    connection.execute("savepoint batch")
    mark = store.news.mark()
    try:
        settled = Settled(_write(store, connection, outcomes, now=now, actor=actor), [], [], [], [])
    except Exception as error:
        meant = store.judge(error)
        if not isinstance(meant, Uneven | Permanent):
            raise
        connection.execute("rollback to batch")
        store.news.undo(mark)
        settled = _one_by_one(store, connection, outcomes, now=now, actor=actor)
    connection.execute("release batch")
    ended = end_jobs(store, connection, {outcome.job_id for outcome in settled.applied}, now=now, actor=actor)
    for outcome in late:
        _record_late(store, connection, outcome, now=now, actor=actor)
    return settled._replace(ended=ended)


def _one_by_one(store: Store, connection: Connection, outcomes: Sequence[Outcome], *, now: int, actor: str) -> Settled:
    settled = Settled([], [], [], [], [])
    for reported in outcomes:
        outcome = reported
        answer = _write_one(store, connection, outcome, now=now, actor=actor)
        if isinstance(answer, Permanent):
            outcome = _refused(reported, str(answer))
            answer = _write_one(store, connection, outcome, now=now, actor=actor)
        if isinstance(answer, Outcome):
            settled.applied.append(answer)
        elif isinstance(answer, Permanent):
            settled.unstorable.append(reported)
        elif _replayed(connection, outcome):
            settled.replayed.append(outcome)
        else:
            _record_late(store, connection, outcome, now=now, actor=actor)
            settled.late.append(outcome)
    return settled


def _write_one(
    store: Store, connection: Connection, outcome: Outcome, *, now: int, actor: str
) -> Outcome | Uneven | Permanent:
    """Write one outcome under a savepoint; return it as it was written, or what refused it."""
    connection.execute("savepoint one")
    mark = store.news.mark()
    try:
        written = _write(store, connection, [outcome], now=now, actor=actor)
    except Exception as error:
        meant = store.judge(error)
        if not isinstance(meant, Uneven | Permanent):
            raise
        connection.execute("rollback to one")
        store.news.undo(mark)
        connection.execute("release one")
        return meant
    connection.execute("release one")
    return written[0]


_RECORDED: Final = (
    "select i.status, i.attempt, i.error, r.source, r.value from job_items as i"
    " left join results as r on r.item_id = i.id and r.attempt = i.attempt where i.id = ?"
)


def _replayed(connection: Connection, outcome: Outcome) -> bool:
    """Say whether this very outcome is recorded already, as after a commit whose answer was lost."""
    found = connection.execute(_RECORDED, (outcome.item_id,)).fetchone()
    if found is None:
        return False
    status, attempt, error, source, value = found
    if (status, attempt) == (FAILED, outcome.attempt) and (error or "").startswith(_CANNOT):
        return True
    recorded = status_of(outcome)
    if outcome.period is not None and status == SKIPPED:
        recorded = SKIPPED
    if (status, attempt) != (recorded, outcome.attempt - (_kind(outcome) == RELEASED)):
        return False
    if status == COMPLETED:
        # Somebody else may have completed this very attempt: from outside, or by what its task's verify said.
        own = outcome.value or "null"
        return source == "handler" and (value in {None, own} or (outcome.saved and own == "null"))
    # A handler that fails stores no result: where there is one, somebody else has failed the item.
    return status != FAILED or source is None


def _refused(outcome: Outcome, reason: str) -> Outcome:
    return outcome._replace(
        kind=FAILED,
        value=None,
        output=None,
        error_type=None,
        error=f"{_CANNOT}{reason}",
        period=None,
    )


def _under_request(store: Store, connection: Connection, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Return ``outcomes`` with what would be queued again cancelled, where its job is being cancelled or failed.

    A handler that raised Cancelled though nobody asked for it has failed.
    """
    doubtful = {o.job_id for o in outcomes if o.kind in BACK or o.kind == CANCELLED}
    if not doubtful:
        return outcomes
    source = (
        f"from jobs where id in (select id from {store.rows('id')} as m)"
        " and (cancel_requested_at is not null or fail_requested_at is not null)"
    )
    requested = {row[0] for row in store.gather(connection, "id", source, (store.pack([(i,) for i in doubtful]),))}
    judged = []
    for outcome in outcomes:
        kind = outcome.kind
        if kind in BACK and outcome.job_id in requested:
            kind = CANCELLED
        elif kind == CANCELLED and outcome.job_id not in requested:
            kind = FAILED
        judged.append(outcome._replace(kind=kind))
    return judged


def _declared(store: Store, connection: Connection, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Return ``outcomes`` with those that were given up marked as saved of which a result is stored.

    Whoever gave them up could not know: the handler runs on, and may store its result until the very last moment.
    """
    stopped = [(o.item_id, o.attempt) for o in outcomes if o.kind in GIVEN_UP and not o.saved]
    if not stopped:
        return outcomes
    source = (
        f"from {store.rows('item', 'attempt')} as m join results as r on r.item_id = m.item and r.attempt = m.attempt"
        " where r.status = 'completed'"
    )
    saved = {row[0] for row in store.gather(connection, "r.item_id as item_id", source, (store.pack(stopped),))}
    return [o._replace(saved=True) if o.kind in GIVEN_UP and o.item_id in saved else o for o in outcomes]


def _kind(outcome: Outcome) -> Kind:
    # save_result declared the work complete: what the handler did after that does not undo it.
    return COMPLETED if outcome.saved else outcome.kind


def status_of(outcome: Outcome) -> str:
    """Return the status in which an outcome leaves its item."""
    kind = _kind(outcome)
    return _TARGETS.get(kind, kind)


def _write(store: Store, connection: Connection, outcomes: Sequence[Outcome], *, now: int, actor: str) -> list[Outcome]:
    """Write outcomes and return them as they were written: who lost a period was skipped."""
    unique = [o for o in outcomes if o.period is not None and o.kind == COMPLETED and not o.saved]
    judged = judge(store, connection, [_wanted(o) for o in unique]) if unique else None
    if judged is not None and judged.lost:
        outcomes = [_lost(o, judged) if o.item_id in judged.lost else o for o in outcomes]
    by_kind: dict[Kind, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(_kind(outcome), []).append(outcome)
    for kind, batch in by_kind.items():
        _WRITERS[kind](store, connection, batch, now, actor)
        # What only went back to the queue is no progress.
        target, progress = _TARGETS.get(kind, kind), None if kind in BACK else now
        count_moves(store, connection, Counter(o.job_id for o in batch), RUNNING, target, progress=progress)
        if kind not in BACK:
            watchlist.note(store, connection, batch, target)
    if judged is not None:
        hold(store, connection, judged, judged.held)
    _keep_output(store, connection, [outcome for outcome in outcomes if outcome.output])
    return list(outcomes)


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
            _item_event(o, "complete", RUNNING, COMPLETED, now, actor)._replace(
                message=f"its result was stored before it ended as {o.kind}: {_reason(o)}"
            )
            for o in overruled
        ],
    )


def _failed(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _FAIL, batch)
    record(store, connection, [_item_event(o, "fail", RUNNING, FAILED, now, actor) for o in batch])
    last_errors(store, connection, {o.job_id: _reason(o) for o in batch})


def _skipped(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _SKIP, batch)
    record(store, connection, [_item_event(o, "skip", RUNNING, SKIPPED, now, actor) for o in batch])


def _unhappy(store: Store, connection: Connection, move: Move, batch: Sequence[Outcome]) -> None:
    rows = [(o.item_id, o.attempt, o.started_at, o.completed_at, o.error_type, o.error) for o in batch]
    _apply(store, connection, move, rows)


def _cancelled(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _CANCEL, [(o.item_id, o.attempt, o.completed_at) for o in batch])
    record(store, connection, [_item_event(o, "cancel", RUNNING, CANCELLED, now, actor) for o in batch])


def _released(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:  # noqa: ARG001 - one of the writers
    _apply(store, connection, _RELEASE, [(o.item_id, o.attempt) for o in batch])


def _stopped(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _STOP, [(o.item_id, o.attempt) for o in batch])
    record(store, connection, [_item_event(o, "release", RUNNING, QUEUED, now, actor) for o in batch])


def _interrupted(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _apply(store, connection, _INTERRUPT, [(o.item_id, o.attempt) for o in batch])
    record(store, connection, [_item_event(o, "time_out", RUNNING, QUEUED, now, actor) for o in batch])


def _timed_out(store: Store, connection: Connection, batch: Sequence[Outcome], now: int, actor: str) -> None:
    _unhappy(store, connection, _TIME_OUT, batch)
    record(store, connection, [_item_event(o, "time_out", RUNNING, FAILED, now, actor) for o in batch])
    last_errors(store, connection, {o.job_id: _reason(o) for o in batch})


_WRITERS: Final = {
    COMPLETED: _completed,
    FAILED: _failed,
    SKIPPED: _skipped,
    CANCELLED: _cancelled,
    RELEASED: _released,
    STOPPED: _stopped,
    INTERRUPTED: _interrupted,
    TIMED_OUT: _timed_out,
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


def _record_late(store: Store, connection: Connection, outcome: Outcome, *, now: int, actor: str) -> None:
    """Leave an event that an answer came for an attempt that is no longer the item's; nothing else changes."""
    found = connection.execute("select status from job_items where id=?", (outcome.item_id,)).fetchone()
    if found is not None:
        event = _item_event(outcome, "late", found[0], found[0], now, actor)
        record(store, connection, [event._replace(message=f"{outcome.kind}, refused: not the item's attempt")])


def _item_event(outcome: Outcome, name: str, source: str, target: str, now: int, actor: str) -> Event:
    return Event(
        outcome.job_id, outcome.item_id, name, source, target, now, actor,
        attempt=outcome.attempt, message=_reason(outcome),
    )  # fmt: skip


def _reason(outcome: Outcome) -> str | None:
    if outcome.error_type and outcome.error:
        return f"{outcome.error_type}: {outcome.error}"
    return outcome.error_type or outcome.error
