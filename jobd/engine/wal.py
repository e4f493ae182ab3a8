"""When the log is checkpointed: past a size, once a minute, and later again where a reader pins it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.maintenance.checkpoint import checkpoint
from jobd.store.failures import Transient

if TYPE_CHECKING:
    from jobd.engine.sparingly import Sparingly
    from jobd.store.sqlite import SqliteStore

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LOOK_EVERY: Final = 0.02
_SMALL: Final = 64 * 1024


class Wal:
    """Keeps the log of one database small. ``limit`` is in bytes."""

    def __init__(self, store: SqliteStore, limit: int, trouble: Sparingly) -> None:
        self._store = store
        self._trouble = trouble
        self._limit = limit
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE
        self.checkpointed_at: int | None = None  # when the log was last emptied, in Unix ms

    @property
    def pinned(self) -> bool:
        """Say whether a reader kept the last checkpoint from emptying the log."""
        return self._pause > _FIRST_PAUSE

    def after_commit(self) -> None:
        """Checkpoint if the log has passed its limit."""
        awake = clock.awake()
        if awake < self._not_before:
            return
        # At 50,000 items/s the log grows by a megabyte in this time.
        self._not_before = awake + _LOOK_EVERY
        if self._store.wal_bytes() > self._limit:
            self.beat()

    def beat(self) -> None:
        """Checkpoint now, unless there is nothing worth it; a busy one is tried again later, and later still."""
        if self._store.wal_bytes() < _SMALL:
            return
        try:
            busy = checkpoint(self._store).counts["busy"]
        except Transient as error:
            self._trouble.warning("the log could not be checkpointed: %s", error)
            busy = 1
        if busy:
            self._not_before = clock.awake() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        else:
            self._pause = _FIRST_PAUSE
            self.checkpointed_at = clock.now()
