"""A file, looked at before anything writes to it: whether it is there, whole, and ours. Not one byte is changed.

Never ``open()`` it: closing any descriptor of the file drops the locks that SQLite holds in this process. Only ``stat``
and SQLite itself look at it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from typing import Final, NamedTuple

from jobd.errors import StoreUnusable
from jobd.store.driver_errors import primary
from jobd.store.schema import APPLICATION_ID, SCHEMA_VERSION

SMALLEST_DATABASE: Final = 512
# What a restore puts beside the database until it takes its place.
INCOMING: Final = ".restoring"
# Seconds between looks at a file that seems to be damaged.
_PAUSES: Final = (0.002, 0.01, 0.03)


class Identity(NamedTuple):
    """Which file a path leads to; it changes when the file is moved away or replaced."""

    device: int
    inode: int


class Header(NamedTuple):
    """Whose file it is, by its own word; ``tables`` counts all that its schema names."""

    application: int
    version: int
    tables: int

    @property
    def ours(self) -> bool:
        """Say whether it is marked as jobd's."""
        return self.application == APPLICATION_ID


def unusable(path: str, why: str, *, hint: str | None = None) -> StoreUnusable:
    """Return the error that says why the file at ``path`` cannot be used as it is."""
    return StoreUnusable(f"{path}: {why}", hint=hint)


def identity(path: str) -> Identity | None:
    """Return which file a path leads to now; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call, and nothing that could open it
    except FileNotFoundError:
        return None
    return Identity(found.st_dev, found.st_ino)


def bytes_of(path: str) -> int:
    """Return the size of a file, 0 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as above
    except FileNotFoundError:
        return 0


def size(path: str) -> int | None:
    """Return the size of the database at ``path``, None where there is none.

    Raises:
        StoreUnusable: it is no file, or too small for a database.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - one call for type and size
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise unusable(path, "it is not a regular file")
    if 0 < found.st_size < SMALLEST_DATABASE:
        # Of one byte SQLite thinks that it is an empty database.
        raise unusable(path, "the file is not a database", hint="jobd restore BACKUP")
    return found.st_size


def make_empty(path: str) -> None:
    """Create an empty file for its owner alone, where there is none.

    Here and not by SQLite, so that nobody else can read it, not even for an instant. Where another is faster both go
    on as with any empty file.

    Raises:
        StoreUnusable: it is gone or empty, and its log is not; or a restore was about to put one there.
    """
    no_log_alone(path)
    if bytes_of(path + INCOMING):
        # Killed where there was no file, or where the file system has no second names: a new one would hide that.
        raise unusable(
            path, "a restore has not ended", hint=f"jobd restore BACKUP, the same again; or remove {path}{INCOMING}"
        )
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def no_log_alone(path: str) -> None:
    """Refuse what is left of a database whose file is gone or empty, before anything opens it.

    Raises:
        StoreUnusable: its log is there. SQLite would delete it, and with it perhaps the only copy of the jobs.
    """
    # The log first: who makes a new database fills the file before its log, perhaps since the caller has looked.
    if bytes_of(f"{path}-wal") and not bytes_of(path):
        raise unusable(path, "the file is empty but its -wal is not", hint="jobd restore BACKUP")


def schema_version(path: str, *, timeout_ms: int) -> int:
    """Return the schema's version of a jobd file, 0 for a database without tables.

    Raises:
        StoreUnusable: it is truncated, another application's, or of a newer jobd.
    """
    found = header(path, timeout_ms=timeout_ms)
    if not found.ours and (found.application or found.tables):
        raise foreign(path, found, timeout_ms=timeout_ms)
    if found.version > SCHEMA_VERSION:
        raise newer(path, found.version)
    return found.version


def foreign(path: str, found: Header, *, timeout_ms: int) -> StoreUnusable:
    """Return the error that says whose file it is, as far as that can be told."""
    if not found.application and not found.version:
        from shlex import quote  # noqa: PLC0415 - only who is refused pays for it

        from jobd.store import version0  # noqa: PLC0415 - as above

        with contextlib.closing(connect_to_read(path, timeout_ms=timeout_ms)) as connection:
            if version0.recognised(connection):
                return unusable(
                    path,
                    "it is a version 0 file, from before jobd",
                    hint=f"jobd --db {quote(path)} migrate --check-only",
                )
    return unusable(path, "it is the database of another application", hint="jobd --db ANOTHER_FILE …")


def newer(path: str, version: int) -> StoreUnusable:
    """Return the error that says which schema a file has, and which is known here."""
    return unusable(path, f"it has schema {version}, this jobd knows {SCHEMA_VERSION}", hint="upgrade jobd-embedded")


def header(path: str, *, timeout_ms: int) -> Header:
    """Read the header of a database without a byte written beside or into it.

    Raises:
        StoreUnusable: the file is shorter than its header says, or is empty and its log is not.
    """
    if not size(path):
        no_log_alone(path)
    for pause in _PAUSES:
        try:
            return _header(path, timeout_ms)
        except sqlite3.DatabaseError as error:
            # Whoever wrote to it has put its log into it just while this one read it as "immutable". What is really
            # damaged is so at the next look.
            if primary(error) not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise
            time.sleep(pause)
    return _header(path, timeout_ms)


def _header(path: str, timeout_ms: int) -> Header:
    probe = connect_to_read(path, timeout_ms=timeout_ms)
    try:
        for _ in range(2):
            pages, page, *found = probe.execute(
                "select p.page_count, s.page_size, a.application_id, u.user_version,"
                " (select count(*) from sqlite_master) from pragma_page_count as p, pragma_page_size as s,"
                " pragma_application_id as a, pragma_user_version as u"
            ).fetchone()
            # Looked at in this order and twice: between two looks another process may have moved its log.
            if bytes_of(f"{path}-wal") or (size(path) or 0) >= pages * page:
                return Header(*found)
    finally:
        probe.close()
    raise unusable(path, f"the file is truncated: {pages * page:,} bytes by its header", hint="jobd restore BACKUP")


def connect_to_read(path: str, *, timeout_ms: int) -> sqlite3.Connection:
    """Return a connection that writes nothing beside or into the file, for one look while nobody writes to it.

    With an empty log all of it is in the file: "immutable" then keeps SQLite from putting a log of its own beside a
    file that is not ours. "ro" neither replays nor checkpoints a log that is there.
    """
    mode = "mode=ro" if bytes_of(f"{path}-wal") else "mode=ro&immutable=1"
    return sqlite3.connect(uri(path, mode), uri=True, isolation_level=None, timeout=timeout_ms / 1000)


def uri(path: str, query: str) -> str:
    """Return an absolute path as SQLite's URI: written out here, as pathlib and urllib cost a cold start 10 ms."""
    for sign, code in (("%", "%25"), ("?", "%3f"), ("#", "%23")):
        path = path.replace(sign, code)
    return f"file://{path}?{query}"
