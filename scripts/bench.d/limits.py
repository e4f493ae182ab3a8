"""What the standard library's sqlite3 allows: a queue as a careful person would write it by hand."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from statistics import median
from typing import TYPE_CHECKING, Final

from measure import pause, percentile, timed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from measure import Scale

SHORT: Final = 0.005
THREADS: Final = 16
_HUNDRED: Final = 100
_SCHEMA: Final = """
create table units (
  id            integer primary key,
  payload       text    not null,
  status        text    not null default 'queued',
  attempt       integer not null default 0,
  started_at    integer,
  completed_at  integer
);
create index units_queued on units (id) where status = 'queued';
create index units_running on units (id) where status = 'running';
create table results (
  unit_id     integer primary key references units (id),
  value       text    not null,
  created_at  integer not null
);
"""
_CLAIM: Final = (
    "update units set status='running', attempt=attempt+1, started_at=? where status='queued' and id in"
    " (select id from units where status='queued' order by id limit ?) returning id, payload, attempt"
)
_COMPLETE: Final = "update units set status='completed', completed_at=? where id=? and status='running' and attempt=?"
_RESULT: Final = "insert into results (unit_id, value, created_at) values (?, ?, ?)"
_INSERT: Final = "insert into units (payload) values (?)"


def limits(folder: Path, scale: Scale) -> dict[str, float]:
    def each(measure: Callable[[sqlite3.Connection, Scale], float]) -> float:
        return median(_with_file(folder / f"{measure.__name__}{turn}.db", measure, scale) for turn in range(turns))

    turns = scale.repeats
    return {
        "L1": each(_updates),
        "L2": each(_inserts),
        "L3": each(_one_by_one),
        "L4": each(_by_hundreds),
        "L5": median(_pool(scale) for _ in range(turns)),
        **_handed_on(folder / "handed.db", scale),
    }


def _with_file(path: Path, measure: Callable[[sqlite3.Connection, Scale], float], scale: Scale) -> float:
    connection = _connected(path)
    connection.executescript(_SCHEMA)
    try:
        return measure(connection, scale)
    finally:
        connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
    connection.execute("pragma foreign_keys=on")
    return connection


def _fill(connection: sqlite3.Connection, count: int) -> None:
    with _transaction(connection):
        connection.executemany(_INSERT, ((f'"{number}"',) for number in range(count)))


class _transaction:  # noqa: N801 - reads as the statement it stands for
    """BEGIN IMMEDIATE to COMMIT; a generator's context would cost as much as the statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("begin immediate")

    def __exit__(self, kind: object, *_: object) -> None:
        self.connection.execute("commit" if kind is None else "rollback")


def _now() -> int:
    return int(time.time() * 1000)


def _updates(connection: sqlite3.Connection, scale: Scale) -> float:
    _fill(connection, scale.many)

    def update() -> None:
        for number in range(1, scale.many // 2 + 1):
            with _transaction(connection):
                connection.execute("update units set started_at=? where id=?", (_now(), number))

    return (scale.many // 2) / timed(update)


def _inserts(connection: sqlite3.Connection, scale: Scale) -> float:
    return scale.many / timed(lambda: _fill(connection, scale.many))


def _one_by_one(connection: sqlite3.Connection, scale: Scale) -> float:
    """Claim, (do nothing,) complete: each a transaction, as it must be where a crash may come in between."""
    _fill(connection, scale.many)

    def drain() -> None:
        while True:
            with _transaction(connection):
                claimed = connection.execute(_CLAIM, (_now(), 1)).fetchone()
            if claimed is None:
                return
            number, _, attempt = claimed
            with _transaction(connection):
                now = _now()
                if connection.execute(_COMPLETE, (now, number, attempt)).rowcount == 1:
                    connection.execute(_RESULT, (number, "null", now))

    return scale.many / timed(drain)


def _by_hundreds(connection: sqlite3.Connection, scale: Scale) -> float:
    _fill(connection, scale.many)

    def drain() -> None:
        while True:
            with _transaction(connection):
                claimed = connection.execute(_CLAIM, (_now(), _HUNDRED)).fetchall()
            if not claimed:
                return
            with _transaction(connection):
                now = _now()
                for number, _, attempt in claimed:
                    if connection.execute(_COMPLETE, (now, number, attempt)).rowcount == 1:
                        connection.execute(_RESULT, (number, "null", now))

    return scale.many / timed(drain)


def ideal(scale: Scale) -> float:
    """Return how long the short items would take if threads cost nothing, in seconds."""
    return scale.short * SHORT / THREADS


def _pool(scale: Scale) -> float:
    with ThreadPoolExecutor(THREADS) as pool:
        return timed(lambda: list(pool.map(time.sleep, [SHORT] * scale.short))) / ideal(scale)


def _handed_on(path: Path, scale: Scale) -> dict[str, float]:
    """Store a unit, wake a thread that claims it in a commit of its own, wake another: what "runs" costs at least."""
    stored: SimpleQueue[float | None] = SimpleQueue()
    claimed: SimpleQueue[float | None] = SimpleQueue()
    taken = []

    def claim() -> None:
        connection = _connected(path)
        while (began := stored.get()) is not None:
            with _transaction(connection):
                connection.execute(_CLAIM, (_now(), 1)).fetchone()
            claimed.put(began)
        claimed.put(None)
        connection.close()

    def run() -> None:
        while (began := claimed.get()) is not None:
            taken.append((time.monotonic() - began) * 1000)

    connection = _connected(path)
    connection.executescript(_SCHEMA)
    threads = [threading.Thread(target=claim), threading.Thread(target=run)]
    for thread in threads:
        thread.start()
    for number in range(scale.latencies):
        pause()
        began = time.monotonic()
        with _transaction(connection):
            connection.execute(_INSERT, (f'"{number}"',))
        stored.put(began)
    stored.put(None)
    for thread in threads:
        thread.join()
    connection.close()
    return {"L6-p50": percentile(taken, 0.5), "L6-p99": percentile(taken, 0.99)}
