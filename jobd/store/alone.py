"""A file for oneself: while the block runs nobody else has it open, and who opens it waits.

For what changes a file as a whole. A program that has the old schema in its memory, or the old file open, would go on
in it: such a change is refused while there is one, with its process id where the system tells it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from time import sleep
from typing import TYPE_CHECKING, Final

from jobd import process
from jobd.errors import StoreBusy
from jobd.store import file
from jobd.store.driver_errors import primary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 5.0  # seconds: who only looks is gone by then
_RETRY: Final = 0.02


@contextmanager
def exclusively(path: str, *, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection]:
    """Give a connection that is the file's only one until the block ends.

    Raises:
        StoreBusy: another program has it open, for longer than ``patience`` seconds.
        sqlite3.Error: the file cannot be read or locked.
    """
    with closing(_connect(path)) as connection:
        # Said before the first look: then the log's index is in this process's memory, and who comes later is refused.
        connection.execute("pragma locking_mode=exclusive")

        def take() -> bool:
            connection.execute("begin exclusive")
            connection.execute("commit")
            return not _others(path)

        _insist(path, take, patience)
        yield connection


@contextmanager
def closed(path: str, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Keep the file closed to all, with all that its log held moved into it and no log beside it.

    It is left in the rollback mode: who had opened it just before and goes on when another file has its name must
    write to its header first, and SQLite notices then that it was moved.

    Raises:
        StoreBusy: another program has it open, for longer than ``patience`` seconds.
        sqlite3.Error: the file is damaged, or cannot be written.
    """
    with closing(_connect(path)) as connection:

        def take() -> bool:
            connection.execute("pragma journal_mode=delete")
            connection.execute("begin exclusive")
            # Between the two somebody may have come and gone back to a log; and who waits for us to be let in would
            # go on in this file whatever is there in its place.
            if connection.execute("pragma journal_mode").fetchone()[0] == "delete" and not _others(path):
                return True
            connection.execute("rollback")
            return False

        _insist(path, take, patience)
        try:
            yield
        finally:
            connection.execute("rollback")


def refuse_open(path: str) -> None:
    """Refuse a file that another process has open, as far as the system tells.

    Raises:
        StoreBusy: one has.
    """
    holders = process.holders(path)
    if holders:
        raise _open_elsewhere(path, holders)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(file.uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=0)


def _insist(path: str, take: Callable[[], bool], patience: float) -> None:
    """Try ``take`` until it says that the file is ours alone."""
    for left in range(max(1, int(patience / _RETRY)), 0, -1):
        try:
            if take():
                return
        except sqlite3.OperationalError as error:
            if primary(error) != sqlite3.SQLITE_BUSY:
                raise
        if left > 1:
            sleep(_RETRY)
    raise _open_elsewhere(path, _others(path))


def _others(path: str) -> list[int]:
    """Return who else has the file open: with a rollback journal nobody holds a lock between two transactions."""
    return [pid for pid in process.holders(path) if pid != os.getpid()]


def _open_elsewhere(path: str, holders: list[int]) -> StoreBusy:
    who = f"pid {', '.join(map(str, holders))}" if holders else "which one cannot be told"
    return StoreBusy(f"{path} is open in another program ({who})", hint="end it, then the same again")
