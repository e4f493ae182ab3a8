"""How long the items of a job took, and how many tries: numbers that no counter keeps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobd.store.details import total
from jobd.store.pace import front
from jobd.store.strip import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobd.store.base import Connection, Store

SAMPLE: Final = 10_000
# Where others of the job's items lie between those that ran, so many are passed over for each of them.
_PASSED_OVER: Final = 4

_TOOK: Final = "completed_at - started_at as took"
_RAN: Final = "started_at is not null and completed_at is not null and +status in ('completed', 'failed')"
_OF_ALL: Final = f"from job_items where job_id = ? and {_RAN} limit ?"
# The sign keeps the planner on the ids: by the job it would sort all its items.
_OF_NEWEST: Final = f"from job_items where +job_id = ? and id <= ? and id > ? and {_RAN} order by id desc limit ?"


def durations(store: Store, job_id: int) -> tuple[int, int] | None:
    """Return the median and the 95th percentile of how long a job's items took, in ms; of 10,000 where there are more.

    None where none has run to its end.
    """

    def work(connection: Connection) -> list[list[Any]]:
        count = total(connection, job_id)
        ids = side_by_side(connection, job_id, count) if count > SAMPLE else None
        if ids is None:
            return store.gather(connection, _TOOK, _OF_ALL, (job_id, SAMPLE))
        newest = front(connection, job_id) or ids[-1]
        params = (job_id, newest, newest - _PASSED_OVER * SAMPLE, SAMPLE)
        return store.gather(connection, _TOOK, _OF_NEWEST, params)

    return spread(row[0] for row in store.read(work))


def spread(took: Iterable[int]) -> tuple[int, int] | None:
    """Return the median and the 95th percentile of lengths of time, none of them below 0; None of none."""
    ordered = sorted(max(0, one) for one in took)
    return (ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]) if ordered else None


_ATTEMPTS: Final = (
    "select attempt, count(*) from job_items where {own} and attempt > 1 group by attempt order by attempt"
)
_PAGE: Final = 50_000


def attempts(store: Store, job_id: int) -> dict[int, int]:
    """Return how many items of a job are at which attempt, from the second on. It passes over all of them.

    Those that lie side by side are read in pages, each a snapshot of its own.

    Raises:
        NotFound: there is no such job.
    """
    ids = store.read(lambda connection: side_by_side(connection, job_id, total(connection, job_id)))
    if ids is None:
        text = _ATTEMPTS.format(own="job_id = ?")
        return dict(store.read(lambda connection: connection.execute(text, (job_id,)).fetchall()))
    text = _ATTEMPTS.format(own="+job_id = ? and id between ? and ?")
    found: Counter[int] = Counter()
    for first in range(ids.start, ids.stop, _PAGE):

        def page(connection: Connection, first: int = first) -> dict[int, int]:
            return dict(connection.execute(text, (job_id, first, first + _PAGE - 1)).fetchall())

        found.update(store.read(page))
    return dict(sorted(found.items()))
