"""What has ended and is not kept for longer: finding it, asking for its removal, and taking the values of results.

Who decides how long is ``maintenance/prune.py``. Everything that it goes by is asked again here, in the statement that
acts: in between a job may have been reopened, deleted, or become one that another waits for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.store.batches import BATCH, Pace, always, slices, through
from jobd.store.events import note_job
from jobd.store.verbs import WAITED_FOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobd.store.base import Connection, Store


EVER: Final = -(2**63)  # before all times


class Aged(NamedTuple):
    """A job that has ended; ``completed_at`` is in Unix ms, ``items`` counts them."""

    id: int
    task: str
    status: str
    completed_at: int
    items: int


class Span(NamedTuple):
    """The ended jobs of one outcome that ended before ``before`` and not before ``since`` (Unix ms).

    ``valued``: those whose results still have values; else those that lost them.
    """

    status: str
    valued: bool
    before: int
    since: int = EVER


# The terms of the partial index jobs_aged to the letter: SQLite takes the index only then. A job that is being
# submitted is no ended one, whatever its row says.
_ENDED: Final = "completed_at is not null and deleted_at is null"
_FREE: Final = f"sealed_at is not null and not {WAITED_FOR}"
_AGED: Final = (
    f"select id, task, status, completed_at, items_total from jobs where {_ENDED}"
    " and status = ? and (values_pruned_at is null) = ? and completed_at < ? and completed_at >= ?"
    f" and (completed_at, id) > (?, ?) and {_FREE} order by completed_at, id limit ?"
)


def aged(store: Store, span: Span, after: Aged | None = None) -> list[Aged]:
    """Return up to 2,000 jobs of a span after the one ``after``, the oldest end first; none that another waits for."""
    last = (span.since, 0) if after is None else (after.completed_at, after.id)
    params = (span.status, int(span.valued), span.before, last[0], *last, BATCH)
    rows = store.read(lambda connection: connection.execute(_AGED, params).fetchall())
    return [Aged(*row) for row in rows]


_COUNTED: Final = (
    f"select coalesce(sum(items_total), 0) from jobs where {_ENDED}"
    " and status = ? and (values_pruned_at is null) = ? and completed_at < ? and completed_at >= ?"
)


def items(store: Store, span: Span) -> int:
    """Return how many items the jobs of a span have. It reads each of their rows: 1,000,000 take a second."""
    params = (span.status, int(span.valued), span.before, span.since)
    return int(store.read(lambda connection: connection.execute(_COUNTED, params).fetchone())[0])


# Mostly the newest jobs of all tasks are enough. The index, which has a task's jobs by their keys, is for a task that
# is rare among them; the sign keeps the planner from all jobs of all tasks.
_NEAR: Final = (
    "select id from (select id, task, completed_at, deleted_at from jobs order by id desc limit 2000) as n"
    f" where task = ? and {_ENDED} order by id desc limit 1 offset ?"
)
_FAR: Final = f"select id from jobs where task = ? and {_ENDED} order by +id desc limit 1 offset ?"


def newest(store: Store, task: str, count: int) -> int:
    """Return the id from which on the newest ``count`` ended jobs of a task are; 0 where it has no more than those."""

    def find(connection: Connection) -> int:
        for text in (_NEAR, _FAR):
            found = connection.execute(text, (task, count - 1)).fetchone()
            if found is not None:
                return int(found[0])
        return 0

    return store.read(find)


# -- whole jobs -------------------------------------------------------------------------------------------------------

_STILL: Final = f"{_ENDED} and status = ? and completed_at < ? and {_FREE}"


def request_removals(store: Store, jobs: Sequence[Aged], *, before: int, now: int) -> list[Aged]:
    """Ask for the removal of jobs of one outcome that ended before ``before``, and return those that are still such."""
    if not jobs:
        return []
    statement = (
        "update jobs set deleted_at = ?, key = null"
        f" where id in (select id from {store.rows('id')} as m) and {_STILL} returning id"
    )
    params = (now, store.pack([(job.id,) for job in jobs]), jobs[0].status, before)
    gone = store.write(lambda connection: {row[0] for row in connection.execute(statement, params).fetchall()})
    return [job for job in jobs if job.id in gone]


# -- the values of results --------------------------------------------------------------------------------------------

_IDS_AT_ONCE: Final = 100_000
_NEXT: Final = "from job_items where job_id = ? and +id > ? order by +id limit ?"
_MARK: Final = f"update jobs set values_pruned_at = ? where id = ? and values_pruned_at is null and {_STILL}"


def prune_values(
    store: Store, job: Aged, *, before: int, now: int, actor: str, go_on: Callable[[], bool] = always
) -> bool:
    """Take the values of a job's results, and the data beside them; say whether that is complete.

    The rows stay and say since when they have none. Where ``go_on`` says no between two batches, the rest is left to
    the next call. A job that is no more one that ended before ``before`` keeps what it has.
    """
    still = (job.status, before)
    through(_take_values(store, job.id, still, now), go_on=go_on)
    if not go_on():
        return False

    def mark(connection: Connection) -> bool:
        if connection.execute(_MARK, (now, job.id, *still)).rowcount != 1:
            return False
        note_job(store, connection, job.id, "prune", now=now, actor=actor, message="the values of its results")
        return True

    return store.write(mark)


def _take_values(store: Store, job_id: int, still: tuple[str, int], now: int) -> Iterator[int]:
    """Take the values of a job's results batch by batch, and yield how many items each had."""
    pace = Pace(BATCH)
    for ids in slices(functools.partial(_ids, store, job_id), pace):
        batch = store.pack([(item_id,) for item_id in ids])
        if _valued(store, batch):
            pace.write(store, lambda connection, _: _take(store, connection, job_id, batch, still, now))  # noqa: B023 - called at once
        yield len(ids)


def _ids(store: Store, job_id: int, after: int) -> list[int]:
    return [
        row[0]
        for row in store.read(lambda connection: store.gather(connection, "id", _NEXT, (job_id, after, _IDS_AT_ONCE)))
    ]


def _valued(store: Store, batch: str) -> bool:
    """Say whether any of these items has a value still; asked outside of the write lock."""
    text = (
        f"select exists (select 1 from {store.rows('id')} as m cross join results as r on r.item_id = m.id"
        " where r.value is not null)"
    )
    return bool(store.read(lambda connection: connection.execute(text, (batch,)).fetchone())[0])


def _take(store: Store, connection: Connection, job_id: int, batch: str, still: tuple[str, int], now: int) -> None:
    chosen = f"item_id in (select id from {store.rows('id')} as m)"
    guard = f"exists (select 1 from jobs where id = ? and {_STILL})"
    connection.execute(
        f"update results set value = null, pruned_at = ? where value is not null and {chosen} and {guard}",
        (now, batch, job_id, *still),
    )
    connection.execute(f"delete from result_data where {chosen} and {guard}", (batch, job_id, *still))
