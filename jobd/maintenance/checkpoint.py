"""checkpoint: move the log into the database and truncate it. Only the daemon does, and only so.

Automatic and PASSIVE checkpoints are off on every connection: two of them at once corrupt files of SQLite before 3.51.3
(the WAL-reset race). One TRUNCATE at a time does not, and keeps the log small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.maintenance.report import Report

if TYPE_CHECKING:
    from jobd.store.sqlite import SqliteStore

TIMEOUT_MS: Final = 200


def checkpoint(store: SqliteStore) -> Report:
    """Checkpoint once; ``counts`` holds ``busy`` (1: a reader pins the log), ``pages`` and ``bytes`` left."""
    busy, pages = store.checkpoint(TIMEOUT_MS)
    return Report("checkpoint", False, [], {"busy": busy, "pages": pages, "bytes": store.wal_bytes()})
