"""A backup in the database's place: at every instant either the old file or the new one has the name, whole.

The order of the steps is the point. The copy of the backup is examined and on the disk before anything else moves. The
old file then gets a second name, so that nothing of it is lost. Its logs go before the new file comes: SQLite would
replay what they hold into it. And one rename, which is atomic, puts the new file in place.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import NotFound, StoreUnusable, UsageError
from jobd.store import alone, copies, file
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.driver_errors import meaning, primary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.copies import At, Examined, Watch
    from jobd.store.invariants import Violation

_MADE: Final = "name the file that jobd backup has made"
_LOGS: Final = ("-wal", "-journal")
_ANOTHER: Final = "the same again with another backup"
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Restored(NamedTuple):
    """What was put in place: of which backup, how many bytes, of which schema, and which rules are broken in it.

    ``kept`` is the old file's name now, None where there was none.
    """

    database: str
    backup: str
    kept: str | None
    bytes: int
    schema: int
    broken: tuple[Violation, ...]

    def json(self) -> dict[str, Any]:
        return {**self._asdict(), "broken": [violation._asdict() for violation in self.broken]}


def restore(path: str, backup: str, *, now: int, at: At, watch: Watch = copies.unwatched) -> Restored:
    """Put the backup in the place of the database at ``path``, whose lock the caller holds; the old file is kept.

    Whatever is raised, nothing has changed; whenever the process is killed, the same again goes on.

    Raises:
        NotFound: there is no such backup.
        UsageError: the backup is the database itself, or no file that could be one.
        StoreBusy: the disk is full, or another program has the database open.
        StoreUnusable: the backup is truncated, damaged, another application's or of a newer schema; the database is
            another application's, or its folder cannot be written.
    """
    if not backup:
        raise UsageError("no backup is named", hint=_MADE)
    backup = os.path.realpath(backup)
    if os.path.isdir(backup):  # noqa: PTH112 - names are text here
        raise UsageError(f"{backup} is a folder", hint=_MADE)
    _look_at(path, backup)
    incoming = path + file.INCOMING
    with copies.told(path), contextlib.ExitStack() as tidy:
        # Of a restore that was killed: only who holds the lock may write here.
        _remove(incoming)
        os.close(os.open(incoming, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        tidy.callback(_remove, incoming)
        found = _copy(backup, incoming, watch)
        _give_to_the_same_owner(path, incoming)
        at("restore.copied")
        with _out_of_use(path):
            kept = _swap(path, incoming, now, at)
    return Restored(path, backup, kept, file.bytes_of(path), found.schema, found.broken)


def _look_at(path: str, backup: str) -> None:
    """Refuse what is not meant, before anything is made."""
    with _of_a_backup():
        size = file.size(backup)
    if size is None:
        raise NotFound(f"there is no file at {backup}", hint=_MADE)
    if file.identity(backup) == file.identity(path):
        raise UsageError(f"{backup} is the database itself", hint=_MADE)
    if not size:
        raise file.unusable(backup, "the file is empty", hint=_ANOTHER)
    if file.bytes_of(f"{backup}-journal"):
        raise file.unusable(
            backup, "it was left in the middle of a change: there is a -journal beside it", hint=_ANOTHER
        )
    if os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 - names are text here
        raise file.unusable(path, "it is not a regular file")


def _copy(backup: str, incoming: str, watch: Watch) -> Examined:
    """Copy the backup and examine the copy: nothing is made beside the backup, which may lie where nobody writes."""
    with _of_a_backup():
        try:
            # Before SQLite makes room for what a truncated file says that it holds.
            file.schema_version(backup, timeout_ms=BUSY_TIMEOUT_MS)
            with contextlib.closing(file.connect_to_read(backup, timeout_ms=BUSY_TIMEOUT_MS)) as source:
                copies.copy(source, incoming, name=backup, watch=watch)
            return copies.examine(incoming, name=backup, watch=watch)
        except sqlite3.Error as error:
            raise meaning(error, backup, waited=BUSY_TIMEOUT_MS / 1000) from error


@contextlib.contextmanager
def _of_a_backup() -> Iterator[None]:
    """Hint at another backup: what mends a database is not what mends this."""
    try:
        yield
    except StoreUnusable as error:
        if not error.hint or "jobd restore" in error.hint or "ANOTHER_FILE" in error.hint:
            error.hint = _ANOTHER
        raise


def _give_to_the_same_owner(path: str, incoming: str) -> None:
    """Let a daemon of another user open what root has restored."""
    if os.geteuid() == 0 and os.path.exists(path):  # noqa: PTH110 - names are text here
        there = os.stat(path)  # noqa: PTH116 - as above
        os.chown(incoming, there.st_uid, there.st_gid)


@contextlib.contextmanager
def _out_of_use(path: str) -> Iterator[None]:
    """Keep the present file closed to others, its log moved into it; one that is too damaged for that stays as it is.

    Raises:
        StoreBusy: another program has it open.
        StoreUnusable: it is another application's.
    """
    with contextlib.ExitStack() as stack:
        if _readable(path):
            try:
                stack.enter_context(alone.closed(path))
            except sqlite3.Error as error:
                if primary(error) not in _DAMAGED:
                    raise meaning(error, path, waited=0.0) from error
                alone.refuse_open(path)
        else:
            alone.refuse_open(path)
        yield


def _readable(path: str) -> bool:
    """Say whether the present file is a database that can be opened; a missing, empty or damaged one is not.

    Raises:
        StoreUnusable: it is another application's.
    """
    try:
        if not file.size(path):
            return False
        found = file.header(path, timeout_ms=BUSY_TIMEOUT_MS)
    except StoreUnusable:
        return False
    except sqlite3.Error as error:
        if primary(error) in _DAMAGED:
            return False
        raise meaning(error, path, waited=BUSY_TIMEOUT_MS / 1000) from error
    if not found.ours and (found.application or found.tables):
        raise file.foreign(path, found, timeout_ms=BUSY_TIMEOUT_MS)
    return True


def _swap(path: str, incoming: str, now: int, at: At) -> str | None:
    """Keep the old file under another name and put the new one in its place; return that name, None without a file."""
    kept = copies.free_name(path, "replaced", now=now)
    there = [suffix for suffix in (*_LOGS, "") if os.path.lexists(path + suffix)]
    folder = os.path.dirname(path)  # noqa: PTH120 - as above
    try:
        # The logs first: a kept file without them would be another one.
        for suffix in there:
            copies.second_name(path + suffix, kept + suffix)
        copies.sync(folder)
        at("restore.kept")
        for suffix in (*_LOGS, "-shm"):
            _remove(path + suffix)
        # On the disk before the new file takes the name, whatever order a power cut would leave otherwise.
        copies.sync(folder)
        at("restore.cleared")
        os.replace(incoming, path)  # noqa: PTH105 - as above
    except BaseException:
        for suffix in reversed(there):
            with contextlib.suppress(FileNotFoundError):
                if os.path.lexists(path + suffix):
                    os.unlink(kept + suffix)  # noqa: PTH108 - as above
                else:
                    os.rename(kept + suffix, path + suffix)  # noqa: PTH104 - as above
        raise
    copies.sync(folder)
    at("restore.replaced")
    return kept if "" in there else None


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - names are text here
