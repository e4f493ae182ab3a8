"""How a version 0 file becomes a jobd file.

Nothing that is not known is made up. A result names no job, so it comes into a job of its day, as an item that was
completed: ``ticker`` is its key, the row its value, and columns of more than 10,000 characters are its data, apart from
it. Of several results of one key and day the newest claims the day as its period; the older ones come into further
jobs of that day and claim none. A job of version 0 named no items, so it comes without any, with its row as its params
and its ``job_id`` as its key; one that had not ended did not go on, and is failed with that reason, unless its own
counters say that it was complete.

Imported jobs were created when they say and end with the migration: how long they are kept counts from there.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any, Final

from jobd.codec import NotStorable, dumps
from jobd.errors import StoreUnusable
from jobd.store.schema import apply_schema
from jobd.store.version0 import JOBS, RESULTS, WATCHED, as_key, columns_of, count, raw, survey, text_of, watched_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from jobd.store.version0 import Counts

TASK: Final = "analysis"
ACTOR: Final = "migrate"
_BATCH: Final = 2_000
_LONG: Final = 10_000  # characters


def bring_over(connection: sqlite3.Connection, *, now: int, watch: Callable[[int, int], None]) -> Counts:
    """Turn the file into a jobd file with all its rows, in the caller's transaction; return what came over."""
    text_factory = connection.text_factory
    connection.text_factory = text_of
    try:
        counts = survey(connection, now=now)
        old = _clear_the_names(connection)
        apply_schema(connection)
        _bring_jobs(connection, now)
        _bring_results(connection, now, counts["results"], watch)
        if WATCHED in old:
            counts["watched"] = _bring_watchlist(connection, old[WATCHED])
        if count(connection, "results") != counts["results"]:
            raise StoreUnusable("results of the version 0 file would be lost; nothing was changed")
        # The file they were in is kept beside this one, with every column of the watchlist.
        for table in (JOBS, RESULTS, *old.values()):
            connection.execute(f"drop table {table}")
        connection.execute("drop table temp.arrivals")
    finally:
        connection.text_factory = text_factory
    return counts


def _clear_the_names(connection: sqlite3.Connection) -> dict[str, str]:
    """Drop what is made of the tables alone, and give way where the schema has a table of that name."""
    for kind, name in connection.execute(
        "select type, name from sqlite_master where (type = 'index' and sql is not null) or name like 'sqlite\\_stat%'"
        " escape '\\'"
    ).fetchall():
        connection.execute(f'drop {kind} "{name.replace(chr(34), chr(34) * 2)}"')
    if not columns_of(connection, WATCHED):
        return {}
    connection.execute(f"alter table {WATCHED} rename to version0_{WATCHED}")
    return {WATCHED: f"version0_{WATCHED}"}


def _rows(connection: sqlite3.Connection, statement: str, *params: Any) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(statement, params)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


_JOB: Final = (
    "insert into jobs (task, key, params, status, status_message, status_updated_at, version, last_error, sealed_at,"
    " items_total, items_completed, created_at, progress_at, completed_at)"
    " values (?, ?, ?, ?, ?, ?, 2, ?, ?, ?, ?, ?, ?, ?)"
)
_EVENT: Final = (
    "insert into job_events (job_id, name, from_status, to_status, at, actor, message) values (?, ?, ?, ?, ?, ?, ?)"
)
_EDGES: Final = {"completed": "complete", "failed": "fail", "cancelled": "cancel"}


def _add_job(
    connection: sqlite3.Connection, *, key: str | None, params: str, status: str, message: str, error: str | None,
    items: int, created_at: int, now: int,
) -> int:  # fmt: skip
    job_id = connection.execute(
        _JOB,
        (TASK, key, params, status, message, now, error, now, items, items, created_at, now if items else None, now),
    ).lastrowid
    assert job_id is not None  # noqa: S101 - None only before the first insert
    moves = (("submit", None, "queued"), (_EDGES[status], "queued", status))
    connection.executemany(_EVENT, [(job_id, *move, now, ACTOR, message) for move in moves])
    return job_id


def _bring_jobs(connection: sqlite3.Connection, now: int) -> None:
    taken: set[str] = set()
    created = f"millis({raw('created_at')})" if "created_at" in columns_of(connection, JOBS) else "null"
    for row in _rows(connection, f'select {created} as "made at", * from {JOBS} order by 1, rowid'):
        created_at = row.pop("made at")
        params = _whole(row)
        key = as_key(row["job_id"])
        status, message, error = _ended(row)
        _add_job(
            connection, key=None if key in taken else key, params=params, status=status, message=message, error=error,
            items=0, created_at=now if created_at is None else min(created_at, now), now=now,
        )  # fmt: skip
        taken.add(key or "")


def _ended(row: dict[str, Any]) -> tuple[str, str, str | None]:
    """Return how a job of version 0 ended, what to say of it, and its error."""
    word = str(row["status"]).strip().lower()
    if word == "completed":
        return "completed", "imported from version 0", None
    if word == "cancelled":
        return "cancelled", "imported from version 0", None
    if word == "failed":
        said = next(
            (str(row[name]) for name in ("error", "error_message", "last_error", "errors") if row.get(name)), ""
        )
        return "failed", "imported from version 0", said or "failed in version 0, which kept no reason"
    total, completed = row.get("total"), row.get("completed")
    if isinstance(total, int) and isinstance(completed, int) and completed >= total > 0:
        return (
            "completed",
            f"imported from version 0, which had it {word} with {completed:,} of {total:,} completed",
            None,
        )
    reason = f"version 0 had it {word} and named no items: nobody can go on with it"
    return "failed", reason, f"interrupted: {reason}"


def _bring_results(connection: sqlite3.Connection, now: int, whole: int, watch: Callable[[int, int], None]) -> None:
    """Bring the results over, the older of a key first: what was stored last is its newest."""
    reached = 0
    groups = connection.execute(
        "select day, again, count(*), min(at) from temp.arrivals group by day, again order by day, again desc"
    ).fetchall()
    for day, again, items, first in groups:
        what = f"results of {day or 'unknown days'}, imported from version 0{', superseded' if again else ''}"
        job_id = _add_job(
            connection, key=None, params="null", status="completed", message=what, error=None, items=items,
            created_at=min(first, now), now=now,
        )  # fmt: skip
        arrivals = connection.execute(
            "select id, key, at from temp.arrivals where day is ? and again = ? order by id", (day, again)
        )
        while batch := arrivals.fetchmany(_BATCH):
            _bring_batch(connection, job_id, reached + 1, None if again else day, batch)
            reached += len(batch)
            watch(reached, whole)


def _bring_batch(
    connection: sqlite3.Connection, job_id: int, first: int, period: str | None, batch: list[tuple[int, str, int]]
) -> None:
    """Bring results into a job as its items, numbered from ``first`` on."""
    items, results, companions = [], [], []
    for item_id, (rowid, key, at) in enumerate(batch, first):
        (row,) = _rows(connection, f"select * from {RESULTS} where rowid = ?", rowid)
        value, long = _parted(row)
        items.append((item_id, job_id, key, dumps(key, what="key"), at))
        results.append((item_id, TASK, key, period, value, at))
        if long is not None:
            companions.append((item_id, long))
    connection.executemany(
        "insert into job_items (id, job_id, key, payload, status, attempt, completed_at)"
        " values (?, ?, ?, ?, 'completed', 1, ?)",
        items,
    )
    connection.executemany(
        "insert into results (item_id, attempt, task, key, period, status, source, value, created_at)"
        " values (?, 1, ?, ?, ?, 'completed', 'outside', ?, ?)",
        results,
    )
    connection.executemany("insert into result_data (item_id, attempt, data) values (?, 1, ?)", companions)


def _bring_watchlist(connection: sqlite3.Connection, table: str) -> int:
    """Bring over which keys are watched, each with the newest result that it has."""
    name = raw(watched_key(connection, table) or "null")
    connection.execute(
        "insert or ignore into watchlist (task, key, last_job_id, last_status, last_run_at)"
        " select ?, w.key, i.job_id, i.status, i.completed_at"
        f" from (select distinct as_key({name}) as key from {table}) as w"
        " left join job_items i on i.id = (select max(item_id) from results r where r.task = ? and r.key = w.key)"
        " where w.key is not null",
        (TASK, TASK),
    )
    return count(connection, "watchlist")


# -- a row as JSON ------------------------------------------------------------------------------------------------


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _whole(row: dict[str, Any]) -> str:
    """Return a row as JSON; without its long columns where it would be too long."""
    try:
        return dumps({name: _jsonable(value) for name, value in row.items()}, what="row")
    except NotStorable:
        return _parted(row)[0]


def _parted(row: dict[str, Any]) -> tuple[str, bytes | None]:
    """Return a row as JSON, and its long columns as compressed JSON apart from it; None where it has none."""
    short: dict[str, Any] = {}
    long: dict[str, Any] = {}
    for name, value in row.items():
        told = _jsonable(value)
        (long if isinstance(told, str) and len(told) > _LONG else short)[name] = told
    try:
        text = dumps(short, what="row")
    except NotStorable:  # of very many columns
        text, long = "{}", {**short, **long}
    return text, zlib.compress(json.dumps(long, ensure_ascii=False).encode()) if long else None
