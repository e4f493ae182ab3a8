"""Running alone: an item that was interrupted twice gets the pool for itself, so that a crash names its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.store.claim import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.interrupted import Interrupted
    from jobd.store.ready import ClaimedJob

ALONE_FOR: Final = 60.0  # seconds after which others start again
_WINDOW: Final = 60.0  # seconds for which the pool is emptied for it, and then left open, in turn


class Solitude:
    """Who may start beside whom. ``anybody`` is true while interrupted items may be queued. Times are awake time.

    ``lane`` is that of what goes into free slots only.
    """

    lane = Lane.CAREFUL

    def __init__(self) -> None:
        self.anybody = False
        self._item: int | None = None
        self._since = 0.0
        self._waiting_since: float | None = None

    def careful(self, found: Interrupted) -> Sequence[ClaimedJob]:
        """Return the jobs of which interrupted items may run beside others."""
        return found.careful

    def alone(self, found: Interrupted) -> Sequence[ClaimedJob]:
        """Return the jobs of which interrupted items must run alone."""
        return found.alone

    def begin(self, item_id: int, awake: float) -> None:
        """An item starts alone."""
        self._item, self._since = item_id, awake
        self._waiting_since = None

    def ended(self, item_id: int) -> None:
        """An item has ended, perhaps the one that ran alone."""
        if self._item == item_id:
            self._item = None

    def occupied(self, awake: float) -> float:
        """Return for how many more seconds nobody else may start."""
        return 0.0 if self._item is None else max(0.0, self._since + ALONE_FOR - awake)

    def emptying(self, awake: float) -> float:
        """Return for how many more seconds nobody may start because an item waits for the pool to itself.

        Where the pool does not empty in time (an attempt that takes hours), others go on and it is tried again.
        """
        if self._waiting_since is None:
            self._waiting_since = awake
        return max(0.0, _WINDOW - (awake - self._waiting_since) % (2 * _WINDOW))


class Apart(Solitude):
    """For items that have a process each: one that crashes takes nobody along, so none has to run alone."""

    lane = Lane.INTERRUPTED

    def careful(self, found: Interrupted) -> Sequence[ClaimedJob]:
        """Return all of them."""
        both = {job.id: job for job in (*found.careful, *found.alone)}
        return list(both.values())

    def alone(self, found: Interrupted) -> Sequence[ClaimedJob]:  # noqa: ARG002 - whatever was found
        """Return none."""
        return ()
