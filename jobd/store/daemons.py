"""The daemons' own rows, and what clients ask of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.process import Process
    from jobd.store.base import Connection, Store


def register(store: Store, process: Process, *, tasks: Iterable[str], version: str, now: int) -> int:
    """Insert the row of a daemon that has just taken the lock; return its id."""

    def work(connection: Connection) -> int:
        cursor = connection.execute(
            "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, tasks, version)"
            " values (?, ?, ?, ?, ?, ?, ?, ?) returning id",
            (*process, now, now, json.dumps(sorted(tasks)), version),
        )
        return int(cursor.fetchone()[0])

    return store.write(work)


def beat(store: Store, daemon_id: int, *, state: Mapping[str, Any], now: int, patience: float) -> None:
    """Say that the daemon lives, and how it is."""
    store.write(
        lambda connection: connection.execute(
            "update daemons set heartbeat_at = ?, heartbeats = heartbeats + 1, state = ? where id = ?",
            (now, json.dumps(state), daemon_id),
        ),
        patience=patience,
    )


def leave(store: Store, daemon_id: int, *, now: int, patience: float) -> None:
    """Say that the daemon has left in order."""
    store.write(
        lambda connection: connection.execute("update daemons set stopped_at = ? where id = ?", (now, daemon_id)),
        patience=patience,
    )


class Request(NamedTuple):
    """What a client asked the daemon to run."""

    name: str
    requested_at: int


def request(store: Store, name: str, *, now: int) -> None:
    """Ask the daemon to run a pass.

    What an earlier run left is set aside: no comparison of times tells its answer from the one to come, for the clock
    may have been put back in between.
    """
    store.write(
        lambda connection: connection.execute(
            "insert into passes (name, requested_at) values (?, ?)"
            " on conflict (name) do update set requested_at = excluded.requested_at, started_at = null,"
            " finished_at = null, report = null",
            (name, now),
        )
    )
    store.wake()


def requests(store: Store) -> list[Request]:
    """Return what was asked and not yet run."""
    return store.read(
        lambda connection: [
            Request(*row)
            for row in connection.execute(
                "select name, requested_at from passes where requested_at is not null and started_at is null"
            )
        ]
    )


def begin_pass(store: Store, name: str, *, now: int) -> None:
    """Say that a pass has begun: what was asked before is answered by it, and by no earlier one."""
    store.write(
        lambda connection: connection.execute(
            "insert into passes (name, started_at) values (?, ?)"
            " on conflict (name) do update set started_at = excluded.started_at, finished_at = null",
            (name, now),
        )
    )


def end_pass(store: Store, name: str, report: str, *, now: int) -> None:
    """Keep what a pass did."""
    store.write(
        lambda connection: connection.execute(
            "update passes set finished_at = ?, report = ? where name = ?", (now, report, name)
        )
    )


def answered(store: Store, name: str) -> str | None:
    """Return the report of a run that began after the request, as it was kept; None if there is none yet."""

    def work(connection: Connection) -> str | None:
        found = connection.execute(
            "select report from passes where name = ? and started_at is not null and finished_at is not null", (name,)
        ).fetchone()
        return str(found[0]) if found else None

    return store.read(work)
