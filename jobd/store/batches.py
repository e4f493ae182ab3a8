"""What touches many rows is done in batches, each its own transaction: nobody waits for longer than one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jobd.store.base import Connection, Store

T = TypeVar("T")

BATCH: Final = 2_000
# Without it the next batch takes the lock back before a writer of another process has woken to try.
GAP_SECONDS: Final = 0.003
HOLD_SECONDS: Final = 0.015  # that a batch should hold the write lock; one that was a surprise holds it for longer
FIRST: Final = 250
SMALLEST: Final = 8


def always() -> bool:
    """Go on until nothing is left. What else is asked between two batches stays False once it has been."""
    return True


def in_batches(
    batch: Callable[[], int], *, go_on: Callable[[], bool] = always, progress: Callable[[int], None] | None = None
) -> int:
    """Call ``batch`` until it finds nothing, or until ``go_on`` says no, and return how many rows it found.

    ``progress`` is told the count so far after each.
    """
    return through(iter(batch, 0), go_on=go_on, progress=progress)


def through(
    found: Iterable[int], *, go_on: Callable[[], bool] = always, progress: Callable[[int], None] | None = None
) -> int:
    """Do the same with batches that are carried out as they come, each with how many rows it found, even none."""
    count = 0
    for rows in found:
        count += rows
        if progress is not None:
            progress(count)
        breathe()
        if not go_on():
            break
    return count


def slices(found: Callable[[int], list[int]], pace: Pace) -> Iterator[list[int]]:
    """Yield ids in slices of the pace's size; ``found`` returns some thousands of them after an id, in their order.

    In this order rows lie, whatever an index has them by: each slice is on few pages.
    """
    last = 0
    while ids := found(last):
        last, start = ids[-1], 0
        while start < len(ids):
            some = ids[start : start + pace.size]
            start += len(some)
            yield some


def breathe() -> None:
    """Leave the write lock alone for a moment."""
    time.sleep(GAP_SECONDS)


class Pace:
    """How many rows the next batch takes: fewer where the last one held the write lock for long, at most ``most``.

    Two thousand rows are nothing on one disk and a second on another, or where each of them has a megabyte beside it.
    """

    def __init__(self, most: int = BATCH) -> None:
        self.most = most
        self.size = min(FIRST, most)

    def write(self, store: Store, work: Callable[[Connection, int], T]) -> T:
        """Run ``work(connection, size)`` in one transaction and return what it returns."""
        began = 0.0

        def timed(connection: Connection) -> T:
            nonlocal began
            # Not before: what it waited for its turn, it did not hold the lock.
            began = time.perf_counter()
            return work(connection, self.size)

        answer = store.write(timed)
        self.held(time.perf_counter() - began)
        return answer

    def held(self, seconds: float) -> None:
        """Take note of how long a batch of the present size held the lock."""
        if seconds > HOLD_SECONDS:
            # To a quarter at the least: on a busy machine one batch in ten is late by chance.
            self.size = max(SMALLEST, int(self.size * max(0.25, 0.8 * HOLD_SECONDS / seconds)))
        elif seconds < HOLD_SECONDS / 2:
            self.size = self.size * 2
        self.size = min(self.size, self.most)
