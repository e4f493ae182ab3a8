"""Migrations: how a file of an older schema becomes one of the present.

Ordered, each in one transaction together with the version that it leads to, so that a process killed anywhere finds
the file at the version before or after, and the next goes on from there. They only add: what a program of the older
schema has written is there afterwards. Before the first of them the whole file is copied beside itself; while they run
nobody else has it open.

``application_id`` says whose file it is. A jobd file of an older version is migrated when an app opens it, under the
daemon's lock; doctor and a backup take it as it is. A version 0 file is marked as nobody's: it is known by its tables
alone (``version0.py``), and changed only by ``jobd migrate``.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import NotFound, StoreUnusable
from jobd.store import alone, copies, file, version0, version0_import
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.driver_errors import meaning
from jobd.store.invariants import found as found_broken
from jobd.store.invariants import invariants
from jobd.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobd.store.copies import At, Watch

Counts = dict[str, int]
_INCREMENTAL: Final = 2


class Migration(NamedTuple):
    """A step from one version to a later one: ``run(connection, now, watch)`` returns what it counted."""

    source: int
    target: int
    what: str
    run: Callable[[sqlite3.Connection, int, Callable[[int, int], None]], Counts]


class Step(NamedTuple):
    """What a migration did, or would do."""

    from_version: int
    to_version: int
    what: str
    counts: Counts


class Migrated(NamedTuple):
    """What was done, or with ``check_only`` would be; ``backup`` is the copy from before, None where there is none."""

    database: str
    check_only: bool
    from_version: int
    to_version: int
    backup: str | None
    steps: tuple[Step, ...]

    def json(self) -> dict[str, Any]:
        return {**self._asdict(), "steps": [step._asdict() for step in self.steps]}


def _bring_version_0_over(connection: sqlite3.Connection, now: int, watch: Callable[[int, int], None]) -> Counts:
    return version0_import.bring_over(connection, now=now, watch=watch)


# A version 0 file is read into new tables, whatever their version is by then; from 1 on each step adds to the last.
MIGRATIONS: Final = (
    Migration(0, SCHEMA_VERSION, "jobs and results of a version 0 file become jobd's", _bring_version_0_over),
)


def pending(version: int, migrations: Sequence[Migration] = MIGRATIONS) -> list[Migration]:
    """Return the migrations that lead from ``version`` to the present one, in order.

    Raises:
        LookupError: there is no such way.
    """
    way = []
    while version != SCHEMA_VERSION:
        step = next((migration for migration in migrations if migration.source == version), None)
        if step is None or step.target <= version:
            raise LookupError(f"no migration leads on from schema {version}")
        way.append(step)
        version = step.target
    return way


def preview(path: str, *, now: int, counted: bool = True, migrations: Sequence[Migration] = MIGRATIONS) -> Migrated:
    """Return what ``migrate`` would do; not a byte is changed. ``counted`` says also with how many rows.

    Raises:
        NotFound: there is no file.
        StoreUnusable: it is damaged, another application's or of a newer schema.
    """
    if not _size(path):
        return Migrated(path, True, SCHEMA_VERSION, SCHEMA_VERSION, None, ())
    if half_changed(path):
        raise file.unusable(
            path, "its last program was killed in the middle of a change", hint="open it once with that program"
        )
    try:
        file.header(path, timeout_ms=BUSY_TIMEOUT_MS)
        with closing(file.connect_to_read(path, timeout_ms=BUSY_TIMEOUT_MS)) as connection:
            version = _version(connection, path)
            way = pending(version, migrations)
            steps = [
                Step(
                    step.source, step.target, step.what,
                    version0.survey(connection, now=now) if counted and step.source == version == 0 else {},
                )
                for step in way
            ]  # fmt: skip
    except sqlite3.Error as error:
        raise meaning(error, path, waited=BUSY_TIMEOUT_MS / 1000) from error
    return Migrated(path, True, version, SCHEMA_VERSION, None, tuple(steps))


def migrate(
    path: str, *, now: int, at: At, watch: Watch = copies.unwatched, migrations: Sequence[Migration] = MIGRATIONS
) -> Migrated:
    """Bring the file at ``path``, whose lock the caller holds, to the present schema; a copy of it is kept beside it.

    Raises:
        NotFound: there is no file.
        StoreBusy: another program has it open, or the disk is full; it is as it was, or at a version between.
        StoreUnusable: it is damaged, another application's or of a newer schema; it is as it was.
    """
    if not _size(path):
        return Migrated(path, False, SCHEMA_VERSION, SCHEMA_VERSION, None, ())
    try:
        # Where a change was left half, SQLite must roll it back before the file can be judged.
        if not half_changed(path):
            file.header(path, timeout_ms=BUSY_TIMEOUT_MS)
            with closing(file.connect_to_read(path, timeout_ms=BUSY_TIMEOUT_MS)) as connection:
                _version(connection, path)
        with alone.exclusively(path) as connection:
            version = _version(connection, path)
            way = pending(version, migrations)
            _must_be_whole(connection, path)
            backup = _back_up(connection, path, version, now, watch) if way else None
            at("migrate.copied")
            steps = _run(connection, path, way, backup, now, at, watch)
            if steps:
                # What the old tables took goes back to the disk.
                connection.execute("pragma incremental_vacuum").fetchall()
    except sqlite3.Error as error:
        raise meaning(error, path, waited=BUSY_TIMEOUT_MS / 1000) from error
    return Migrated(path, False, version, SCHEMA_VERSION, backup, tuple(steps))


def half_changed(path: str) -> bool:
    """Say whether a program that used a rollback journal was killed in a transaction: who opens the file undoes it."""
    return file.bytes_of(f"{path}-journal") > 0


def _size(path: str) -> int:
    size = file.size(path)
    if size is None:
        raise NotFound(f"there is no file at {path}", hint="--db names another")
    if not size:
        file.no_log_alone(path)
    return size


def _version(connection: sqlite3.Connection, path: str) -> int:
    """Return which schema a file has; of one without tables the present one, that it will be given."""
    mark, version, tables = connection.execute(
        "select a.application_id, u.user_version, (select count(*) from sqlite_master)"
        " from pragma_application_id as a, pragma_user_version as u"
    ).fetchone()
    found = file.Header(mark, version, tables)
    if not found.tables and (found.ours or not found.application):
        return SCHEMA_VERSION
    if not found.ours:
        if version0.recognised(connection):
            return 0
        raise file.foreign(path, found, timeout_ms=BUSY_TIMEOUT_MS)
    if found.version > SCHEMA_VERSION:
        raise file.newer(path, found.version)
    if not found.version:
        raise file.unusable(path, "it is marked as jobd's and names no schema", hint="jobd restore BACKUP")
    return found.version


def _must_be_whole(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a damaged file: what cannot be read would be lost.

    Raises:
        StoreUnusable: it is damaged.
    """
    (said,) = connection.execute("pragma quick_check(1)").fetchone()
    if said != "ok":
        raise file.unusable(path, f"the file is damaged ({said})", hint="jobd restore BACKUP")


def _back_up(connection: sqlite3.Connection, path: str, version: int, now: int, watch: Watch) -> str:
    """Copy the file as it is, by the connection that keeps everybody else out."""
    target = copies.free_name(path, f"schema-{version}", now=now)
    with copies.arriving(target) as temporary:
        copies.copy(connection, temporary, name=path, watch=watch)
    return target


def _run(
    connection: sqlite3.Connection,
    path: str,
    way: Iterable[Migration],
    backup: str | None,
    now: int,
    at: At,
    watch: Watch,
) -> list[Step]:
    steps: list[Step] = []
    try:
        for migration in way:
            _prepare(connection)
            counts = _one(connection, path, migration, now, at, watch)
            steps.append(Step(migration.source, migration.target, migration.what, counts))
            at("migrate.after_commit")
    except BaseException:
        if not steps and backup is not None:
            # The file is as it was: a second one like it helps nobody.
            with suppress(FileNotFoundError):
                os.unlink(backup)  # noqa: PTH108 - names are text here
        raise
    return steps


def _prepare(connection: sqlite3.Connection) -> None:
    """Give the file what only an empty one takes at no cost; by its log, so that a kill leaves it as it was."""
    connection.execute("pragma journal_mode=wal")
    if connection.execute("pragma auto_vacuum").fetchone()[0] != _INCREMENTAL:
        connection.execute("pragma auto_vacuum=incremental")
        connection.execute("vacuum")


def _one(connection: sqlite3.Connection, path: str, migration: Migration, now: int, at: At, watch: Watch) -> Counts:
    connection.execute("begin immediate")
    try:
        counts = migration.run(connection, now, lambda reached, whole: watch("migrating", reached, whole))
        connection.execute(f"pragma user_version={migration.target}")
        _must_hold(connection, path, migration)
        at("migrate.before_commit")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return counts


def _must_hold(connection: sqlite3.Connection, path: str, migration: Migration) -> None:
    """Refuse to commit rows that break a rule of truth, where all of them were made here.

    In an older jobd file a rule may be broken already; that is doctor's to say.

    Raises:
        StoreUnusable: a rule does not hold.
    """
    *rules, _ = invariants()
    for rule in rules if migration.source == 0 else ():
        broken = found_broken(connection, rule)
        if broken:
            raise StoreUnusable(
                f"{path}: the migration to schema {migration.target} would break a rule: {broken[0].text}"
                f" ({rule.sentence}); nothing was changed"
            )
