"""A running attempt adds items to its own job: at once, fenced by the attempt, and only those that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.codec import canonical
from jobd.errors import Cancelled
from jobd.store.attempt import lost
from jobd.store.chunks import insert_missing, source_of
from jobd.store.events import Event, record

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store
    from jobd.store.chunks import Source

_MINE: Final = (
    "select j.id, j.cancel_requested_at, j.fail_requested_at from job_items as i join jobs as j on j.id = i.job_id"
    " where i.id = ? and i.attempt = ? and i.status = 'running'"
)
_GROW: Final = "update jobs set items_total = items_total + ?, available_at = 0, progress_at = ? where id = ?"
_OTHER: Final = "another payload came by add_items; the item keeps its own"


def add_items(
    store: Store, item_id: int, attempt: int, chunk: dict[str, str], *, now: int, actor: str, patience: float
) -> int:
    """Add what of ``chunk`` (payloads as JSON text, by key) the job does not have, and return how many items that is.

    A known key with another payload is an event of its item, which keeps the payload that it had.

    Raises:
        Lost: the attempt is no longer the item's.
        Cancelled: its job is being cancelled or failed; nothing was added.
    """

    def work(connection: Connection) -> int:
        found = connection.execute(_MINE, (item_id, attempt)).fetchone()
        if found is None:
            raise lost(item_id, attempt)
        job_id, *requests = found
        if requests != [None, None]:
            raise Cancelled("the job is being cancelled: nothing can be added")
        page = source_of(store, chunk)
        added = insert_missing(connection, job_id, page)
        if added:
            connection.execute(_GROW, (added, now, job_id))
        if added < len(chunk):
            _tell_others(store, connection, job_id, page, now=now, actor=actor)
        return added

    added = store.share(work, patience=patience)
    if added:
        store.wake()
    return added


def _tell_others(store: Store, connection: Connection, job_id: int, page: Source, *, now: int, actor: str) -> None:
    """Leave an event with each item whose payload is another than the one that came with its key."""
    rows = connection.execute(
        f"select i.id, i.status, m.payload, i.payload from {page.text} as m"
        " cross join job_items as i where i.job_id=? and i.key=m.key and i.payload <> m.payload",
        (*page.params, job_id),
    )
    events = [
        Event(job_id, item_id, "changed", status, status, now, actor, message=_OTHER)
        for item_id, status, came, kept in rows.fetchall()
        if canonical(came) != canonical(kept)
    ]
    record(store, connection, events)
