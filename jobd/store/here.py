"""The stores that this process has, and what the calling thread has open in them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobd.store.sqlite import SqliteStore

# No WeakSet: to walk over one costs more than anything else at the end of an attempt, where this is asked.
_stores: Final[dict[weakref.ref[SqliteStore], None]] = {}


def add(store: SqliteStore) -> None:
    """Know a store for as long as it lives."""
    _stores[weakref.ref(store, lambda gone: _stores.pop(gone, None))] = None


def stores() -> list[SqliteStore]:
    """Return those that are there."""
    # Not by a tuple: to make one may collect a store, whose end would change what is walked over.
    return [store for known in list(_stores) if (store := known()) is not None]


def holds(path: str, *, but: object = None) -> bool:
    """Say whether the calling thread has a transaction open in the file at ``path``, by another store than ``but``."""
    return any(store.path == path and store is not but and store.holds_transaction() for store in stores())


def drop_transactions(path: str) -> bool:
    """Roll back what the calling thread left open in the file at ``path``; say whether there was anything."""
    dropped = [store.drop_transaction() for store in stores() if store.path == path]
    return any(dropped)
