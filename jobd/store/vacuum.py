"""Giving free pages back to the file system, a few at a time. SQLite's own: the file was made for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from jobd.store.batches import Pace, always, in_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.base import Connection
    from jobd.store.sqlite import SqliteStore

_INCREMENTAL: Final = 2
# What is deleted from day to day is written again from day to day: so much stays free for that.
_SPARE: Final = 0.1
_SPARE_PAGES: Final = 1_000
_AT_ONCE: Final = 2_000


def free_pages(store: SqliteStore) -> int:
    """Return how many pages could be given back: those beyond a tenth of what is in use."""

    def look(connection: Connection) -> int:
        (mode,), (pages,), (free,) = (
            connection.execute(f"pragma {name}").fetchone() for name in ("auto_vacuum", "page_count", "freelist_count")
        )
        spare = max(_SPARE_PAGES, int((pages - free) * _SPARE))
        return max(0, free - spare) if mode == _INCREMENTAL else 0

    return store.read(look)


def give_back(store: SqliteStore, *, go_on: Callable[[], bool] = always) -> int:
    """Give them back in short transactions, and return how many it were. Where ``go_on`` says no, the rest stays."""
    left, pace = free_pages(store), Pace(_AT_ONCE)

    def step() -> int:
        nonlocal left
        pages = min(left, pace.size)
        if pages:
            began = time.perf_counter()
            store.give_back(pages)
            pace.held(time.perf_counter() - began)
        left -= pages
        return pages

    return in_batches(step, go_on=go_on)
