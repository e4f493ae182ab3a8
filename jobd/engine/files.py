"""The files that a daemon has open: whether they are still the ones of their names.

What is written to a file that was removed or replaced is read by nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.errors import StoreUnusable
from jobd.store import daemons

if TYPE_CHECKING:
    from jobd.engine.lock import Lock
    from jobd.store.file import Identity
    from jobd.store.sqlite import SqliteStore


class Files:
    """The database, its log and the lock, as they are when this is made."""

    def __init__(self, store: SqliteStore, lock: Lock) -> None:
        self._store = store
        self._lock = lock
        self._database = store.identity()
        self._log: Identity | None = None

    def open_log(self) -> None:
        """Have the calling thread open the log, and watch it from then on.

        The thread keeps it open until its end: whoever else closes, SQLite itself does not remove it.

        Raises:
            JobdError: the database cannot be read.
        """
        daemons.requests(self._store)
        self._log = self._store.identity("-wal")

    def lost(self) -> StoreUnusable | None:
        """Say which of them is not the one of its name any more; None while all are."""
        if self._store.identity() != self._database:
            lost = self._store.path
        elif self._log is not None and self._store.identity("-wal") != self._log:
            lost = f"{self._store.path}-wal"
        elif not self._lock.intact():
            lost = self._lock.path
        else:
            return None
        return StoreUnusable(f"{lost} was removed or replaced under the daemon", hint="jobd restore BACKUP")
