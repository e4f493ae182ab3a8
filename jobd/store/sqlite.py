"""SQLite: how the file is checked, opened, created and locked, and what its errors mean."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import sqlite3
import stat
import threading
from time import sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import peewee

from jobd.errors import NotFound, StoreUnusable
from jobd.store.base import BUSY_TIMEOUT_MS, Connection, Permanent, Store, Transient
from jobd.store.forking import Lease, forget_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

APPLICATION_ID: Final = 0x6A6F6264  # "jobd"
SCHEMA_VERSION: Final = 1
SMALLEST_DATABASE: Final = 512
OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING
_SYNCHRONOUS: Final = {"normal": "normal", "full": "full"}
_ASK_AGAIN: Final = (0.0005, 0.002)  # seconds between two tries at the write lock
_TRANSIENT: Final = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_IOERR: "I/O error",
}
_UNUSABLE: Final = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
}


class Identity(NamedTuple):
    """Which file a path leads to; it changes when the file is moved away or replaced."""

    device: int
    inode: int


class _Database(peewee.SqliteDatabase):
    """The stdlib driver by name: peewee takes another SQLite library where one is installed, and two SQLite libraries
    on one file in one process drop each other's locks.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        super().__init__(path)
        self.synchronous_level = synchronous
        self._thread = threading.local()

    def _connect(self) -> sqlite3.Connection:
        # No thread check: a thread's connection is closed where its locals are collected, which may be elsewhere.
        connection = sqlite3.connect(
            _uri(self.database, "mode=rw"),
            uri=True,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        for pragma in (
            f"synchronous={self.synchronous_level}",
            "foreign_keys=on",
            # Only the daemon checkpoints: see maintenance/checkpoint.py.
            "wal_autocheckpoint=0",
            "trusted_schema=off",
        ):
            connection.execute(f"pragma {pragma}")
        self._thread.lease = Lease(connection)
        return connection


class SqliteStore(Store):
    """A jobd file. The constructor opens nothing."""

    database: _Database

    def __init__(self, path: str | os.PathLike[str], *, durability: str = "normal") -> None:
        super().__init__()
        # One name for one file: a symlink or a relative path must lead to the same lock.
        self.path = os.path.realpath(path)
        self.database = _Database(self.path, _SYNCHRONOUS[durability])
        # Set by a daemon that has to leave at once: no write waits for another process any more.
        self.hurried = False
        self._opened = False
        self._opening = threading.RLock()
        self._checking = False
        forget_after_fork(self)

    # -- opening --------------------------------------------------------------------------------------------------

    def open(self, *, create: bool = True) -> None:
        """Check the file before anything writes to it; create it where there is none.

        Raises:
            NotFound: there is no file and ``create`` is false.
            StoreUnusable: the file cannot be used as it is; not one byte of it was changed.
        """
        with self._opening:
            # The check itself asks for connections: it is under way in this very thread, the others wait above.
            if self._opened or self._checking:
                return
            self._checking = True
            try:
                self._open(create=create)
            except OSError as error:
                raise self._unusable(error.strerror or str(error)) from error
            except (sqlite3.Error, peewee.PeeweeException) as error:
                self._raise(error)
            finally:
                self._checking = False
            self._opened = True

    def _open(self, *, create: bool) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise self._unusable(f"SQLite {sqlite3.sqlite_version} is too old, jobd needs 3.35")
        size = self._size()
        if size is None:
            if not create:
                raise NotFound(
                    f"there is no jobd file at {self.path}", hint="jobd run TARGET ITEM… creates it; --db names another"
                )
            size = 0
        if size == 0:
            if _nonempty(f"{self.path}-wal"):
                # SQLite would delete the log, and with it perhaps the only copy of the jobs.
                raise self._unusable("the file is empty but its -wal is not", hint="jobd restore BACKUP")
            # Created here and not by SQLite, so that nobody else can read it, not even for an instant. Where another
            # is faster both go on as with any empty file.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._create()
            return
        self._check()
        self._use_wal()

    def _size(self) -> int | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - one call for type and size
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise self._unusable("it is not a regular file")
        if 0 < found.st_size < SMALLEST_DATABASE:
            # Of one byte SQLite thinks that it is an empty database.
            raise self._unusable("the file is not a database")
        return found.st_size

    def _check(self) -> None:
        application, version, tables = self._header()
        if application != APPLICATION_ID and (application or tables):
            raise self._unusable("it is the database of another application", hint="jobd --db ANOTHER_FILE …")
        if version > SCHEMA_VERSION:
            raise self._unusable(
                f"it has schema {version}, this jobd knows {SCHEMA_VERSION}", hint="upgrade jobd-embedded"
            )
        if version < SCHEMA_VERSION:
            self._create()

    def _header(self) -> tuple[int, int, int]:
        """Return application, schema version and number of tables, without a byte written beside or into the file."""
        # With an empty log all of it is in the file: "immutable" then keeps SQLite from putting a log of its own
        # beside a file that is not ours. "ro" neither replays nor checkpoints a log that is there.
        mode = "mode=ro" if _nonempty(f"{self.path}-wal") else "mode=ro&immutable=1"
        probe = sqlite3.connect(_uri(self.path, mode), uri=True, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            for _ in range(2):
                pages, page, application, version, tables = probe.execute(
                    "select p.page_count, s.page_size, a.application_id, u.user_version,"
                    " (select count(*) from sqlite_master) from pragma_page_count as p, pragma_page_size as s,"
                    " pragma_application_id as a, pragma_user_version as u"
                ).fetchone()
                # Looked at in this order and twice: between two looks another process may have moved its log.
                if _nonempty(f"{self.path}-wal") or (self._size() or 0) >= pages * page:
                    return application, version, tables
        finally:
            probe.close()
        raise self._unusable(f"the file is truncated: {pages * page:,} bytes by its header", hint="jobd restore BACKUP")

    def _create(self) -> None:
        connection = self._driver()
        # Only on a file without tables does this take; later it would cost a VACUUM.
        connection.execute("pragma auto_vacuum=incremental")
        self._use_wal()
        self.write(self._apply_schema)

    def _apply_schema(self, connection: Connection) -> None:
        # Another process may have been faster.
        if connection.execute("pragma user_version").fetchone()[0] == SCHEMA_VERSION:
            return
        for statement in _statements(schema()):
            connection.execute(statement)
        connection.execute(f"pragma application_id={APPLICATION_ID}")
        connection.execute(f"pragma user_version={SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        answer = self._driver().execute("pragma journal_mode=wal").fetchone()[0]
        if answer != "wal":
            raise self._unusable(f"the file system does not allow WAL (journal mode is {answer})")

    def _unusable(self, why: str, *, hint: str | None = None) -> StoreUnusable:
        return StoreUnusable(f"{self.path}: {why}", hint=hint)

    # -- connections ----------------------------------------------------------------------------------------------

    def connection(self) -> sqlite3.Connection:
        """Return the calling thread's connection, opened if need be."""
        if not self._opened:
            self.open()
        return self._driver()

    def _driver(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call] # peewee's
        return connection

    def close(self) -> None:
        """Close the calling thread's connection."""
        if not self.database.is_closed():
            self.database.close()

    def drop_transaction(self) -> bool:
        """Roll back what the calling thread left open, opening no connection for it; say whether there was any."""
        if self.database.is_closed() or not self._driver().in_transaction:
            return False
        self._driver().execute("rollback")
        return True

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child."""
        self.database = _Database(self.path, self.database.synchronous_level)
        self.mutex = threading.RLock()
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
            self._begin(connection)
        finally:
            connection.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")

    def _begin(self, connection: sqlite3.Connection) -> None:
        waited = 0.0
        while True:
            try:
                connection.execute("begin immediate")
            except sqlite3.OperationalError as error:
                patient = waited * 1000 < BUSY_TIMEOUT_MS and not self.hurried
                if _primary(error) != sqlite3.SQLITE_BUSY or not patient:
                    raise
            else:
                return
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
        try:
            found = os.stat(self.path + suffix)  # noqa: PTH116 - never open() the file: closing it would drop SQLite's locks
        except FileNotFoundError:
            return None
        return Identity(found.st_dev, found.st_ino)

    def wal_bytes(self) -> int:
        """Return the size of the log."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - see identity()
        except FileNotFoundError:
            return 0

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
        inner = f"select {columns} {source}"
        names = _names(columns)
        statement = f"select json_group_array(json_array({names})) from ({inner})"
        found: list[list[Any]] = json.loads(connection.execute(statement, params).fetchone()[0])
        return found

    def judge(self, error: BaseException) -> BaseException:
        """Return what ``error`` means."""
        driver = error.__cause__ or error.__context__ if isinstance(error, peewee.PeeweeException) else error
        if isinstance(driver, UnicodeEncodeError | OverflowError) and not isinstance(driver, sqlite3.Error):
            return Permanent(str(driver))
        if not isinstance(driver, sqlite3.Error):
            return error
        primary = _primary(driver)
        if primary in _TRANSIENT:
            reason = _TRANSIENT[primary]
            waited = BUSY_TIMEOUT_MS / 1000 if primary == sqlite3.SQLITE_BUSY else 0.0
            hint = (
                "try again, or look for a program that holds the file open" if reason == "locked" else "free some space"
            )
            return Transient(f"{self.path}: {reason}", reason=reason, waited=waited, hint=hint)
        if primary in _UNUSABLE:
            return StoreUnusable(
                f"{self.path}: {_UNUSABLE[primary]} ({driver})", hint="jobd doctor; jobd restore BACKUP"
            )
        if primary in {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}:
            return Permanent(str(driver))
        return error


@functools.cache
def _names(columns: str) -> str:
    """Return the names that a select list gives its columns."""
    return ", ".join(column.split(" as ")[-1].split(".")[-1].strip() for column in columns.split(","))


_packed: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def schema() -> str:
    """Return ``schema.sql``: beside the package in a checkout, inside it in a wheel."""
    from importlib.resources import files  # noqa: PLC0415 - 15 ms that only who creates a file pays
    from pathlib import Path  # noqa: PLC0415 - as above

    inside = files("jobd") / "schema.sql"
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


def _uri(path: str, query: str) -> str:
    """Return an absolute path as SQLite's URI: written out here, as pathlib and urllib cost a cold start 10 ms."""
    for sign, code in (("%", "%25"), ("?", "%3f"), ("#", "%23")):
        path = path.replace(sign, code)
    return f"file://{path}?{query}"


def _statements(script: str) -> Iterator[str]:
    """Split a script at its statements: the driver's own ``executescript`` commits before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _nonempty(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - never open() it
    except FileNotFoundError:
        return False


def _primary(error: sqlite3.Error) -> int:
    """Return the first byte of an error's code: what it is, without how it came about."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
