"""Jobs that come after others: what a child waits for, and what it learns when one of its parents changes.

While a parent has not ended as its link asks, ``jobs.blocked`` of the child counts it, and nothing of the child is
claimed. The counter moves in the transaction that moves the parent, at the door through which all jobs go, so that no
verb and no pass can forget to. It is kept of open jobs alone: whoever reopens one counts anew.

What takes longer than a counter, children that fall with their parent and come back with it, is only noted there
(``jobs.untold_at``) and done in batches by ``follow.py``. So is the counting where a parent has more than ``MOST``
children.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.errors import Conflict, NotFound
from jobd.states import CANCELLED, COMPLETED, FAILED, JOB_ENDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store

MOST: Final = 500  # children that the transaction of their parents counts: 3 ms
BROKEN: Final = (FAILED, CANCELLED)

# Of a link d and its parent p. A parent that is being deleted holds nobody back: only ended children may have one.
UNMET: Final = (
    "p.deleted_at is null and (p.status = 'queued' or p.status = 'running'"
    " or (d.on_status = 'completed' and p.status <> 'completed'))"
)
LOST: Final = "p.deleted_at is null and d.on_status = 'completed' and (p.status = 'failed' or p.status = 'cancelled')"
# Of a row of jobs.
BLOCKED: Final = (
    "(select count(*) from job_dependencies as d cross join jobs as p on p.id = d.after_id"
    f" where d.job_id = jobs.id and {UNMET})"
)
LOST_PARENT: Final = (
    "(select min(p.id) from job_dependencies as d cross join jobs as p on p.id = d.after_id"
    f" where d.job_id = jobs.id and {LOST})"
)


# -- a submission -----------------------------------------------------------------------------------------------------


def link(store: Store, connection: Connection, job_id: int, after: Sequence[int], on: str) -> None:
    """Let a job come after others, from when these have ended ``on``: "completed", or "ended" however they did.

    Links that it has already are kept, and the last word on each counts.

    Raises:
        NotFound: there is no such other job.
        Conflict: it is being submitted or deleted, or comes after this job itself.
    """
    parents = store.pack([(parent,) for parent in after])
    _check_parents(store, connection, after, parents)
    _check_cycle(store, connection, job_id, after, parents)
    connection.execute(
        "insert into job_dependencies (job_id, after_id, on_status)"
        f" select ?, id, ? from {store.rows('id')} as m where true"
        " on conflict (job_id, after_id) do update set on_status = excluded.on_status",
        (job_id, on, parents),
    )
    connection.execute(f"update jobs set blocked = {BLOCKED} where id = ? and completed_at is null", (job_id,))


def _check_parents(store: Store, connection: Connection, after: Sequence[int], parents: str) -> None:
    source = f"from {store.rows('id')} as m cross join jobs as j on j.id = m.id"
    columns = "j.id as id, j.sealed_at is null as submitting, j.deleted_at is not null as deleting"
    found = {row[0]: row[1:] for row in store.gather(connection, columns, source, (parents,))}
    for parent in after:
        if parent not in found:
            raise NotFound(f"there is no job {parent} to come after", hint="jobd list shows the jobs")
        submitting, deleting = found[parent]
        if deleting:
            raise Conflict(f"job {parent} is being deleted: nothing can come after it")
        if submitting:
            raise Conflict(
                f"job {parent} is still being submitted: nothing can come after it yet",
                hint="again when its submitter is through",
            )


_ABOVE: Final = (
    "with recursive above (id) as (select id from {rows} as m union"
    " select d.after_id from above cross join job_dependencies as d on d.job_id = above.id)"
    " select 1 from above where id = ?"
)


def _check_cycle(store: Store, connection: Connection, job_id: int, after: Sequence[int], parents: str) -> None:
    text = _ABOVE.format(rows=store.rows("id"))
    if connection.execute(text, (parents, job_id)).fetchone() is None:
        return
    if job_id in after:
        raise Conflict(f"job {job_id} cannot come after itself")
    guilty = next(
        parent for parent in after if connection.execute(text, (store.pack([(parent,)]), job_id)).fetchone() is not None
    )
    raise Conflict(f"job {job_id} cannot come after job {guilty}, which comes after job {job_id}")


# -- a parent that changes --------------------------------------------------------------------------------------------

_CHILDREN: Final = "from {rows} as m cross join job_dependencies as d on d.after_id = m.id"
# Of a parent whose children are still being told of an earlier change the counters are those of then: they are counted
# anew in the telling.
_COUNT: Final = (
    "update jobs set blocked = blocked + c.delta from (select d.job_id as id,"
    " sum(case d.on_status when 'completed' then m.completed else m.ended end) as delta"
    " from {rows} as m cross join jobs as p on p.id = m.id and p.untold_at is null"
    " cross join job_dependencies as d on d.after_id = m.id group by d.job_id) as c"
    " where jobs.id = c.id and c.delta <> 0 and jobs.completed_at is null"
)
_NOTE: Final = (
    "update jobs set untold_at = ? where id in (select id from {rows} as m)"
    " and exists (select 1 from job_dependencies as d where d.after_id = jobs.id and {which})"
)
# A child that fell and whose parent came back before it had ended: it comes back after all.
_NOTE_PARENTS: Final = (
    "update jobs set untold_at = ? where id in (select d.after_id from {rows} as m"
    " cross join job_dependencies as d on d.job_id = m.id where d.cancelled_at is not null)"
    " and status <> 'failed' and status <> 'cancelled'"
)


def crossed(store: Store, connection: Connection, target: str, source: str, job_ids: Sequence[int], now: int) -> None:
    """Let the children of jobs, which just moved from ``source`` to ``target``, know of it."""
    # Mostly there is not one link in the whole file.
    if not connection.execute("select exists (select 1 from job_dependencies)").fetchone()[0]:
        return
    ids = store.pack([(job_id,) for job_id in job_ids])
    if target == CANCELLED:
        connection.execute(_NOTE_PARENTS.format(rows=store.rows("id")), (now, ids))
    some = f"select count(*) from (select 1 {_CHILDREN.format(rows=store.rows('id'))} limit {MOST + 1})"
    children = connection.execute(some, (ids,)).fetchone()[0]
    if not children:
        return
    store.news.linked = True
    if children > MOST:
        which = "true"
    else:
        deltas = _deltas(source, target)
        rows = [(job_id, *deltas) for job_id in job_ids]
        connection.execute(_COUNT.format(rows=store.rows("id", "completed", "ended")), (store.pack(rows),))
        which = "d.on_status = 'completed'" if target in BROKEN else "d.cancelled_at is not null"
    connection.execute(_NOTE.format(rows=store.rows("id"), which=which), (now, ids))


def _deltas(source: str, target: str) -> tuple[int, int]:
    """Return by how much a parent's move changes what blocks the children that wait for each of the two ends."""
    return (target != COMPLETED) - (source != COMPLETED), (target not in JOB_ENDS) - (source not in JOB_ENDS)


_FREED: Final = (
    f"{_CHILDREN} cross join jobs as c on c.id = d.job_id and c.items_total = 0 and c.blocked = 0"
    " and c.completed_at is null and c.sealed_at is not null and c.deleted_at is null"
)


def freed_empty(store: Store, connection: Connection, job_ids: Sequence[int]) -> list[int]:
    """Return the children of jobs that wait for nothing any more and have no items: nobody else will end them."""
    ids = store.pack([(job_id,) for job_id in job_ids])
    found = store.gather(connection, "distinct d.job_id as id", _FREED.format(rows=store.rows("id")), (ids,))
    return [row[0] for row in found]


def fell(connection: Connection, job_id: int) -> bool:
    """Say whether a job was asked to end because it comes after one that will not complete."""
    text = "select exists (select 1 from job_dependencies where job_id = ? and cancelled_at is not null)"
    return bool(connection.execute(text, (job_id,)).fetchone()[0])


def leave_untold(store: Store, connection: Connection, job_ids: Sequence[int], now: int) -> None:
    """Have the children of jobs that have ended follow them later: in this transaction they are too many."""
    ids = store.pack([(job_id,) for job_id in job_ids])
    connection.execute(_NOTE.format(rows=store.rows("id"), which="true"), (now, ids))


def untold(store: Store) -> list[int]:
    """Return the jobs whose children have yet to follow what became of them."""
    text = "select id from jobs where untold_at is not null and deleted_at is null order by id"
    return [row[0] for row in store.read(lambda connection: connection.execute(text).fetchall())]
