"""Jobs that a claim need not look at before their time: held back, and lifted when it has come. Why, says ``ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.store.ready import CLAIMABLE, ITEM, packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobd.store.base import Connection, Store
    from jobd.store.ready import ClaimedJob

MOST: Final = 300  # jobs that one claim holds back or lifts: 3 ms
LONGEST: Final = 3_600_000  # ms that a job is held back for its items


def lift(store: Store, connection: Connection, tasks: Sequence[str], most: int, now: int) -> int:
    """Make up to ``most`` jobs ready that are due, the earliest of each task first; return how many."""
    due = f"select id from jobs where {CLAIMABLE} and task = t.task and available_at > 0 and available_at <= ?"
    statement = (
        f"update jobs set available_at = 0 where id in (select j.id from {store.rows('task')} as t"
        f" join jobs as j on j.id in ({due} order by available_at limit ?))"
    )
    share = max(1, most // len(tasks))
    count: int = connection.execute(statement, (packed(store, tasks), now, share)).rowcount
    return count


_HOLD_BACK: Final = (
    "update jobs set available_at = case when not_before > ? then not_before"
    f" else coalesce((select i.available_at {ITEM} < ? order by i.available_at limit 1), ?) end where id in ({{jobs}})"
)


def hold_back(store: Store, connection: Connection, jobs: Iterable[ClaimedJob], now: int) -> int:
    """Hold back jobs of which nothing may be claimed now, each until its time; return how many."""
    statement = _HOLD_BACK.format(jobs=f"select id from {store.rows('id')} as m")
    until = now + LONGEST
    params = (now, until, until, store.pack([(job.id,) for job in jobs]))
    count: int = connection.execute(statement, params).rowcount
    return count


def sweep(
    store: Store, connection: Connection, tasks: Sequence[str], priority: int, after: int, most: int, now: int
) -> None:
    """Hold back, of up to ``most`` ready jobs of one priority that come ``after`` a job, those that have to wait."""
    theirs = (
        f"select id from jobs where {CLAIMABLE} and task = t.task and available_at = 0 and priority = ? and id > ?"
        " order by id limit ?"
    )
    statement = _HOLD_BACK.format(
        jobs=f"select j.id from {store.rows('task')} as t join jobs as j on j.id in ({theirs})"
    )
    until = now + LONGEST
    connection.execute(
        f"{statement} and (not_before > ? or not exists (select 1 {ITEM} <= ?))",
        (now, until, until, packed(store, tasks), priority, after, max(1, most // len(tasks)), now, now),
    )
