"""A backup: a copy of the database while it is in use, examined, and there whole or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from jobd.errors import Conflict, NotFound, UsageError
from jobd.store import copies, file
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.driver_errors import meaning

if TYPE_CHECKING:
    from jobd.store.copies import Watch
    from jobd.store.invariants import Violation


class Backup(NamedTuple):
    """What was copied: from where to where, how many bytes, of which schema, and which rules are broken in it."""

    database: str
    path: str
    bytes: int
    schema: int
    broken: tuple[Violation, ...]

    def json(self) -> dict[str, Any]:
        return {**self._asdict(), "broken": [violation._asdict() for violation in self.broken]}


def backup(path: str, target: str, *, force: bool = False, watch: Watch = copies.unwatched) -> Backup:
    """Copy the database at ``path`` to ``target``; daemon and clients go on meanwhile.

    Raises:
        NotFound: there is no database.
        UsageError: no file can have the name ``target``, or the database itself has it.
        Conflict: there is a file, and ``force`` is false; or it is a database in use.
        StoreBusy: the disk is full, or the database stayed locked.
        StoreUnusable: the database is damaged or not jobd's, or the copy cannot be written.
    """
    target = os.path.realpath(target)
    if file.size(path) is None:
        raise NotFound(f"there is no jobd file at {path}", hint="--db names another")
    _allow(path, target, force=force)
    with copies.arriving(target, replace=force) as temporary:
        try:
            # Looked at before SQLite may replay a log that is not ours.
            file.schema_version(path, timeout_ms=BUSY_TIMEOUT_MS)
            source = sqlite3.connect(
                file.uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000
            )
        except sqlite3.Error as error:
            raise meaning(error, path, waited=BUSY_TIMEOUT_MS / 1000) from error
        with closing(source):
            copies.copy(source, temporary, name=path, watch=watch)
        found = copies.examine(temporary, name=path, watch=watch)
    return Backup(path, target, file.bytes_of(target), found.schema, found.broken)


def _allow(path: str, target: str, *, force: bool) -> None:
    folder = os.path.dirname(target)  # noqa: PTH120 - names are text here
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        raise UsageError(f"there is no folder {folder}")
    try:
        os.lstat(target)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            # Its copy has a shorter name: it would be whole before this was found out.
            raise UsageError(f"{target}: {error.strerror}", hint="a shorter name") from None
    if os.path.isdir(target):  # noqa: PTH112 - as above
        raise UsageError(f"{target} is a folder", hint="name the file that the backup shall be")
    beside = {path + suffix for suffix in ("", "-wal", "-shm", "-journal", ".lock", ".wake", ".rescue")}
    if target in beside or ((found := file.identity(target)) is not None and found == file.identity(path)):
        raise UsageError(f"{target} belongs to the database itself", hint="another name")
    if os.path.lexists(target) and not (force and os.path.isfile(target)):  # noqa: PTH113 - as above
        raise copies.taken(target)
    for log in (f"{target}-wal", f"{target}-journal"):
        if os.path.lexists(log):
            # SQLite would take it for the copy's own, and mix what is in it into the copy.
            raise Conflict(f"there is a file at {log}: a database is in use under that name", hint="another name")
