"""The stores that this process has, and what the calling thread has open in them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobd.store.sqlite import SqliteStore

_stores: Final[weakref.WeakSet[SqliteStore]] = weakref.WeakSet()


def add(store: SqliteStore) -> None:
    """Know a store for as long as it lives."""
    _stores.add(store)


def stores() -> tuple[SqliteStore, ...]:
    """Return those that are there."""
    return tuple(_stores)


def holds(path: str, *, but: object = None) -> bool:
    """Say whether the calling thread has a transaction open in the file at ``path``, by another store than ``but``."""
    return any(store.path == path and store is not but and store.holds_transaction() for store in stores())


def drop_transactions(path: str) -> bool:
    """Roll back what the calling thread left open in the file at ``path``; say whether there was anything."""
    dropped = [store.drop_transaction() for store in stores() if store.path == path]
    return any(dropped)
