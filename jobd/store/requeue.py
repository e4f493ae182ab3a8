"""Items that run again because what they were given has changed."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict
from jobd.states import QUEUED
from jobd.store.counters import count_moves
from jobd.store.events import Event
from jobd.store.transitions import Move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

# Nothing of the former tries is left but their number: it is the fencing token of whatever may still arrive late.
ANEW: Final = (
    "failures=0", "interruptions=0", "lone_deaths=0", "daemon_id=null", "available_at=0", "deadline_at=null",
    "started_at=null", "completed_at=null", "progress=null", "intent=null", "external_id=null", "error_type=null",
    "error=null",
)  # fmt: skip
REQUEUE: Final = Move("job_items", "requeue", QUEUED, columns=("payload",), sets=ANEW, exact=True)

# Written where the values are: thousands of results of 1 MiB each never pass through this process.
_EVENTS: Final = (
    "insert into job_events (job_id, item_id, name, from_status, to_status, at, actor, attempt, message)"
    " select i.job_id, i.id, 'requeue', i.status, 'queued', ?, ?, i.attempt,"
    " ? || coalesce('; the result was ' || r.value, '; the error was ' || i.error, '')"
    " from {rows} as m cross join job_items as i left join results as r on r.item_id = i.id where i.id = m.id"
)


class Change(NamedTuple):
    """A known item with the payload (JSON text) that came for it now."""

    id: int
    key: str
    status: str
    payload: str


def replace(
    store: Store, connection: Connection, job_id: int, changes: Sequence[Change], why: str, *, now: int, actor: str
) -> int:
    """Give items their new payloads and return how many were requeued for it.

    Queued items just get theirs. Ended ones lose their result, data and output, and keep the value in an event.
    None of them may be running or waiting.
    """
    queued = [(change.id, change.payload) for change in changes if change.status == QUEUED]
    ended = [(change.id, change.status, change.payload) for change in changes if change.status != QUEUED]
    if queued:
        connection.execute(
            f"update job_items set payload=m.payload from {store.rows('id', 'payload')} as m"
            " where job_items.id=m.id and job_items.status='queued'",
            (store.pack(queued),),
        )
    if not ended:
        return 0
    ids = store.pack([(row[0],) for row in ended])
    connection.execute(_EVENTS.format(rows=store.rows("id")), (now, actor, why, ids))
    event = Event(job_id, None, "requeue", None, QUEUED, now, actor, message=why)
    store.news.happened_alike(event, "items", [row[0] for row in ended])
    for table in ("results", "result_data", "item_output", "command_output"):
        connection.execute(f"delete from {table} where item_id in (select id from {store.rows('id')} as m)", (ids,))
    if REQUEUE.run(store, connection, ended) != len(ended):
        raise Conflict(f"job {job_id}: items changed their status while they were being requeued")
    for status, count in collections.Counter(status for _, status, _ in ended).items():
        count_moves(store, connection, {job_id: count}, status, QUEUED, progress=None)
    return len(ended)
