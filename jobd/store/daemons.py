"""The daemons' own rows, and what clients ask of them."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from jobd.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.store.base import Connection, Store


def register(
    store: Store,
    process: Process,
    *,
    tasks: Iterable[str],
    version: str,
    now: int,
    state: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Insert the row of a daemon that has just taken the lock, with what it says of itself; return its id.

    A pass that a former daemon was asked for, and left in the middle, is asked for again.
    """

    def work(connection: Connection) -> int:
        connection.execute(
            "update passes set started_at = null"
            " where requested_at is not null and started_at is not null and finished_at is null"
        )
        cursor = connection.execute(
            "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, tasks, version,"
            " state) values (?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
            (*process, now, now, json.dumps(sorted(tasks)), version, json.dumps(dict(state))),
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


def leave(store: Store, daemon_id: int, *, state: Mapping[str, Any], now: int, patience: float) -> None:
    """Say that the daemon has left in order, and what it had done by then."""
    store.write(
        lambda connection: connection.execute(
            "update daemons set stopped_at = ?, state = ? where id = ?", (now, json.dumps(state), daemon_id)
        ),
        patience=patience,
    )


def disown(store: Store) -> None:
    """Take the daemon's name off every running item: nothing proves then that nobody runs them. For tests."""
    store.write(lambda connection: connection.execute("update job_items set daemon_id = null where status = 'running'"))


class Request(NamedTuple):
    """What a client asked the daemon to run."""

    name: str
    requested_at: int


def request(store: Store, name: str, *, now: int, options: Mapping[str, Any] | None = None) -> None:
    """Ask the daemon to run a pass, with what the pass takes beside its name.

    What an earlier run left is set aside: no comparison of times tells its answer from the one to come, for the clock
    may have been put back in between.
    """
    store.write(
        lambda connection: connection.execute(
            "insert into passes (name, requested_at, options) values (?, ?, ?)"
            " on conflict (name) do update set requested_at = excluded.requested_at, options = excluded.options,"
            " started_at = null, finished_at = null, report = null",
            (name, now, _packed(options)),
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


def newest(store: Store) -> int | None:
    """Return the id of the daemon that started last; None before the first."""
    found = store.read(lambda connection: connection.execute("select max(id) from daemons").fetchone())
    return None if found[0] is None else int(found[0])


class Sign(NamedTuple):
    """When (Unix ms) something was heard of the newest daemon for the last time, and which process it was."""

    at: int
    process: Process


def last_sign(store: Store) -> Sign | None:
    """Return the last sign of life of a daemon; None before the first."""
    found = store.read(
        lambda connection: connection.execute(
            "select max(heartbeat_at, coalesce(stopped_at, 0)), host, boot, pid, process_started_at"
            " from daemons order by id desc limit 1"
        ).fetchone()
    )
    return Sign(found[0], Process(*found[1:])) if found else None


def begin_pass(store: Store, name: str, *, now: int) -> dict[str, Any]:
    """Say that a pass has begun: what was asked before is answered by it, and by no earlier one.

    Return the options that it was asked with, an empty dict where it was not.
    """

    def work(connection: Connection) -> str | None:
        found = connection.execute(
            "insert into passes (name, started_at) values (?, ?) on conflict (name) do update set"
            " options = case when requested_at is not null and started_at is null then options end,"
            " started_at = excluded.started_at, finished_at = null returning options",
            (name, now),
        ).fetchone()
        return None if found[0] is None else str(found[0])

    options = store.write(work)
    return json.loads(options) if options is not None else {}


def last_runs(store: Store) -> dict[str, int]:
    """Return when each pass last began, in Unix ms; one that is asked for has not."""
    return store.read(
        lambda connection: dict(
            connection.execute("select name, started_at from passes where started_at is not null").fetchall()
        )
    )


def end_pass(store: Store, name: str, report: str, *, now: int) -> None:
    """Keep what a pass did."""
    store.write(
        lambda connection: connection.execute(
            "update passes set finished_at = ?, report = ? where name = ?", (now, report, name)
        )
    )


def under_way(store: Store, name: str) -> bool:
    """Say whether a pass has begun and not ended."""
    text = "select 1 from passes where name = ? and started_at is not null and finished_at is null"
    return store.read(lambda connection: connection.execute(text, (name,)).fetchone()) is not None


class OtherOptions(Exception):
    """Somebody else has asked for the same pass meanwhile, with other options: it was run with theirs."""


def answered(store: Store, name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """Return the report of a run that began after the request, as it was kept; None if there is none yet.

    Raises:
        OtherOptions: the report is not that of a run with these.
    """

    def work(connection: Connection) -> tuple[str, str | None] | None:
        found: tuple[str, str | None] | None = connection.execute(
            "select report, options from passes where name = ? and started_at is not null and finished_at is not null",
            (name,),
        ).fetchone()
        return found

    found = store.read(work)
    if found is None:
        return None
    if found[1] != _packed(options):
        raise OtherOptions
    return found[0]


def _packed(options: Mapping[str, Any] | None) -> str | None:
    return json.dumps(options, sort_keys=True) if options else None
