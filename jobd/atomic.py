"""The caller's own transaction: what a program writes of its own and what it submits, together or not at all."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store import SqliteStore

log = logging.getLogger("jobd.store")

LONG: Final = 1.0  # seconds


@contextmanager
def atomic(store: SqliteStore) -> Iterator[None]:
    """Hold the write lock for the block; commit at its end, roll back where it raises. See :meth:`Jobd.atomic`."""
    from jobd.store import outer  # noqa: PLC0415 - peewee's memory, for who has transactions of their own

    outermost, held = False, 0.0
    try:
        with outer.atomic(store) as outermost:
            began = clock.awake()
            try:
                yield
            finally:
                held = clock.awake() - began
    finally:
        # Told outside the lock: whoever reads the log may be slow.
        if outermost and held > LONG:
            log.warning("app.atomic() held the database for %.1f s: nobody else could write to it meanwhile", held)


def refuse_inside(store: SqliteStore, what: str) -> None:
    """Refuse what would wait for others to write, which nobody can before this thread's transaction has ended.

    Raises:
        UsageError: a transaction is open in this thread.
    """
    if store.holds_transaction():
        raise UsageError(f"a transaction is open: {what} would wait for its lock", hint="commit it before")
