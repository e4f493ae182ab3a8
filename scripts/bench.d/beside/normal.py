"""WAL and synchronous=NORMAL for what speaks to SQLite through SQLAlchemy and sets neither itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

if TYPE_CHECKING:
    import sqlite3


def everywhere() -> None:
    """Set both on every connection of this process."""
    event.listen(Engine, "connect", _set)


def _set(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
