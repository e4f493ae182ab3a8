"""A version 0 file: what a program had that kept its jobs by hand, and how such a file is known.

Its shape is that of a thread, a status column and a table of results that name no job:

* ``analysis_jobs``: ``job_id`` and ``status``, and whatever else it has;
* ``analysis_results``: ``ticker`` and ``created_at``, no ``job_id``, and whatever else it has;
* perhaps ``watchlist``, with ``ticker`` or ``symbol``.

With exactly these tables, no views and no triggers, and neither an application id nor a version, a file is taken for
one; with anything else in it, it is another application's and is left alone.

Times are ISO 8601 or Unix time; one without a zone is taken as UTC.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from typing import Any, Final

from jobd.codec import NotStorable, checked_key

Counts = dict[str, int]

JOBS: Final = "analysis_jobs"
RESULTS: Final = "analysis_results"
WATCHED: Final = "watchlist"
_NEEDED: Final = {JOBS: {"job_id", "status"}, RESULTS: {"ticker", "created_at"}}
_SECONDS_UNTIL: Final = 10**11  # as seconds the year 5138, as milliseconds 1973
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LATEST: Final = 253_370_764_800_000  # the end of 9998


# -- what it is -------------------------------------------------------------------------------------------------------


def recognised(connection: sqlite3.Connection) -> bool:
    """Say whether a database is one of these."""
    made = connection.execute("select type, name from sqlite_master where name not like 'sqlite\\_%' escape '\\'")
    names: dict[str, set[str]] = {}
    for kind, name in made.fetchall():
        names.setdefault(kind, set()).add(name)
    tables = names.get("table", set())
    if names.keys() - {"table", "index"} or tables - {WATCHED} != _NEEDED.keys():
        return False
    if any(columns - columns_of(connection, table) for table, columns in _NEEDED.items()):
        return False
    if "job_id" in columns_of(connection, RESULTS) or (WATCHED in tables and watched_key(connection) is None):
        return False
    marks = [connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")]
    encoding = connection.execute("pragma encoding").fetchone()[0]
    return marks == [0, 0] and encoding == "UTF-8" and all(_has_rowid(connection, table) for table in tables)


def survey(connection: sqlite3.Connection, *, now: int) -> Counts:
    """Count what would come over, by a look that writes nothing into the file.

    ``jobs`` and ``results`` are rows; of the results, ``superseded`` are those that have a newer one of their key and
    day, and ``undated`` those whose time cannot be read.
    """
    _arrange(connection, now)
    superseded, undated = connection.execute(
        "select count(*) filter (where again > 0 and day is not null), count(*) filter (where day is null)"
        " from temp.arrivals"
    ).fetchone()
    return {
        "jobs": count(connection, JOBS),
        "results": count(connection, RESULTS),
        "superseded": superseded,
        "undated": undated,
    }


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"pragma table_info({table})")}


def watched_key(connection: sqlite3.Connection, table: str = WATCHED) -> str | None:
    """Return the column of the watchlist that names a key, None where there is none."""
    found = columns_of(connection, table)
    return next((name for name in ("ticker", "symbol") if name in found), None)


def _has_rowid(connection: sqlite3.Connection, table: str) -> bool:
    try:
        connection.execute(f"select rowid from {table} limit 0")
    except sqlite3.OperationalError:
        return False
    return "rowid" not in columns_of(connection, table)


def count(connection: sqlite3.Connection, table: str) -> int:
    number: int = connection.execute(f"select count(*) from {table}").fetchone()[0]
    return number


def _arrange(connection: sqlite3.Connection, now: int) -> None:
    """Make the temporary table ``arrivals``: of each old result its key, its day, its time, and how many are newer."""
    for function in (millis, day_of, as_key):
        connection.create_function(function.__name__, 1, function, deterministic=True)
    connection.execute("drop table if exists temp.arrivals")
    connection.execute(
        "create temp table arrivals as"
        f" with read as materialized (select rowid as id, coalesce(as_key({raw('ticker')}), 'row ' || rowid) as key,"
        f" millis({raw('created_at')}) as at from main.{RESULTS})"
        " select id, key, day_of(at) as day, coalesce(at, ?) as at,"
        " row_number() over (partition by key, day_of(at) order by at desc, id desc) - 1 as again from read",
        (now,),
    )
    connection.execute("create index temp.arrivals_in_order on arrivals (day, again desc, id)")


def raw(column: str) -> str:
    """Return SQL for a column with its text as bytes: what is no UTF-8 would never reach a function of ours."""
    return f"case typeof({column}) when 'text' then cast({column} as blob) else {column} end"


# -- single values ----------------------------------------------------------------------------------------------------


def millis(time: Any) -> int | None:
    """Return a time as Unix milliseconds, None where it cannot be read as one."""
    if isinstance(time, str | bytes):
        text = text_of(time).strip()
        found = _of_iso(text)
        if found is None:
            found = _of_number(text)
    else:
        found = _of_number(time)
    return found if found is not None and 0 <= found < _LATEST else None


def _of_iso(text: str) -> int | None:
    try:
        read = dt.datetime.fromisoformat(text)
        return ((read if read.tzinfo else read.replace(tzinfo=dt.UTC)) - _EPOCH) // dt.timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def _of_number(time: Any) -> int | None:
    try:
        seconds = float(time)
        return round(seconds * 1000) if abs(seconds) < _SECONDS_UNTIL else round(seconds)
    except (TypeError, ValueError, OverflowError):
        return None


def day_of(time: int | None) -> str | None:
    """Return the day of a time, as in 2026-11-21, in UTC."""
    return None if time is None else (_EPOCH + dt.timedelta(milliseconds=time)).date().isoformat()


def as_key(ticker: Any) -> str | None:
    """Return what can be an item's key, None where it cannot be one."""
    if ticker is None:
        return None
    try:
        return checked_key(text_of(ticker) if isinstance(ticker, str | bytes) else str(ticker))
    except NotStorable:
        return None


def text_of(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
