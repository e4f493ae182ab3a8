"""The keys that somebody keeps an eye on: of each, how and when it was last run, and by which job.

Kept where an item's status changes, in the transaction that ends it; while the list is empty that is one look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from jobd.store.item_views import WatchedView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobd.store.base import Connection, Store


class End(Protocol):
    """An item that has ended; ``completed_at`` is in Unix ms."""

    @property
    def job_id(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def completed_at(self) -> int: ...


_ANY: Final = "select exists (select 1 from watchlist)"
# In this order, by row id and by primary keys alone: what is not on the list costs three steps down an index.
_WATCHED: Final = (
    "from {rows} as m cross join job_items as i on i.id = m.id cross join jobs as j on j.id = i.job_id"
    " cross join watchlist as w on w.task = j.task and w.key = i.key where i.status = ? order by i.completed_at, i.id"
)
_WATCHED_COLUMNS: Final = "w.task as task, w.key as key, i.job_id as job_id, i.completed_at as ended"
_KEYS: Final = "select key from watchlist where task = ? limit ?"


def note_ends(store: Store, connection: Connection, items: Sequence[Sequence[Any]], status: str) -> None:
    """Keep with the keys on the list that these items, rows that begin with an id, have ended as ``status``.

    Who knows the items' tasks and keys calls :func:`note`, which spares those that are not on the list.
    """
    if not connection.execute(_ANY).fetchone()[0]:
        return
    ids = store.pack([(row[0],) for row in items])
    found = store.gather(connection, _WATCHED_COLUMNS, _WATCHED.format(rows=store.rows("id")), (ids, status))
    _keep(store, connection, {(row[0], row[1]): row for row in found}, status)


def note(store: Store, connection: Connection, ends: Sequence[End], status: str) -> None:
    """Keep with the keys on the list that these items have ended as ``status``, the last of a key in their order."""
    if not connection.execute(_ANY).fetchone()[0]:
        return
    found: dict[tuple[str, str], Sequence[Any]] = {}
    for task in {end.task for end in ends}:
        keys = _watched_keys(store, connection, task, ends)
        if keys:
            found |= {
                (task, end.key): (task, end.key, end.job_id, end.completed_at)
                for end in ends
                if end.key in keys and end.task == task
            }
    _keep(store, connection, found, status)


def _watched_keys(store: Store, connection: Connection, task: str, ends: Sequence[End]) -> set[str]:
    """Return the keys of a task on the list: all of them, or of a list longer than ``ends`` those that have ended."""
    keys = {row[0] for row in connection.execute(_KEYS, (task, len(ends) + 1)).fetchall()}
    if len(keys) <= len(ends):
        return keys
    source = f"from {store.rows('key')} as m cross join watchlist as w on w.task = ? and w.key = m.key"
    asked = store.pack([(end.key,) for end in ends if end.task == task])
    return {row[0] for row in store.gather(connection, "w.key as key", source, (asked, task))}


def _keep(store: Store, connection: Connection, found: Mapping[tuple[str, str], Sequence[Any]], status: str) -> None:
    if found:
        connection.execute(
            "update watchlist set last_job_id = m.job, last_status = ?, last_run_at = m.ended"
            f" from {store.rows('task', 'key', 'job', 'ended')} as m"
            " where watchlist.task = m.task and watchlist.key = m.key"
            # An end that is only heard of now may be older than what the list knows.
            " and (watchlist.last_run_at is null or watchlist.last_run_at <= m.ended)",
            (status, store.pack(list(found.values()))),
        )


# -- what people do with it -------------------------------------------------------------------------------------------


def add(store: Store, task: str, keys: Sequence[str]) -> int:
    """Put keys of a task on the list and return how many were not on it."""

    def work(connection: Connection) -> int:
        added: int = connection.execute(
            f"insert into watchlist (task, key) select ?, key from {store.rows('key')} as m where true"
            " on conflict (task, key) do nothing",
            (task, store.pack([(key,) for key in keys])),
        ).rowcount
        return added

    return store.write(work)


def remove(store: Store, task: str, keys: Sequence[str]) -> int:
    """Take keys of a task off the list and return how many were on it."""

    def work(connection: Connection) -> int:
        removed: int = connection.execute(
            f"delete from watchlist where task = ? and key in (select key from {store.rows('key')} as m)",
            (task, store.pack([(key,) for key in keys])),
        ).rowcount
        return removed

    return store.write(work)


def entries(store: Store, task: str | None = None) -> list[WatchedView]:
    """Return the list by task and key, of one task where it is named."""
    text = "select task, key, last_job_id, last_status, last_run_at from watchlist{of} order by task, key"
    of, params = ("", ()) if task is None else (" where task = ?", (task,))
    return [WatchedView(*row) for row in store.read(lambda c: c.execute(text.format(of=of), params).fetchall())]


def has_task(store: Store, task: str) -> bool:
    """Say whether the file knows a task: by a job, or by a key on this list."""
    text = "select exists (select 1 from jobs where task = ?) or exists (select 1 from watchlist where task = ?)"
    return bool(store.read(lambda connection: connection.execute(text, (task, task)).fetchone()[0]))
