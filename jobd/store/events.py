"""The history: one row for what moved, from which status to which, when, by whom and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


class Event(NamedTuple):
    """One row of the history."""

    job_id: int
    item_id: int | None
    name: str
    from_status: str | None
    to_status: str | None
    at: int
    actor: str
    attempt: int | None = None
    external_id: str | None = None
    message: str | None = None
    count: int | None = None  # type: ignore[assignment] # hides tuple.count, which nobody calls on a row


_EVENT_COLUMNS: Final = ", ".join(Event._fields)


def record(store: Store, connection: Connection, events: Sequence[Event]) -> None:
    """Append events."""
    if events:
        store.news.happened(events)
        rows = store.rows(*Event._fields)
        connection.execute(
            f"insert into job_events ({_EVENT_COLUMNS}) select {_EVENT_COLUMNS} from {rows} as m",
            (store.pack(events),),
        )


_ALIKE: Final = (
    "insert into job_events (job_id, item_id, name, from_status, to_status, at, actor, attempt, message)"
    " select i.job_id, i.id, ?, ?, ?, ?, ?, i.attempt, ? from {rows} as m cross join job_items as i where i.id = m.id"
)


def record_alike(store: Store, connection: Connection, item_ids: Sequence[int], event: Event) -> None:
    """Append one event for each of these items, as ``event`` says but for the job, the item and its attempt.

    A seventh of the time that as many of :func:`record` take: only the ids pass through this process.
    """
    store.news.happened_alike(event, "items", item_ids)
    params = (event.name, event.from_status, event.to_status, event.at, event.actor, event.message)
    connection.execute(
        _ALIKE.format(rows=store.rows("id")), (*params, store.pack([(item_id,) for item_id in item_ids]))
    )


def note_job(
    store: Store, connection: Connection, job_id: int, name: str, *, now: int, actor: str, message: str | None = None
) -> None:
    """Record a request or a pause: an event from the status to itself, counted in the version."""
    connection.execute("update jobs set version=version+1 where id=?", (job_id,))
    status = connection.execute("select status from jobs where id=?", (job_id,)).fetchone()[0]
    record(store, connection, [Event(job_id, None, name, status, status, now, actor, message=message)])
