"""What a running attempt says of itself: progress, and a result before its end. Fenced by the attempt."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from jobd.errors import Lost
from jobd.states import COMPLETED

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
            raise _lost(item_id, attempt)
        connection.execute("update jobs set progress_at = ? where id = ?", (now, job_id))

    store.share(work, patience=patience)


def save_result(store: Store, item_id: int, attempt: int, value: str, *, now: int, patience: float) -> None:
    """Store an attempt's result (JSON text) before its end: from here on the work counts as complete.

    Raises:
        Lost: the attempt is no longer the item's.
    """

    def work(connection: Connection) -> None:
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
            raise _lost(item_id, attempt)

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
            raise _lost(item_id, attempt)

    store.write(work, patience=patience)


def load_data(store: Store, item_id: int) -> bytes | None:
    """Return what ``save_data`` stored with an item; None where there is nothing."""
    found = store.read(
        lambda connection: connection.execute("select data from result_data where item_id=?", (item_id,)).fetchone()
    )
    return None if found is None else zlib.decompress(found[0])


def _lost(item_id: int, attempt: int) -> Lost:
    return Lost(f"attempt {attempt} is no longer that of item {item_id}")
