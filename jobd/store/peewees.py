"""The peewee database of a store, for a program's own queries: it has no connection but the store's.

Only what asks for it imports it: peewee with all that it loads would be a tenth of an idle daemon's memory, and a fifth
of the time that a command takes to start.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import peewee

if TYPE_CHECKING:
    import sqlite3

    from jobd.store.connections import Connections


class Database(peewee.SqliteDatabase):
    """Writes and reads through the calling thread's connection, and so in the transaction that is open there."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections.path)
        self._connections = connections

    def _connect(self) -> sqlite3.Connection:
        connection = self._connections.mine()
        # The functions that the program has registered, which a thread's connection does not know by itself.
        self._add_conn_hooks(connection)  # type: ignore[attr-defined] # peewee's
        return connection

    def close(self) -> bool:
        """Close the calling thread's connection, also where the store alone has used it; say whether it had one."""
        super().close()
        return self._connections.close()

    def forget_transactions(self) -> None:
        """Forget what was open in the calling thread: it has been rolled back, and nobody is left to end it."""
        self._state.transactions.clear()  # type: ignore[attr-defined] # peewee's
        self._clear_commit_callbacks()  # type: ignore[attr-defined] # as above

    def after_fork(self) -> None:
        """Forget the parent's connection, in a forked child; what is bound to this database stays so."""
        # Another thread of the parent may have held it.
        self._lock = threading.Lock()
        self._state.reset()  # type: ignore[attr-defined] # peewee's
