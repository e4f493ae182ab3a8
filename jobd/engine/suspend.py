"""Whether this machine was suspended or this process stopped: time that nothing here may be judged by."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.store import lost_time
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.sqlite import SqliteStore

log = logging.getLogger("jobd.daemon")

SUSPENDED_MS: Final = 30_000  # that wall and awake time drift apart between two looks


class Suspends:
    """Looked for between two calls of ``make_up``. ``stood`` says for how many seconds the process was stopped so far;
    ``woke_at`` (Unix ms) is when the last suspend was noticed.
    """

    def __init__(self, store: SqliteStore, stood: Callable[[], float]) -> None:
        self.woke_at: int | None = None
        self._store = store
        self._stood = stood
        self._seen = clock.now(), clock.awake() - stood()

    def make_up(self, go_on: Callable[[], bool]) -> bool:
        """Move the deadlines by the time for which nothing could run; say whether the clock has jumped.

        Before anything is judged by them. A clock that was put forward looks the same, and does no harm.

        Raises:
            Transient: the store cannot be written now.
        """
        wall, awake = clock.now(), clock.awake() - self._stood()
        slept = wall - self._seen[0] - int((awake - self._seen[1]) * 1000)
        if slept >= SUSPENDED_MS:
            lost_time.move(self._store, wall - slept, now=wall, go_on=go_on)
            log.info("deadlines moved by %s, for which nothing could run here", span(slept))
        jumped = abs(slept) >= SUSPENDED_MS
        if jumped:
            self.woke_at = wall
        self._seen = wall, awake
        return jumped
