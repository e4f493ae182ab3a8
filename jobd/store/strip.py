"""A job as a strip: in each stretch of its items, in their order, the status that most needs to be seen."""

from __future__ import annotations

import bisect
import itertools
from typing import TYPE_CHECKING, Any, Final

from jobd.store.details import total

if TYPE_CHECKING:
    from jobd.store.base import Connection, Store

# So many rows are passed over for a strip at most: 15 ms.
STRIP_ROWS: Final = 100_000
# What a cell shows is the first of these that is in it: what needs a look before what only waits for its turn. Those
# without an index that begins with the job are read for, row by row, and only where the job's counter has any.
_WORST_FIRST: Final = ("failed", "running", "waiting", "cancelled", "skipped", "later", "queued", "completed")
_SEEK: Final = {
    "failed": "job_id = j.id and status = 'failed'",
    "running": "job_id = j.id and status = 'running'",
    "queued": "job_id = j.id and status = 'queued' and available_at = 0",
    # In the order of ids, and so at the first row of a cell that has nothing else.
    "completed": "+job_id = j.id and +status = 'completed'",
}
_READ: Final = {
    "waiting": "+job_id = j.id and +status = 'waiting'",
    "cancelled": "+job_id = j.id and status = 'cancelled'",
    "skipped": "+job_id = j.id and status = 'skipped'",
    "later": "+job_id = j.id and +status = 'queued'",
}
_COUNTED: Final = (
    "select items_waiting, items_cancelled, items_skipped, exists(select 1 from job_items where job_id = j.id"
    " and status = 'queued' and available_at > 0) from jobs j where id = ?"
)
_PROBES: Final = 64


def strip(store: Store, job_id: int, cells: int) -> list[str]:
    """Return the statuses of ``cells`` stretches of a job's items in their order, each the worst of its stretch.

    The stretches are equal in ids. One without an item of this job, which was submitted while others were, is left
    out. Empty for a job without items, and where more than ``STRIP_ROWS`` rows would have to be passed over: a job
    whose items lie side by side needs none, whatever its size, unless items wait, are skipped, cancelled or due later.

    Raises:
        NotFound: there is no such job.
    """

    def work(connection: Connection) -> list[Any]:
        count = total(connection, job_id)
        ids = side_by_side(connection, job_id, count) or _spread(connection, job_id, count)
        there = connection.execute(_COUNTED, (job_id,)).fetchone()
        read = {name: term for (name, term), any_ in zip(_READ.items(), there, strict=True) if any_}
        if not ids or len(ids) * len(read) > STRIP_ROWS:
            return []
        text = _strip_query(store, _SEEK | read)
        return list(connection.execute(text, (job_id, store.pack(_stretches(ids, cells)))).fetchall())

    return ["queued" if status == "later" else status for (status,) in store.read(work) if status is not None]


def side_by_side(connection: Connection, job_id: int, count: int) -> range | None:
    """Return the ids of a job's items where they follow one another, as those of one submission do; else None.

    The smallest id would cost a pass over all of them; this takes a hundred looks, and is sure but for a job whose
    items other jobs' lie between everywhere except where it looks.
    """

    def own(item_id: int) -> bool:
        text = "select 1 from job_items where id = ? and job_id = ?"
        return connection.execute(text, (item_id, job_id)).fetchone() is not None

    some = connection.execute("select id from job_items where job_id = ? limit 1", (job_id,)).fetchone()
    if some is None:
        return None
    possible = range(some[0] - count + 1, some[0] + 1)
    first = possible[bisect.bisect_left(possible, True, hi=count - 1, key=own)]
    ids = range(first, first + count)
    looks = itertools.chain(ids[:: max(1, count // _PROBES)], ids[-1:])
    return ids if all(map(own, looks)) and not own(ids.stop) else None


def _spread(connection: Connection, job_id: int, count: int) -> range | None:
    """Return the ids from a job's first item to its last, others' between them; None where those are too many."""
    # Each row costs twice as much here as one that is passed over for a status.
    if count * 2 > STRIP_ROWS:
        return None
    text = "select min(id), max(id) + 1 from job_items where job_id = ?"
    first, end = connection.execute(text, (job_id,)).fetchone()
    return range(first, end) if first is not None and end - first <= STRIP_ROWS else None


def _stretches(ids: range, cells: int) -> list[tuple[int, int]]:
    """Cut ``ids`` into pieces, each as its first and last; of fewer ids several pieces show the same one."""
    bounds = [ids.start + number * len(ids) // cells for number in range(cells + 1)]
    return [(low, max(low, high - 1)) for low, high in itertools.pairwise(bounds)]


def _strip_query(store: Store, terms: dict[str, str]) -> str:
    found = ", ".join(
        f"(select '{name}' from job_items where {terms[name]} and id between a and b limit 1)"
        for name in _WORST_FIRST
        if name in terms
    )
    return f"select coalesce({found}) from (select ? as id) as j, {store.rows('a', 'b')} as cell order by a"
