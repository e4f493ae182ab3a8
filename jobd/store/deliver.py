"""A result from outside: of work that waits, runs, was recovered meanwhile, or was thought to have failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd import codec
from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, SKIPPED, WAITING, legal
from jobd.store.contradicted import of_items
from jobd.store.counters import count_moves, last_errors
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record
from jobd.store.halting import halt
from jobd.store.reconcile import carry_out
from jobd.store.transitions import Move
from jobd.store.unique import judge_items, store_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection, Store

_FOUND: Final = (
    "select i.id, i.job_id, i.attempt, i.status, i.external_id, j.sealed_at is null, j.deleted_at is not null,"
    " r.status, r.value from job_items as i join jobs as j on j.id = i.job_id"
    " left join results as r on r.item_id = i.id and r.attempt = i.attempt where i.id = ?"
)
_FAILURE: Final = (
    "insert into results (item_id, attempt, task, key, status, source, value, created_at)"
    " select i.id, i.attempt, j.task, i.key, 'failed', 'outside', ?, ?"
    " from job_items as i join jobs as j on j.id = i.job_id where i.id = ?"
    " on conflict (item_id) do update set attempt=excluded.attempt, status=excluded.status, source=excluded.source,"
    " value=excluded.value, period=null, created_at=excluded.created_at, pruned_at=null"
)
_ENDED: Final = ("completed_at=?", "deadline_at=null", "available_at=0")
_OPEN: Final = (RUNNING, WAITING, QUEUED)
_COMPLETE: Final = {
    source: Move(
        "job_items", "complete", COMPLETED, source=source, fenced=True, sets=(*_ENDED, "error_type=null", "error=null")
    )
    for source in _OPEN
}
_SKIP: Final = {
    source: Move(
        "job_items", "skip", SKIPPED, source=source, fenced=True, columns=("error",),
        sets=(*_ENDED, "error_type='Skip'"),
    )
    for source in _OPEN
}  # fmt: skip
_FAIL: Final = {
    source: Move(
        "job_items", "fail", FAILED, source=source, fenced=True, columns=("error",),
        sets=(*_ENDED, "error_type=null", "failures=failures+1"),
    )
    for source in (RUNNING, WAITING)
}  # fmt: skip


class Found(NamedTuple):
    """An item with what is stored of its present attempt: the result's status, and its value (JSON text)."""

    id: int
    job_id: int
    attempt: int
    status: str
    external_id: str | None
    submitting: int
    deleting: int
    said: str | None
    value: str | None


def deliver(store: Store, item_id: int, value: str, *, now: int, actor: str) -> bool:
    """Store the result (JSON text) of an item's work and complete the item; false if that very result was known.

    Where another result has the period of a unique task, the item is skipped with the reason and this one not stored.
    Whoever runs the item still gets its answer refused.

    Raises:
        NotFound: there is no such item.
        IllegalTransition: it was cancelled or skipped.
        Conflict: it has another result, its job is being submitted or deleted, or it has failed and the period of its
            unique task is another's.
    """

    def work(connection: Connection) -> bool:
        item = found(connection, item_id)
        return take(store, connection, item, value, now=now, actor=actor, why="delivered from outside")

    return _written(store, work)


def take(store: Store, connection: Connection, item: Found, value: str, *, now: int, actor: str, why: str) -> bool:
    """Do what :func:`deliver` does with an item that was found in the caller's transaction; ``why`` is its event's."""
    if COMPLETED in {item.status, item.said}:
        _check_known(item, COMPLETED, value)
        # What its handler saved before its end is the same result: the item need not wait for that end.
        return bool(carry_out(store, connection, of_items(store, connection, [item.id]), now=now, actor=actor))
    judged = judge_items(store, connection, [item.id], now=now)
    if item.id in judged.lost:
        _skip(store, connection, item, judged.lost[item.id], now=now, actor=actor)
        return True
    store_results(store, connection, {item.id: value}, now=now, source="outside", judged=judged)
    if item.status == FAILED:
        carry_out(store, connection, of_items(store, connection, [item.id]), now=now, actor=actor)
    else:
        _COMPLETE[item.status].run(store, connection, [(item.id, item.attempt)], (now,))
        _follow(store, connection, item, "complete", COMPLETED, why, now=now, actor=actor)
    return True


def deliver_failure(store: Store, item_id: int, reason: str, *, now: int, actor: str) -> bool:
    """Store that an item's work has failed outside, and why, and fail the item; false if that very reason was known.

    Raises:
        NotFound: there is no such item.
        IllegalTransition: it was cancelled or skipped.
        Conflict: it has a result, or its job is being submitted or deleted.
    """

    def work(connection: Connection) -> bool:
        return take_failure(store, connection, found(connection, item_id), reason, now=now, actor=actor)

    return _written(store, work)


def take_failure(store: Store, connection: Connection, item: Found, reason: str, *, now: int, actor: str) -> bool:
    """Do what :func:`deliver_failure` does with an item that was found in the caller's transaction."""
    text = json.dumps(reason, ensure_ascii=False)
    if item.status == COMPLETED or item.said is not None:
        _check_known(item, FAILED, text)
        return bool(carry_out(store, connection, of_items(store, connection, [item.id]), now=now, actor=actor))
    connection.execute(_FAILURE, (text, now, item.id))
    if item.status == QUEUED:
        carry_out(store, connection, of_items(store, connection, [item.id]), now=now, actor=actor)
    elif item.status == FAILED:
        _say_why(store, connection, item, reason, now=now, actor=actor)
    else:
        _FAIL[item.status].run(store, connection, [(item.id, item.attempt, reason)], (now,))
        last_errors(store, connection, {item.job_id: reason})
        _follow(store, connection, item, "fail", FAILED, reason, now=now, actor=actor)
    return True


def _written(store: Store, work: Callable[[Connection], bool]) -> bool:
    moved = store.write(work)
    if moved:
        store.wake()
    return moved


def found(connection: Connection, item_id: int) -> Found:
    """Read an item that an answer from outside has come for.

    Raises:
        NotFound: there is no such item.
        IllegalTransition: it was cancelled or skipped.
        Conflict: its job is being submitted or deleted.
    """
    row = connection.execute(_FOUND, (item_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no item {item_id}")
    item = Found(*row)
    if item.submitting or item.deleting:
        raise Conflict(f"job {item.job_id} is being {'deleted' if item.deleting else 'submitted'}")
    if item.status in {CANCELLED, SKIPPED}:
        raise IllegalTransition(f"item {item_id}", "take a result", item.status, legal("job_items", item.status))
    return item


def _check_known(item: Found, said: str, value: str) -> None:
    """Refuse a result where another one is stored."""
    if item.said == said and item.value is not None and _equal(item.value, value):
        return
    if item.said is None:
        what = f"is {item.status}"
    elif item.value is None:
        what = "has a result, whose value was pruned"
    else:
        what = "has another result" if item.said == said else f"has a result that says {item.said}"
    raise Conflict(f"item {item.id} {what}", hint=f"jobd item {item.job_id}:#{item.id}")


def _equal(one: str, other: str) -> bool:
    try:
        # As text: in Python 1 equals true.
        return codec.canonical(one) == codec.canonical(other)
    except (ValueError, RecursionError):
        return one == other


def _skip(store: Store, connection: Connection, item: Found, why: str, *, now: int, actor: str) -> None:
    if item.status == FAILED:
        raise Conflict(f"item {item.id} has failed, and stays so: {why}")
    _SKIP[item.status].run(store, connection, [(item.id, item.attempt, why)], (now,))
    _follow(store, connection, item, "skip", SKIPPED, f"Skip: {why}", now=now, actor=actor)


def _say_why(store: Store, connection: Connection, item: Found, reason: str, *, now: int, actor: str) -> None:
    """Let an item that has failed say what the outside says of it."""
    connection.execute("update job_items set error=?, error_type=null where id=?", (reason, item.id))
    last_errors(store, connection, {item.job_id: reason})
    record(store, connection, [_event(item, "deliver", FAILED, reason, now, actor)])


def _follow(
    store: Store, connection: Connection, item: Found, edge: str, target: str, why: str, *, now: int, actor: str
) -> None:
    """Write what follows from the move, in its transaction."""
    record(store, connection, [_event(item, edge, target, why, now, actor)])
    count_moves(store, connection, {item.job_id: 1}, item.status, target, progress=now)
    if target == FAILED:
        halt(store, connection, [item.job_id], now=now, actor=actor)
    end_jobs(store, connection, [item.job_id], now=now, actor=actor)


def _event(item: Found, name: str, target: str, why: str, now: int, actor: str) -> Event:
    return Event(
        item.job_id, item.id, name, item.status, target, now, actor,
        attempt=item.attempt, external_id=item.external_id, message=why,
    )  # fmt: skip
