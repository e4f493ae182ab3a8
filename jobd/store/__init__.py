"""The only place that speaks to a database."""

from __future__ import annotations

from jobd.errors import UsageError
from jobd.store.base import Store
from jobd.store.sqlite import SqliteStore

__all__ = ["SqliteStore", "Store", "open_store"]

_SQLITE = "sqlite:///"


def open_store(url: str, *, durability: str = "normal") -> SqliteStore:
    """Return the store that ``url`` names: a path or ``sqlite:///path``. Nothing is opened yet.

    Raises:
        UsageError: the URL names a database that jobd does not know.
    """
    if url.startswith(_SQLITE):
        return SqliteStore(url.removeprefix(_SQLITE), durability=durability)
    if "://" in url:
        raise UsageError(
            f"unknown kind of database: {url.split('://', maxsplit=1)[0]}", hint="a path, or sqlite:///path"
        )
    return SqliteStore(url, durability=durability)
