"""SQLite: how its file is opened, how the write lock is waited for, and its dialect."""

from __future__ import annotations

import functools
import os
import random
import sqlite3
import threading
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from jobd.codec import encoder, loads
from jobd.errors import NotFound
from jobd.store import file, here
from jobd.store.base import Store
from jobd.store.connections import Connections
from jobd.store.driver import BUSY_TIMEOUT_MS
from jobd.store.driver_errors import meaning, primary
from jobd.store.schema import SCHEMA_VERSION, apply_schema
from jobd.store.sharing import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.store.file import Identity
    from jobd.store.peewees import Database

_OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING
_SYNCHRONOUS: Final = {"normal": "normal", "full": "full"}
_REMEMBERED: Final = 256  # texts of what is gathered
_ASK_AGAIN: Final = (0.0005, 0.002)  # seconds between two tries at the write lock


class SqliteStore(Store):
    """A jobd file. The constructor opens nothing."""

    def __init__(self, path: str | os.PathLike[str], *, durability: str = "normal") -> None:
        super().__init__()
        # One name for one file: a symlink or a relative path must lead to the same lock.
        self.path = os.path.realpath(path)
        self.durability = durability
        self._connections = Connections(self.path, _SYNCHRONOUS[durability])
        self._database: Database | None = None
        # Set by a daemon that has to leave at once: no write waits for another process any more.
        self.hurried = False
        # Brings a file of an older schema to the present one when it is opened; None: such a file is refused.
        self.upgrade: Callable[[], object] | None = None
        self._opened = False
        self._opening = threading.RLock()
        self._checking = False
        # Also for a forked child, which has to forget its parent's connections.
        here.add(self)

    # -- opening --------------------------------------------------------------------------------------------------

    def open(self, *, create: bool = True, upgrade: bool = True) -> None:
        """Check the file before anything writes to it; create it where there is none, bring up an older one.

        Raises:
            NotFound: there is no file and ``create`` is false.
            StoreUnusable: the file cannot be used as it is, or is an older one that is not to be brought up; not one
                byte of it was changed.
        """
        with self._opening:
            # The check itself asks for connections: it is under way in this very thread, the others wait above.
            if self._opened or self._checking:
                return
            self._checking = True
            try:
                self._open(create=create, upgrade=upgrade)
            except OSError as error:
                raise file.unusable(self.path, error.strerror or str(error)) from error
            except sqlite3.Error as error:
                self._raise(error)
            finally:
                self._checking = False
            self._opened = True

    def _open(self, *, create: bool, upgrade: bool) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise file.unusable(self.path, f"SQLite {sqlite3.sqlite_version} is too old, jobd needs 3.35")
        size = file.size(self.path)
        if size is None and not create:
            raise NotFound(
                f"there is no jobd file at {self.path}", hint="jobd run TARGET ITEM… creates it; --db names another"
            )
        if not size:
            file.make_empty(self.path)
            self._create()
            return
        version = file.schema_version(self.path, timeout_ms=BUSY_TIMEOUT_MS)
        if not version:
            self._create()
            return
        if version < SCHEMA_VERSION:
            if self.upgrade is None or not upgrade:
                raise file.unusable(
                    self.path, f"it has schema {version}, this jobd {SCHEMA_VERSION}", hint="jobd migrate"
                )
            self.upgrade()
        self._use_wal()

    def _create(self) -> None:
        # Only on a file without tables does this take; later it would cost a VACUUM.
        self._connections.mine().execute("pragma auto_vacuum=incremental")
        self._use_wal()
        self.write(apply_schema)

    def _use_wal(self) -> None:
        # While another process brings the file there SQLite answers busy at once, whatever the timeout.
        answer = self._ask(self._connections.mine(), "pragma journal_mode=wal").fetchone()[0]
        if answer != "wal":
            raise file.unusable(self.path, f"the file system does not allow WAL (journal mode is {answer})")

    # -- connections ----------------------------------------------------------------------------------------------

    def connection(self) -> sqlite3.Connection:
        """Return the calling thread's connection, opened if need be."""
        if not self._opened:
            self.open()
        return self._connections.mine()

    @property
    def database(self) -> Database:
        """The peewee database, for queries of a program's own; it has no connection but the calling thread's."""
        if self._database is None:
            from jobd.store.peewees import Database  # noqa: PLC0415 - only who asks for it pays for it

            with self._opening:
                # One for all threads: a program binds its models to it.
                if self._database is None:
                    self._database = Database(self._connections)
        return self._database

    def close(self) -> None:
        """Close the calling thread's connection."""
        (self._connections if self._database is None else self._database).close()

    def drop_transaction(self) -> bool:
        """Roll back what the calling thread left open, opening no connection for it; say whether there was any."""
        if not self.holds_transaction():
            return False
        self._connections.mine().execute("rollback")
        if self._database is not None:
            self._database.forget_transactions()
        return True

    def holds_transaction(self) -> bool:
        """Say whether the calling thread has one open, opening no connection for it."""
        connection = self._connections.opened()
        return connection is not None and connection.in_transaction

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child."""
        self._connections.after_fork()
        if self._database is not None:
            self._database.after_fork()
        self.mutex = threading.RLock()
        # What other threads of the parent had asked for is theirs.
        self.waiting = Waiting()
        self._opening = threading.RLock()
        self._checking = False

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that holds the write lock: a deferred one that reads first cannot wait for it.

        While another process holds it, this asks again every few ms, as long as busy_timeout says. SQLite's own wait
        sleeps longer the longer it has waited, up to 100 ms: among busy writers whoever came first loses to whoever
        came last.
        """
        connection.execute("pragma busy_timeout=0")
        try:
            self._ask(connection, "begin immediate")
        finally:
            connection.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")

    def _ask(self, connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        waited = 0.0
        while True:
            try:
                return connection.execute(statement)
            except sqlite3.OperationalError as error:
                patient = waited * 1000 < BUSY_TIMEOUT_MS and not self.hurried
                if primary(error) != sqlite3.SQLITE_BUSY or not patient:
                    raise
            pause = random.uniform(*_ASK_AGAIN)  # noqa: S311 - jitter, not a secret
            sleep(pause)
            waited += pause

    def in_transaction(self, connection: sqlite3.Connection) -> bool:
        """Say whether a transaction is open."""
        return connection.in_transaction

    def version(self) -> int:
        """Return a number that changes when another connection has committed (4 µs)."""
        try:
            return int(self.connection().execute("pragma data_version").fetchone()[0])
        except sqlite3.Error as error:
            self._raise(error)

    def identity(self, suffix: str = "") -> Identity | None:
        """Return which file the path leads to now, or which its log ("-wal") is; None where there is none."""
        return file.identity(self.path + suffix)

    def wal_bytes(self) -> int:
        """Return the size of the log."""
        return file.bytes_of(f"{self.path}-wal")

    def checkpoint(self, timeout_ms: int) -> tuple[int, int]:
        """Move the log into the database and truncate it; return (1 if somebody was in the way, pages left).

        Raises:
            Transient: a full disk or an I/O error; nothing is lost, the log is as it was.
        """
        with self.mutex:
            try:
                connection = self.connection()
                connection.execute(f"pragma busy_timeout={timeout_ms}")
                try:
                    busy, _, pages = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
                finally:
                    connection.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
            except Exception as error:  # noqa: BLE001 - judged and raised again
                self._raise(error)
        return int(busy), int(pages)

    def give_back(self, pages: int) -> None:
        """Give so many free pages back to the file system, in one transaction; the file is shorter at a checkpoint.

        Raises:
            Transient: the database is busy, or the disk full; nothing has changed.
        """
        with self.mutex:
            try:
                # As a script: each step frees one page, and the driver takes no more than one of a plain statement.
                self.connection().executescript(f"pragma incremental_vacuum({int(pages)})")
            except Exception as error:  # noqa: BLE001 - judged and raised again
                self._raise(error)

    # -- the dialect ----------------------------------------------------------------------------------------------

    def rows(self, *columns: str) -> str:
        """Return a subselect over the JSON array that ``pack`` made."""
        if len(columns) == 1:
            return f"(select value as {columns[0]} from json_each(?))"
        picked = ", ".join(f"json_extract(value, '$[{index}]') as {name}" for index, name in enumerate(columns))
        return f"(select {picked} from json_each(?))"

    def pack(self, rows: Sequence[Sequence[Any]]) -> str:
        """Return rows as a JSON array of arrays, of one column as an array of values."""
        if rows and len(rows[0]) == 1:
            return _packed([row[0] for row in rows])
        return _packed(rows)

    def pairs(self, key: str, value: str) -> str:
        """Return a subselect over the JSON object that ``pack_pairs`` made."""
        return f"(select key as {key}, value as {value} from json_each(?))"

    def pack_pairs(self, pairs: Mapping[Any, str]) -> str:
        """Return pairs as a JSON object."""
        return _packed(pairs)

    def new_id(self, connection: sqlite3.Connection, statement: str, params: Sequence[Any]) -> int:
        """Insert one row and return its id: RETURNING would cost a tenth of a whole submission."""
        identity = connection.execute(statement, params).lastrowid
        assert identity is not None  # noqa: S101 - None only before the first insert
        return identity

    def gather(
        self, connection: sqlite3.Connection, columns: str, source: str, params: Sequence[Any]
    ) -> list[list[Any]]:
        """Return all rows as one JSON value."""
        statement = _gathered(columns, source)
        found: list[list[Any]] = loads(connection.execute(statement, params).fetchone()[0])
        return found

    def judge(self, error: BaseException) -> BaseException:
        """Return what ``error`` means."""
        return meaning(error, self.path, waited=BUSY_TIMEOUT_MS / 1000)


@functools.lru_cache(maxsize=_REMEMBERED)
def _gathered(columns: str, source: str) -> str:
    names = ", ".join(column.split(" as ")[-1].split(".")[-1].strip() for column in columns.split(","))
    return f"select json_group_array(json_array({names})) from (select {columns} {source})"


_packed: Final = encoder()
