"""Keys that may come twice in an input, told apart in constant memory: the first keeps its own, the next have `#2`…."""

from __future__ import annotations

import sqlite3
from typing import Final, Self

from jobd.errors import StoreBusy
from jobd.store.driver_errors import primary

# What is done where there is none: an input is kept in temporary files until all of it was read.
ROOM: Final = "free some space, or set TMPDIR to a folder that has some"
# Of nobody else's file: SQLite keeps a database without a name in memory, and on disk where it grows.
_TABLE: Final = "create table names (key text primary key, next integer not null default 2) without rowid"
_TAKE: Final = "insert or ignore into names (key) values (?)"
_NEXT: Final = "select next from names where key = ?"
_COUNT: Final = "update names set next = ? where key = ?"


class Names:
    """The keys that were given so far. To be closed."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        # One transaction that never ends: what is lost with the process is of no use to another.
        for statement in ("pragma journal_mode=off", "pragma cache_size=-512", _TABLE, "begin"):
            self._connection.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def give(self, key: str) -> str:
        """Return ``key`` the first time, then ``key#2`` and so on, passing over what was given already.

        Raises:
            StoreBusy: the disk for temporary files is full.
        """
        try:
            return self._given(key)
        except sqlite3.OperationalError as error:
            if primary(error) != sqlite3.SQLITE_FULL:
                raise
            # Which folder SQLite took it does not say.
            raise StoreBusy("the folder for temporary files (TMPDIR): disk full", hint=ROOM) from error

    def _given(self, key: str) -> str:
        if self._take(key):
            return key
        number = self._connection.execute(_NEXT, (key,)).fetchone()[0]
        while not self._take(f"{key}#{number}"):
            number += 1
        self._connection.execute(_COUNT, (number + 1, key))
        return f"{key}#{number}"

    def _take(self, key: str) -> bool:
        return self._connection.execute(_TAKE, (key,)).rowcount == 1
