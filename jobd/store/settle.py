"""How an attempt's outcome is written: once, guarded by its attempt, with everything that follows from it.

A batch is one transaction. Where a guard does not hold for one of its rows, or the database refuses one, the batch is
rolled back to its beginning and replayed with a savepoint for each outcome: the culprit alone is judged, the others
commit in the same pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import CANCELLED, COMPLETED, FAILED, RUNNING, SKIPPED
from jobd.store.counters import count_moves
from jobd.store.ending import Ended, count_completed, end_jobs
from jobd.store.events import record
from jobd.store.failures import Permanent
from jobd.store.halting import halt
from jobd.store.outcome import BACK, GIVEN_UP, RELEASED, Outcome, kind_of, status_of
from jobd.store.writers import Uneven, completions, item_event, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

_CANNOT: Final = "cannot be stored: "


class Settled(NamedTuple):
    """What became of a batch: outcomes applied now, applied before, come too late, refused by the database even as
    failures, the jobs that ended, and those that are now to fail because too many of their items have.
    """

    applied: list[Outcome]
    replayed: list[Outcome]
    late: list[Outcome]
    unstorable: list[Outcome]
    ended: list[Ended]
    halted: list[int]


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
        written = write(store, connection, outcomes, now=now, actor=actor)
        completed = completions(written)
        ended = count_completed(store, connection, completed, now=now, actor=actor) if completed else []
        settled = Settled(written, [], [], [], ended, [])
    except Exception as error:
        meant = store.judge(error)
        if not isinstance(meant, Uneven | Permanent):
            raise
        connection.execute("rollback to batch")
        store.news.undo(mark)
        settled = _one_by_one(store, connection, outcomes, now=now, actor=actor)
    connection.execute("release batch")
    # Before their ends: the failure that halts a job may be its last item.
    failing = {o.job_id for o in settled.applied if o.kind != COMPLETED and status_of(o) == FAILED}
    halted = halt(store, connection, failing, now=now, actor=actor) if failing else []
    open_ = {outcome.job_id for outcome in settled.applied} - {job.job_id for job in settled.ended}
    ended = end_jobs(store, connection, open_, now=now, actor=actor, before=settled.ended)
    for outcome in late:
        _record_late(store, connection, outcome, now=now, actor=actor)
    return settled._replace(ended=ended, halted=halted)


def _one_by_one(store: Store, connection: Connection, outcomes: Sequence[Outcome], *, now: int, actor: str) -> Settled:
    settled = Settled([], [], [], [], [], [])
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
        written = write(store, connection, [outcome], now=now, actor=actor)
        if completed := completions(written):
            # Its job ends with all others: what refuses an end does not make a failure of an item.
            count_moves(store, connection, completed, RUNNING, COMPLETED, progress=now)
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
    if (status, attempt) != (recorded, outcome.attempt - (kind_of(outcome) == RELEASED)):
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
        printed=None,
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
    """Return ``outcomes`` with those marked as saved of which a result is stored, and no others.

    Whoever gave an attempt up could not know: its handler runs on, and may store its result until the very last
    moment. And what a handler saved in a transaction of its own, which was rolled back, is not stored: believed, its
    item would have completed without a result.
    """
    asked = [(o.item_id, o.attempt) for o in outcomes if o.saved or o.kind in GIVEN_UP]
    if not asked:
        return outcomes
    source = (
        f"from {store.rows('item', 'attempt')} as m join results as r on r.item_id = m.item and r.attempt = m.attempt"
        " where r.status = 'completed'"
    )
    stored = {row[0] for row in store.gather(connection, "r.item_id as item_id", source, (store.pack(asked),))}
    return [o._replace(saved=o.item_id in stored) if o.saved or o.kind in GIVEN_UP else o for o in outcomes]


def _record_late(store: Store, connection: Connection, outcome: Outcome, *, now: int, actor: str) -> None:
    """Leave an event that an answer came for an attempt that is no longer the item's; nothing else changes."""
    found = connection.execute("select status from job_items where id=?", (outcome.item_id,)).fetchone()
    if found is not None:
        event = item_event(outcome, "late", found[0], found[0], now, actor)
        record(store, connection, [event._replace(message=f"{outcome.kind}, refused: not the item's attempt")])
