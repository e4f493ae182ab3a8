"""What an error of SQLite's driver means: try again, never, the file cannot be used, or a defect of ours."""

from __future__ import annotations

import sqlite3
import sys
from typing import Final

from jobd.errors import StoreUnusable
from jobd.store.failures import Permanent, Transient

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
_UNDECODABLE: Final = "Could not decode to UTF-8"
_PERMANENT: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})


def meaning(error: BaseException, path: str, *, waited: float) -> BaseException:
    """Return what ``error`` means for the file at ``path``; one that is not the driver's is returned as it is.

    ``waited`` is how long a busy database was waited for before it said so, in seconds.
    """
    driver = error.__cause__ or error.__context__ if isinstance(error, _peewees()) else error
    if isinstance(driver, UnicodeEncodeError | OverflowError) and not isinstance(driver, sqlite3.Error):
        return Permanent(str(driver))
    if not isinstance(driver, sqlite3.Error):
        return error
    code = primary(driver)
    if _UNDECODABLE in str(driver):
        # The driver gives it no code of its own; nothing but UTF-8 was ever stored.
        code = sqlite3.SQLITE_CORRUPT
    if getattr(driver, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The log's index could not be made: a reader's first write, where nobody has the file open.
        code = sqlite3.SQLITE_FULL
    if code in _TRANSIENT:
        reason = _TRANSIENT[code]
        hint = "try again, or look for a program that holds the file open" if reason == "locked" else "free some space"
        spent = waited if code == sqlite3.SQLITE_BUSY else 0.0
        return Transient(f"{path}: {reason}", reason=reason, waited=spent, hint=hint)
    if code in _UNUSABLE:
        return StoreUnusable(f"{path}: {_UNUSABLE[code]} ({driver})", hint="jobd doctor; jobd restore BACKUP")
    if code in _PERMANENT:
        return Permanent(str(driver))
    return error


def _peewees() -> type[Exception] | tuple[()]:
    """Return the class of what peewee raises in place of the driver's; a program without peewee loads none for it."""
    # None of it while another thread is importing it.
    found: type[Exception] | tuple[()] = getattr(sys.modules.get("peewee"), "PeeweeException", ())
    return found


def primary(error: sqlite3.Error) -> int:
    """Return the first byte of an error's code: what it is, without how it came about."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
