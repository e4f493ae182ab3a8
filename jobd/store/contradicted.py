"""Items that say something else than the result that is stored for them, and how they come to say what it says.

A result is the best evidence there is: its item was done, or failed for good, whatever the row of the item says.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import COMPLETED, FAILED, QUEUED, RUNNING, WAITING
from jobd.store.batches import BATCH
from jobd.store.counters import count_moves, last_errors
from jobd.store.events import Event, record_alike
from jobd.store.transitions import Move

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobd.store.base import Connection, Store

STORED: Final = "a result is stored"
# A beat looks at so many of each kind, the newest first: what it leaves, who looks at all results finds.
RECENT: Final = 10_000


class Contradicted(NamedTuple):
    """An item that is not what the result of its present attempt says.

    ``since`` is Unix ms; ``said`` is the result's status and ``value`` (JSON text) that of a failed one; ``was`` is the
    error that the item had as its job's last one.
    """

    id: int
    job_id: int
    key: str
    attempt: int
    status: str
    since: int
    said: str
    value: str | None = None
    was: str | None = None
    daemon_id: int | None = None

    @property
    def error(self) -> str | None:
        """What a failed item has as its error."""
        return None if self.said == COMPLETED else words(self.value)


def words(value: str | None) -> str:
    """Return what a failed result says, from its value (JSON text), as the database can hold it."""
    try:
        said = None if value is None else json.loads(value)
        if isinstance(said, str) and said.strip() and "\0" not in said and said.encode():
            return said
    except (ValueError, RecursionError):
        # Whatever another hand has written there: the item has failed all the same.
        pass
    return value or "failed"


# -- how they are found -----------------------------------------------------------------------------------------------

_KINDS: Final = {
    RUNNING: ("job_items_running", "status = 'running'", "job_id"),
    WAITING: ("job_items_waiting", "status = 'waiting'", "deadline_at"),
    FAILED: ("job_items_failed", "status = 'failed'", "job_id"),
    QUEUED: ("job_items_interrupted", "status = 'queued' and interruptions > 0", "job_id"),
}
_WAS: Final = (
    "case when i.status = 'failed' then case when coalesce(i.error_type, '') <> '' and coalesce(i.error, '') <> ''"
    " then i.error_type || ': ' || i.error else coalesce(nullif(i.error_type, ''), i.error) end end"
)
_COLUMNS: Final = (
    "i.id, i.job_id, i.key, i.attempt, i.status, coalesce(i.completed_at, i.started_at, j.created_at), r.status,"
    f" case when r.status = 'failed' then r.value end, {_WAS}, i.daemon_id"
)
_MOVABLE: Final = "(i.status = 'running' or i.status = 'waiting' or i.status = 'failed' or i.status = 'queued')"
# By row ids alone, in this order: of most of them there is no result at all, and that is one step down its index.
_AGAINST: Final = (
    " cross join results as r on r.item_id = n.id"
    f" cross join job_items as i on i.id = r.item_id and i.attempt = r.attempt and i.status <> r.status and {_MOVABLE}"
    " cross join jobs as j on j.id = i.job_id and j.deleted_at is null"
)


def recent(connection: Connection) -> list[Contradicted]:
    """Return the contradicted among the newest 10,000 running, waiting, failed and interrupted items of each kind."""
    found = []
    for index, wanted, order in _KINDS.values():
        newest = f"select id from job_items indexed by {index} where {wanted} order by {order} desc limit {RECENT}"
        rows = connection.execute(f"select {_COLUMNS} from ({newest}) as n{_AGAINST}").fetchall()
        found += [Contradicted(*row) for row in rows]
    return found


def after(connection: Connection, item_id: int) -> tuple[list[Contradicted], int | None]:
    """Return the contradicted among the next 10,000 results after ``item_id``, and the last that was looked at.

    That is None where there are no more.
    """
    results = f"select item_id as id from results where item_id > ? order by item_id limit {RECENT}"
    last = connection.execute(f"select max(id) from ({results})", (item_id,)).fetchone()[0]
    if last is None:
        return [], None
    rows = connection.execute(f"select {_COLUMNS} from ({results}) as n{_AGAINST}", (item_id,)).fetchall()
    return [Contradicted(*row) for row in rows], last


def of_items(store: Store, connection: Connection, item_ids: Iterable[int]) -> list[Contradicted]:
    """Return the contradicted of these items."""
    chosen = store.pack([(item_id,) for item_id in item_ids])
    rows = connection.execute(f"select {_COLUMNS} from {store.rows('id')} as n{_AGAINST}", (chosen,)).fetchall()
    return [Contradicted(*row) for row in rows]


def failed_of(store: Store, connection: Connection, job_ids: Iterable[int]) -> list[Contradicted]:
    """Return the items of these jobs that have failed though their results are there, of 2,000 failed ones at most."""
    failed = (
        f"select f.id as id from {store.rows('id')} as m cross join job_items as f indexed by job_items_failed"
        f" on f.job_id = m.id and f.status = 'failed' limit {BATCH}"
    )
    chosen = store.pack([(job_id,) for job_id in job_ids])
    rows = connection.execute(f"select {_COLUMNS} from ({failed}) as n{_AGAINST}", (chosen,)).fetchall()
    return [Contradicted(*row) for row in rows]


# -- how they move ----------------------------------------------------------------------------------------------------

_MOVES: Final = {
    (source, target): Move(
        "job_items",
        "reconcile",
        target,
        source=source,
        fenced=True,
        columns=("error",),
        sets=("completed_at=coalesce(completed_at, ?)", "error_type=null", "available_at=0", "deadline_at=null"),
    )
    for source in _KINDS
    for target in (COMPLETED, FAILED)
    if source != target
}
# A job that shows the error of an item which has in fact completed shows another's, if any other has failed.
_ANOTHERS: Final = (
    f"update jobs set last_error = (select {_WAS} from job_items as i indexed by job_items_failed"
    " where i.job_id = jobs.id and i.status = 'failed' order by i.id desc limit 1)"
    " from {rows} as m where jobs.id = m.id and jobs.last_error = m.error"
)


def bring_in_line(
    store: Store, connection: Connection, found: Sequence[Contradicted], *, now: int, actor: str
) -> list[Contradicted]:
    """Move items to what their results say, with events and counters, and return those that were as ``found`` says.

    Their jobs are for the caller to end, or to decide anew.
    """
    alike: dict[tuple[str, str], list[Contradicted]] = {}
    for item in found:
        alike.setdefault((item.status, item.said), []).append(item)
    brought: list[Contradicted] = []
    for (source, target), group in alike.items():
        rows = [(item.id, item.attempt, item.error) for item in group]
        held = _MOVES[source, target].run_held(store, connection, rows, (now,))
        items = [item for item in group if item.id in held]
        event = Event(0, None, "reconcile", source, target, now, actor, message=STORED)
        record_alike(store, connection, [item.id for item in items], event)
        count_moves(store, connection, Counter(item.job_id for item in items), source, target, progress=now)
        brought += items
    last_errors(store, connection, {item.job_id: item.error for item in brought if item.error is not None})
    healed = [(item.job_id, item.was) for item in brought if item.was is not None]
    if healed:
        connection.execute(_ANOTHERS.format(rows=store.rows("id", "error")), (store.pack(healed),))
    return brought
