"""The connections to one SQLite file: one to a thread, opened as each of them has to be."""

from __future__ import annotations

import sqlite3
import threading
from typing import Final

from jobd.store import file
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.forking import Lease

_TRIES: Final = 3


class Connections:
    """Opens a thread's connection where it is first asked for; it is closed with its thread at the latest.

    The stdlib driver by name, and no library in between: what takes another SQLite library where one is installed
    would drop the locks of this one on the same file.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self._synchronous = synchronous
        self._thread = threading.local()

    def mine(self) -> sqlite3.Connection:
        """Return the calling thread's connection, opened if need be."""
        return self.opened() or self._lease()

    def opened(self) -> sqlite3.Connection | None:
        """Return the calling thread's connection; None while it has none."""
        lease: Lease | None = getattr(self._thread, "lease", None)
        return None if lease is None else lease.connection

    def close(self) -> bool:
        """Close the calling thread's connection; say whether it had one."""
        connection = self.opened()
        if connection is None:
            return False
        connection.close()
        del self._thread.lease
        return True

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child."""
        self._thread = threading.local()

    def _lease(self) -> sqlite3.Connection:
        connection = self._open()
        self._thread.lease = Lease(connection)
        return connection

    def _open(self) -> sqlite3.Connection:
        for _ in range(_TRIES):
            before = file.identity(self.path)
            connection = self._open_once()
            try:
                # From its first look on, a connection keeps a restore from replacing the file. Replaced between the
                # opening and that look, it would be the old file with the new one's log: a write destroys both.
                connection.execute("pragma schema_version").fetchone()
            except sqlite3.Error:
                connection.close()
                raise
            if file.identity(self.path) == before:
                return connection
            connection.close()
        raise file.unusable(self.path, "it is being replaced")

    def _open_once(self) -> sqlite3.Connection:
        # No thread check: a thread's connection is closed where its locals are collected, which may be elsewhere.
        connection = sqlite3.connect(
            file.uri(self.path, "mode=rw"),
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        for pragma in (
            f"synchronous={self._synchronous}",
            "foreign_keys=on",
            # Only the daemon checkpoints: see maintenance/checkpoint.py.
            "wal_autocheckpoint=0",
            "trusted_schema=off",
        ):
            connection.execute(f"pragma {pragma}")
        return connection
