"""What a running attempt says of itself: progress, and a result before its end. Fenced by the attempt."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from jobd.errors import Lost, Skip
from jobd.states import COMPLETED
from jobd.store.unique import Judged, Wanted, hold, judge

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store

_MINE = "id = ? and attempt = ? and status = 'running'"


def save_progress(
    store: Store, job_id: int, item_id: int, attempt: int, progress: str, *, now: int, patience: float
) -> None:
    """Keep an item's progress (JSON) and count it as progress of its job.

    Raises:
        Lost: the attempt is no longer the item's.
    """

    def work(connection: Connection) -> None:
        changed = connection.execute(
            f"update job_items set progress = ? where {_MINE}",
            (progress, item_id, attempt),
        ).rowcount
        if changed != 1:
            raise lost(item_id, attempt)
        connection.execute("update jobs set progress_at = ? where id = ?", (now, job_id))

    store.share(work, patience=patience)


def save_result(
    store: Store,
    item_id: int,
    attempt: int,
    value: str,
    *,
    now: int,
    patience: float,
    period: str | None = None,
    refresh: bool = False,
) -> None:
    """Store an attempt's result (JSON text) before its end: from here on the work counts as complete.

    ``period`` is what the result of a unique task claims; ``refresh`` takes it over from an older one.

    Raises:
        Lost: the attempt is no longer the item's.
        Skip: another result has the period; nothing was stored.
    """

    def work(connection: Connection) -> None:
        judged = None if period is None else _judged(store, connection, item_id, attempt, period, refresh=refresh)
        changed = connection.execute(
            "insert into results (item_id, attempt, task, key, status, source, value, created_at)"
            " select i.id, i.attempt, j.task, i.key, ?, 'handler', ?, ?"
            " from job_items as i join jobs as j on j.id = i.job_id"
            " where i.id = ? and i.attempt = ? and i.status = 'running'"
            " on conflict (item_id) do update set attempt=excluded.attempt, status=excluded.status,"
            " source=excluded.source, value=excluded.value, created_at=excluded.created_at, pruned_at=null",
            (COMPLETED, value, now, item_id, attempt),
        ).rowcount
        if changed != 1:
            raise lost(item_id, attempt)
        if judged is not None:
            hold(store, connection, judged, judged.held)

    store.share(work, patience=patience)


_MINE_TO_JUDGE = (
    "select i.job_id, j.task, i.key,"
    " exists (select 1 from results as r where r.item_id = i.id and r.attempt = i.attempt)"
    " from job_items as i join jobs as j on j.id = i.job_id"
    " where i.id = ? and i.attempt = ? and i.status = 'running'"
)


def _judged(
    store: Store, connection: Connection, item_id: int, attempt: int, period: str, *, refresh: bool
) -> Judged | None:
    """Return what the attempt's result holds; None where it has stored one, whose period is decided."""
    found = connection.execute(_MINE_TO_JUDGE, (item_id, attempt)).fetchone()
    if found is None:
        raise lost(item_id, attempt)
    job_id, task, key, decided = found
    if decided:
        return None
    judged = judge(store, connection, [Wanted(item_id, job_id, task, key, period, refresh)])
    if judged.lost:
        raise Skip(judged.lost[item_id])
    return judged


def save_intent(store: Store, item_id: int, attempt: int, note: str, *, patience: float) -> None:
    """Keep what an attempt is about to do outside; a later note replaces it.

    Raises:
        Lost: the attempt is no longer the item's.
    """

    def work(connection: Connection) -> None:
        changed = connection.execute(f"update job_items set intent = ? where {_MINE}", (note, item_id, attempt))
        if changed.rowcount != 1:
            raise lost(item_id, attempt)

    store.share(work, patience=patience)


def save_data(store: Store, item_id: int, attempt: int, data: bytes, *, patience: float) -> None:
    """Store the large companion of an attempt's result, compressed and apart from it.

    Raises:
        Lost: the attempt is no longer the item's.
    """
    packed = zlib.compress(data)

    def work(connection: Connection) -> None:
        changed = connection.execute(
            "insert into result_data (item_id, attempt, data) select id, attempt, ? from job_items"
            f" where {_MINE} on conflict (item_id) do update set attempt=excluded.attempt, data=excluded.data",
            (packed, item_id, attempt),
        ).rowcount
        if changed != 1:
            raise lost(item_id, attempt)

    store.write(work, patience=patience)


def load_data(store: Store, item_id: int) -> bytes | None:
    """Return what ``save_data`` stored with an item's present attempt; None where there is nothing.

    What an attempt left that failed belongs to no result of the next.
    """
    text = (
        "select d.data from result_data as d join job_items as i on i.id = d.item_id and i.attempt = d.attempt"
        " where d.item_id = ?"
    )
    found = store.read(lambda connection: connection.execute(text, (item_id,)).fetchone())
    return None if found is None else zlib.decompress(found[0])


def wanted(store: Store, item_id: int, attempt: int) -> bool:
    """Say whether an attempt is still the item's, and its job neither being cancelled nor failed."""
    text = (
        "select 1 from job_items as i join jobs as j on j.id = i.job_id"
        " where i.id = ? and i.attempt = ? and i.status = 'running'"
        " and j.cancel_requested_at is null and j.fail_requested_at is null"
    )
    return store.read(lambda connection: connection.execute(text, (item_id, attempt)).fetchone()) is not None


def lost(item_id: int, attempt: int) -> Lost:
    """Return what an attempt is told that is not the item's any more."""
    return Lost(f"attempt {attempt} is no longer that of item {item_id}")
