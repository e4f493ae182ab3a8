"""Reading what belongs to a job: its items, events, errors and outputs. Nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.errors import NotFound, UsageError
from jobd.states import ITEM_STATUSES
from jobd.store.item_views import ErrorGroup, EventView, ItemView, OutputView
from jobd.store.standing import parsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

# Beyond, a job is no longer sorted by its items' ids but passed over in their order.
SMALL: Final = 10_000

_ITEM_COLUMNS: Final = (
    "id, job_id, key, status, attempt, failures, interruptions, external_id, started_at, completed_at, error_type,"
    " error, progress, payload, daemon_id, available_at, deadline_at, intent"
)


# -- items ----------------------------------------------------------------------------------------------------------


def items(
    store: Store,
    job_id: int,
    *,
    status: str | None = None,
    limit: int = 100,
    after: int | None = None,
    key: str | None = None,
) -> list[ItemView]:
    """Return a page of a job's items in the order of submission; the next one is that ``after`` the last id.

    Raises:
        NotFound: there is no such job.
        UsageError: an unknown status.
    """
    if status is not None and status not in ITEM_STATUSES:
        raise UsageError(f"unknown status of an item: {status!a}", hint=f"one of {', '.join(ITEM_STATUSES)}")

    def work(connection: Connection) -> list[Any]:
        if total(connection, job_id) > SMALL and key is None and status not in _INDEXED:
            return pass_over(connection, _ITEMS, job_id, status, after, limit)
        return _pick(connection, job_id, status, key, after or 0, limit)

    return [_item(row) for row in store.read(work)]


# No index has a job's items in the order of their ids: every submission would pay for what few readings want. So the
# ids are sorted out of an index that has no more than them, and the table is touched for one page.
_PICK: Final = (
    f"select {_ITEM_COLUMNS} from job_items where id in (select id from job_items where {{own}} and +id > ?{{terms}}"
    " order by +id limit ?) order by id"
)
_INDEXED: Final = ("queued", "running", "waiting", "failed")


def _pick(
    connection: Connection, job_id: int, status: str | None, key: str | None, after: int, limit: int
) -> list[Any]:
    # A status is text and not bound, so that its partial index is taken; a plus sign keeps a term from the planner,
    # which would take the items of the job where the few that wait are meant.
    own = "+job_id = ?" if status == "waiting" else "job_id = ?"
    terms = (f" and status = '{status}'" if status else "") + (" and key = ?" if key is not None else "")
    params = (job_id, after, *(() if key is None else (key,)), limit)
    return list(connection.execute(_PICK.format(own=own, terms=terms), params).fetchall())


_ITEMS: Final = (
    f"select {_ITEM_COLUMNS} from job_items where +job_id = ? and id > ? and (? is null or status = ?)"
    " order by id limit ?"
)


def pass_over(
    connection: Connection, text: str, job_id: int, status: str | None, after: int | None, limit: int
) -> list[Any]:
    """Return a page of a large job: from where it begins, or from the page before, on through the table."""
    if after is None:
        first = connection.execute("select min(id) from job_items where job_id=?", (job_id,)).fetchone()[0]
        if first is None:
            return []
        after = first - 1
    return list(connection.execute(text, (job_id, after, status, status, limit)).fetchall())


def item(store: Store, job_id: int, name: str) -> ItemView:
    """Return one item of a job by its key, or by its number as ``#123``.

    Raises:
        NotFound: there is no such job, or no such item in it.
    """

    def work(connection: Connection) -> Any:
        text = f"select {_ITEM_COLUMNS} from job_items where job_id=? and key=?"
        found = connection.execute(text, (job_id, name)).fetchone()
        number = name[1:20]
        # A key wins over a number: what was submitted as "#1" must stay reachable.
        if found is None and name.startswith("#") and number.isdecimal() and number.isascii():
            text = f"select {_ITEM_COLUMNS} from job_items where id=? and job_id=?"
            found = connection.execute(text, (min(int(number), 2**63 - 1), job_id)).fetchone()
        if found is None:
            total(connection, job_id)
        return found

    row = store.read(work)
    if row is None:
        raise NotFound(f"job {job_id} has no item {name!a}", hint=f"jobd items {job_id} shows its items")
    return _item(row)


def total(connection: Connection, job_id: int) -> int:
    found = connection.execute("select items_total from jobs where id=?", (job_id,)).fetchone()
    if found is None:
        raise NotFound(f"there is no job {job_id}", hint="jobd list shows the jobs")
    return int(found[0])


def _item(row: Sequence[Any]) -> ItemView:
    (
        item_id, job_id, key, status, attempt, failures, interruptions, external_id, started_at, completed_at,
        error_type, error, progress, payload, daemon_id, available_at, deadline_at, intent,
    ) = row  # fmt: skip
    ended = started_at is not None and completed_at is not None
    return ItemView(
        id=item_id,
        job_id=job_id,
        key=key,
        status=status,
        attempt=attempt,
        failures=failures,
        interruptions=interruptions,
        external_id=external_id,
        started_at=started_at,
        completed_at=completed_at,
        duration_ms=max(0, completed_at - started_at) if ended else None,
        error_type=error_type,
        error=error,
        progress=parsed(progress),
        payload=parsed(payload),
        daemon_id=daemon_id,
        available_at=available_at,
        deadline_at=deadline_at,
        intent=intent,
    )


# -- events, errors, output -------------------------------------------------------------------------------------------

_EVENTS: Final = (
    "select e.id, e.job_id, i.key, e.name, e.from_status, e.to_status, e.at, e.actor, e.attempt, e.external_id,"
    " e.message, e.count from job_events e left join job_items i on i.id = e.item_id"
    " where e.job_id = ? {own} order by e.id desc limit ?"
)


def events(store: Store, job_id: int, *, items: bool = False, limit: int = 1_000) -> list[EventView]:
    """Return the newest events of a job, oldest first: its own and its bulk moves, with ``items`` all.

    Raises:
        NotFound: there is no such job.
    """
    text = _EVENTS.format(own="" if items else "and e.item_id is null")

    def work(connection: Connection) -> list[Any]:
        total(connection, job_id)
        return list(connection.execute(text, (job_id, limit)).fetchall())

    return [EventView(*row) for row in reversed(store.read(work))]


# Through the index of failed items, in the order of their ids.
_FAILED: Final = (
    "select id, error_type, error, completed_at, key from job_items"
    " where job_id = ? and status = 'failed' and id > ? order by id limit ?"
)
FAILED_PAGE: Final = 5_000


def errors(store: Store, job_id: int, *, limit: int = 100, keys: int = 3) -> list[ErrorGroup]:
    """Return the failed items of a job by their error, the most frequent first, each with its first ``keys`` keys.

    They are read page by page, each a snapshot of its own: of a million no reader keeps the log from being emptied.

    Raises:
        NotFound: there is no such job.
    """
    store.read(lambda connection: total(connection, job_id))
    groups: dict[tuple[str | None, str | None], _Group] = {}
    last = 0
    while True:

        def page(connection: Connection, last: int = last) -> list[Any]:
            return list(connection.execute(_FAILED, (job_id, last, FAILED_PAGE)).fetchall())

        found = store.read(page)
        for _, error_type, error, completed_at, key in found:
            groups.setdefault((error_type, error), _Group()).add(completed_at, key, keys)
        if len(found) < FAILED_PAGE:
            break
        last = found[-1][0]
    views = [group.view(*error) for error, group in groups.items()]
    return sorted(views, key=lambda view: (-view.count, view.first_at or 0))[:limit]


class _Group:
    """The items of one error so far."""

    __slots__ = ("count", "first", "keys", "last")

    def __init__(self) -> None:
        self.count = 0
        self.first: int | None = None
        self.last: int | None = None
        self.keys: list[str] = []

    def add(self, completed_at: int | None, key: str, most: int) -> None:
        self.count += 1
        if completed_at is not None:
            self.first = completed_at if self.first is None else min(self.first, completed_at)
            self.last = completed_at if self.last is None else max(self.last, completed_at)
        if len(self.keys) < most:
            self.keys.append(key)

    def view(self, error_type: str | None, error: str | None) -> ErrorGroup:
        return ErrorGroup(error_type, error, self.count, self.first, self.last, tuple(self.keys))


def output(store: Store, item_id: int) -> OutputView:
    """Return what the item's latest attempt printed or logged.

    Raises:
        NotFound: it left nothing.
    """
    from jobd.store.models import ItemOutput  # noqa: PLC0415 - 5 ms that only who asks for output pays

    query = ItemOutput.select().where(ItemOutput.item_id == item_id).tuples()
    found = store.read(lambda _: list(query.execute(store.database)))
    if not found:
        raise NotFound(f"item {item_id} left no output", hint="output is what a command printed and what ctx.log said")
    item_id, attempt, text, truncated = found[0]
    return OutputView(item_id, attempt, text, bool(truncated))
