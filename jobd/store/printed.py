"""Reading what commands printed: of one item, and of a job as its items end. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.states import ITEM_ENDS

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store

_PAGE: Final = 200


class Ended(NamedTuple):
    """An item that has ended, and what its last attempt printed; ``row`` is None where that was nothing."""

    row: int | None
    truncated: bool
    item_id: int
    key: str
    payload: str  # JSON
    status: str
    attempt: int


class Page(NamedTuple):
    """Some of those that have ended, and where the next page begins; ``more`` says that there may be one at once."""

    ended: list[Ended]
    after: int
    more: bool


_ENDS: Final = f"i.status in ({', '.join(map(repr, sorted(ITEM_ENDS)))})"
_ITEM: Final = "i.id, i.key, i.payload, i.status, i.attempt"
# Of an item that is tried again the next attempt leaves another row.
_BY_END: Final = (
    f"select o.id, o.truncated, {_ITEM}, i.job_id = ? and i.attempt = o.attempt and {_ENDS}"
    " from command_output as o cross join job_items as i on i.id = o.item_id where o.id > ? order by o.id limit ?"
)
# By the table's own order: no index has the items of a job in it.
_IN_ORDER: Final = (
    f"select case when o.attempt = i.attempt then o.id end, coalesce(o.truncated, 0), {_ITEM}, {_ENDS}"
    " from job_items as i left join command_output as o on o.item_id = i.id"
    " where +i.job_id = ? and i.id > ? and i.id <= ? order by i.id limit ?"
)


def newest(store: Store) -> int:
    """Return the number of the last output that there is: what comes after it ended later."""
    text = "select coalesce(max(id), 0) from command_output"
    return int(store.read(lambda connection: connection.execute(text).fetchone()[0]))


def by_end(store: Store, job_id: int, after: int) -> Page:
    """Return a page of those items of a job that printed, in the order in which they ended, ``after`` an output."""

    def work(connection: Connection) -> list[Any]:
        return list(connection.execute(_BY_END, (job_id, after, _PAGE)).fetchall())

    rows = store.read(work)
    ended = [_ended(row) for *row, shown in rows if shown]
    return Page(ended, rows[-1][0] if rows else after, len(rows) == _PAGE)


def in_order(store: Store, job_id: int, after: int, last: int) -> Page:
    """Return a page of a job's ended items in their own order, ``after`` an item up to the ``last``; it stops before
    the first that is open.
    """

    def work(connection: Connection) -> list[Any]:
        return list(connection.execute(_IN_ORDER, (job_id, after, last, _PAGE)).fetchall())

    ended: list[Ended] = []
    rows = store.read(work)
    for *row, over in rows:
        if not over:
            return Page(ended, ended[-1].item_id if ended else after, more=False)
        ended.append(_ended(row))
    return Page(ended, ended[-1].item_id if ended else after, len(rows) == _PAGE)


def last_item(store: Store, job_id: int) -> int:
    """Return the id of a job's last item; 0 where it has none."""
    text = "select coalesce(max(id), 0) from job_items where job_id = ?"
    return int(store.read(lambda connection: connection.execute(text, (job_id,)).fetchone()[0]))


class Streams(NamedTuple):
    """What an attempt printed, as far as it is kept."""

    attempt: int
    stdout: bytes
    stderr: bytes
    truncated: bool


def streams(store: Store, item_id: int) -> Streams | None:
    """Return what the item's latest command printed; None where that was nothing."""
    text = "select attempt, stdout, stderr, truncated from command_output where item_id = ?"
    found = store.read(lambda connection: connection.execute(text, (item_id,)).fetchone())
    return None if found is None else Streams(found[0], bytes(found[1]), bytes(found[2]), bool(found[3]))


def _ended(row: list[Any]) -> Ended:
    number, truncated, *item = row
    return Ended(number, bool(truncated), *item)
