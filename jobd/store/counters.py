"""What a job keeps of its items, so that its progress is one row: how many are in which status, and the last error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.states import QUEUED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.store.base import Connection, Store


def count_moves(
    store: Store,
    connection: Connection,
    moved: Mapping[int, int],
    source: str,
    target: str,
    *,
    progress: int | None,
) -> None:
    """Move the counters of jobs with their items: so many of each job went from ``source`` to ``target``.

    ``queued`` is what remains of the total and is not kept. ``progress`` is the time of a settlement; None where
    nothing was settled. A job that gets queued items is looked at by the next claim, whatever held it back.
    """
    sets = [
        f"items_{status} = items_{status} {sign} ?"
        for status, sign in ((source, "-"), (target, "+"))
        if status != QUEUED
    ]
    if target == QUEUED:
        sets.append("available_at = 0")
    if progress is not None:
        sets.append("progress_at = ?")
    store.news.moved("items", target, sum(moved.values()))
    alike: dict[int, list[tuple[int]]] = {}
    for job_id, count in moved.items():
        alike.setdefault(count, []).append((job_id,))
    statement = f"update jobs set {', '.join(sets)} where id in (select id from {store.rows('id')} as m)"
    counters = (source != QUEUED) + (target != QUEUED)
    for count, ids in alike.items():
        params = [count] * counters + ([] if progress is None else [progress])
        connection.execute(statement, (*params, store.pack(ids)))


def last_errors(store: Store, connection: Connection, errors: Mapping[int, str | None]) -> None:
    """Keep the error of the item that failed last, by job."""
    if errors:
        connection.execute(
            f"update jobs set last_error = m.error from {store.rows('id', 'error')} as m where jobs.id = m.id",
            (store.pack(list(errors.items())),),
        )
