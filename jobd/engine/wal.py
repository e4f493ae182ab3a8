"""When the log is checkpointed: past a size, once a minute, and later again where a reader pins it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd import clock
from jobd.maintenance.checkpoint import checkpoint

if TYPE_CHECKING:
    from jobd.store.sqlite import SqliteStore

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_SMALL: Final = 64 * 1024


class Wal:
    """Keeps the log of one database small. ``limit`` is in bytes."""

    def __init__(self, store: SqliteStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE

    @property
    def pinned(self) -> bool:
        """Say whether a reader kept the last checkpoint from emptying the log."""
        return self._pause > _FIRST_PAUSE

    def after_commit(self) -> None:
        """Checkpoint if the log has passed its limit."""
        if self._store.wal_bytes() > self._limit and clock.awake() >= self._not_before:
            self.beat()

    def beat(self) -> Any:
        """Checkpoint now, unless there is nothing worth it; a busy one is tried again later, and later still."""
        if self._store.wal_bytes() < _SMALL:
            return None
        report = checkpoint(self._store)
        if report.counts["busy"]:
            self._not_before = clock.awake() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        else:
            self._pause = _FIRST_PAUSE
        return report
