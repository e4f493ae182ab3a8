"""What a jobd file is marked with, and its schema: ``schema.sql``, applied to a new file."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.base import Connection

APPLICATION_ID: Final = 0x6A6F6264  # "jobd"
SCHEMA_VERSION: Final = 1


def schema() -> str:
    """Return ``schema.sql``: beside the package in a checkout, inside it in a wheel."""
    # Not importlib.resources: 15 ms, and 1 MB that the daemon that created the file would keep.
    from pathlib import Path  # noqa: PLC0415 - only who creates a file pays for it
    from pkgutil import get_data  # noqa: PLC0415 - as above

    try:
        inside = get_data("jobd", "schema.sql")
    except FileNotFoundError:
        inside = None
    return (inside or (Path(__file__).parents[2] / "schema.sql").read_bytes()).decode()


def apply_schema(connection: Connection) -> None:
    """Give an empty database its tables and its marks, in the caller's transaction; once, whoever else does."""
    # Another process may have been faster.
    if connection.execute("pragma user_version").fetchone()[0] == SCHEMA_VERSION:
        return
    for statement in statements(schema()):
        connection.execute(statement)
    connection.execute(f"pragma application_id={APPLICATION_ID}")
    connection.execute(f"pragma user_version={SCHEMA_VERSION}")


def statements(script: str) -> Iterator[str]:
    """Split a script at its statements: the driver's own ``executescript`` commits before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
