"""What the health of the whole is made of: a few facts of the file, each at the same cost whatever its size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from jobd.store.base import Connection
    from jobd.store.sqlite import SqliteStore

# So many open jobs are counted; a file this small is checked whole: that takes 15 ms a megabyte, in one snapshot.
MOST: Final = 10_000
CHECKED_BYTES: Final = 4_000_000


class PassRow(NamedTuple):
    """A row of ``passes``; times in Unix ms, ``report`` is JSON."""

    name: str
    requested_at: int | None
    started_at: int | None
    finished_at: int | None
    report: str | None


class Vitals(NamedTuple):
    """Facts of the file, read in one snapshot.

    ``open_jobs`` are those that a daemon is needed for, 10,000 at most: neither paused nor being submitted; ``running``
    counts the running items by the daemon that they name; ``endless`` those that wait and have no deadline, 10,000 at
    most, of which the oldest is one of ``endless_job``; ``newest_job_at`` is Unix ms.
    """

    open_jobs: int
    running: dict[int | None, int]
    endless: int
    endless_job: int | None
    passes: tuple[PassRow, ...]
    newest_job_at: int | None
    schema: int


class Files(NamedTuple):
    """What lies on the disk, in bytes; ``rescue``: outcomes wait beside the database to be settled."""

    database: int
    wal: int
    free: int
    rescue: bool


_OPEN: Final = (
    "select count(*) from (select 1 from jobs where completed_at is null and paused_at is null"
    f" and sealed_at is not null and deleted_at is null limit {MOST})"
)
_RUNNING: Final = "select daemon_id, count(*) from job_items where status = 'running' group by daemon_id"
# By the index of deadlines alone: the first of those without one are the oldest.
_WAIT: Final = "from job_items where status = 'waiting' and deadline_at is null"
_ENDLESS: Final = f"select count(*) from (select 1 {_WAIT} limit {MOST})"
_ENDLESS_JOB: Final = f"select (select job_id {_WAIT} order by id limit 1)"
_PASSES: Final = (
    "select name, requested_at, started_at, finished_at, report from passes"
    # What else is kept there is nothing that ran.
    " where started_at is not null or requested_at is not null order by name"
)


def vitals(store: SqliteStore) -> Vitals:
    """Read the facts of the file.

    Raises:
        JobdError: it cannot be read.
    """

    def work(connection: Connection) -> Vitals:
        def one(text: str) -> Any:
            return connection.execute(text).fetchone()[0]

        return Vitals(
            open_jobs=one(_OPEN),
            running=dict(connection.execute(_RUNNING).fetchall()),
            endless=one(_ENDLESS),
            endless_job=one(_ENDLESS_JOB),
            passes=tuple(PassRow(*row) for row in connection.execute(_PASSES).fetchall()),
            newest_job_at=one("select max(created_at) from (select created_at from jobs order by id desc limit 1)"),
            schema=one("pragma user_version"),
        )

    return store.read(work)


def files(store: SqliteStore) -> Files:
    """Look at the files of the database, opening none of them."""
    room = os.statvfs(os.path.dirname(store.path))  # noqa: PTH120 - as below
    return Files(
        database=os.stat(store.path).st_size,  # noqa: PTH116 - never open() the file: closing drops SQLite's locks
        wal=store.wal_bytes(),
        free=room.f_bavail * room.f_frsize,
        rescue=os.path.exists(f"{store.path}.rescue"),  # noqa: PTH110 - as above
    )


def damage(store: SqliteStore) -> str | None:
    """Return what is wrong with a file, as far as a check without its indexes tells; None where it is whole."""
    found = store.read(lambda connection: connection.execute("pragma quick_check(1)").fetchone()[0])
    return None if found == "ok" else str(found)
