"""How jobs fall with a parent that will not complete.

A fall is a request as ``steer`` makes them, by whoever finds it due, and ``job_dependencies.cancelled_at`` notes with
which parent the child fell. What a person asks of a child takes that note away: it is theirs from then on. How the
others follow, and come back, is ``follow``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import FAILED
from jobd.store.events import Event, record
from jobd.store.links import LOST
from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

_FALLING: Final = (
    "from {rows} as m cross join jobs as c on c.id = m.id and c.completed_at is null and c.sealed_at is not null"
    " and c.deleted_at is null and c.cancel_requested_at is null and c.fail_requested_at is null"
    " cross join job_dependencies as d on d.job_id = c.id"
    f" cross join jobs as p on p.id = d.after_id and {LOST} group by c.id"
)
_ASK: Final = (
    "update jobs set cancel_requested_at = ?, status_message = m.why, version = version + 1"
    f" from {{rows}} as m where jobs.id = m.id and jobs.cancel_requested_at is null and {OPEN}"
)
_NOTE: Final = (
    "update job_dependencies as d set cancelled_at = ? where d.job_id in (select id from {rows} as m)"
    f" and exists (select 1 from jobs as p where p.id = d.after_id and {LOST})"
)


def fall(store: Store, connection: Connection, job_ids: Sequence[int], *, now: int, actor: str) -> list[int]:
    """Ask for the cancelling of those of these jobs that wait for one which will not complete, and return them."""
    if not connection.execute("select exists (select 1 from job_dependencies)").fetchone()[0]:
        return []
    chosen = store.pack([(job_id,) for job_id in job_ids])
    # Of several lost parents the first is named; min() takes the other column from its row.
    columns = "c.id as id, c.status as status, min(p.id) as parent, p.status as how"
    found = store.gather(connection, columns, _FALLING.format(rows=store.rows("id")), (chosen,))
    if not found:
        return []
    asked = [(job_id, status, _why(parent, how)) for job_id, status, parent, how in found]
    reasons = store.pack([(job_id, reason) for job_id, _, reason in asked])
    fallen = store.pack([(job_id,) for job_id, *_ in asked])
    connection.execute(_ASK.format(rows=store.rows("id", "why")), (now, reasons))
    connection.execute(_NOTE.format(rows=store.rows("id")), (now, fallen))
    events = [
        Event(job_id, None, "cancel", status, status, now, actor, message=reason) for job_id, status, reason in asked
    ]
    record(store, connection, events)
    return [job_id for job_id, *_ in asked]


def _why(parent: int, status: str) -> str:
    """Return why a job falls."""
    return f"job {parent} failed" if status == FAILED else f"job {parent} was {status}"
