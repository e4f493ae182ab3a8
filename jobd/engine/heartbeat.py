"""The signs of life that a daemon gives: its row, for whoever reads the file, and its pulse, for who watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd import clock
from jobd.store import daemons

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.engine.account import Account
    from jobd.engine.dispatcher import Dispatcher
    from jobd.engine.wal import Wal
    from jobd.store.sqlite import SqliteStore

PULSE: Final = 1.0  # seconds between two, at most


class Heartbeat:
    """Of one daemon; the row that it has just made is its first."""

    def __init__(
        self,
        store: SqliteStore,
        *,
        daemon_id: int,
        account: Account,
        dispatcher: Dispatcher,
        wal: Wal,
        pulse: Callable[[str], None],
    ) -> None:
        self._store = store
        self._daemon_id = daemon_id
        self._account = account
        self._dispatcher = dispatcher
        self._wal = wal
        self._pulse = pulse
        self._felt_at = float("-inf")
        self._beaten_at = clock.awake()

    def beat(self) -> None:
        """Say in its row that the daemon lives, and how it is.

        Raises:
            Transient: the store cannot be written now.
        """
        # Before the store is written: whether that can be is another question.
        self.feel()
        self._beaten_at = clock.awake()
        daemons.beat(self._store, self._daemon_id, state=self._state(), now=clock.now(), patience=0)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {**self._account.json(), "workers": self._dispatcher.workers}
        if ailment := self._dispatcher.ailment:
            state["degraded"] = ailment
        if self._dispatcher.abandoned:
            state["abandoned_threads"] = self._dispatcher.abandoned
        if self._wal.pinned:
            state["wal_pinned"] = True
        if self._wal.checkpointed_at is not None:
            state["checkpointed_at"] = self._wal.checkpointed_at
        return state

    def older_than(self, seconds: float) -> bool:
        """Say whether the last one was that long ago."""
        return clock.awake() - self._beaten_at >= seconds

    def feel(self) -> None:
        """Give a pulse while the dispatcher goes round: one that hangs has none."""
        awake = clock.awake()
        if awake - self._felt_at >= PULSE and self._dispatcher.turns:
            self._felt_at = awake
            why = self._dispatcher.ailment
            self._pulse(f"degraded: {why}" if why else "ok")
