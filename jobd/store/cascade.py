"""Deleting a job with all that wait for it."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

from jobd.errors import NotFound
from jobd.states import RUNNING
from jobd.store.batches import Pace, breathe
from jobd.store.removal import delete_in
from jobd.store.verbs import asked, refusal, refuse_halves

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store

_WAITING: Final = (
    "with recursive down (id) as (select ? union"
    " select c.id from down cross join job_dependencies as d on d.after_id = down.id"
    " cross join jobs as c on c.id = d.job_id and c.completed_at is null and c.deleted_at is null)"
    " select d.after_id, d.job_id from job_dependencies as d"
    " where d.job_id in (select id from down) and d.after_id in (select id from down)"
)


def request_delete(store: Store, job_id: int, *, now: int, actor: str) -> list[int]:
    """Ask for the removal of a job and of all that wait for it; return them, who waits before what it waits for.

    They go in batches; killed in between, the same call goes on with the rest.

    Raises:
        NotFound: there is no such job.
        IllegalTransition: one of them is running; none was deleted.
        Conflict: one of them is being submitted; none was deleted.
    """
    gone = store.read(lambda connection: _checked(connection, job_id))
    pace, start = Pace(), 0
    while start < len(gone):

        def request(connection: Connection, size: int, start: int = start) -> int:
            for one in gone[start : start + size]:
                try:
                    delete_in(store, connection, one, now=now, actor=actor)
                except NotFound:
                    if one == job_id:
                        raise
            return size

        start += pace.write(store, request)
        breathe()
    store.wake()
    return gone


def _checked(connection: Connection, job_id: int) -> list[int]:
    order: TopologicalSorter[int] = TopologicalSorter({job_id: ()})
    for parent, child in connection.execute(_WAITING, (job_id,)).fetchall():
        order.add(parent, child)
    gone = list(order.static_order())
    for one in gone:
        job = asked(connection, one)
        if not job.deleting:
            refuse_halves(one, job)
        if job.status == RUNNING:
            raise refusal(one, job, "delete")
    return gone
