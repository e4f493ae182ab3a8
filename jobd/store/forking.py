"""A connection lives as long as its thread, and never in a forked child of it."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from jobd.store import here

if TYPE_CHECKING:
    import sqlite3


class Lease:
    """Closes a connection with its thread, whose locals hold the only reference to this.

    A connection and its cache of statements refer to each other: left to itself it is closed when the collector comes
    by, and its descriptors and its place in the log are held until then.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        with _leasing:
            _leases[id(self)] = self

    def __del__(self) -> None:
        self.connection.close()


# Held across a fork: a lease made between the look at all of them and the fork would be closed by the child.
_leasing: Final = threading.RLock()
_leases: Final[weakref.WeakValueDictionary[int, Lease]] = weakref.WeakValueDictionary()
_forking: Final = threading.local()


def _before_fork() -> None:
    _leasing.acquire()
    _forking.keep = []
    leases = [lease for lease in (ref() for ref in _leases.valuerefs()) if lease is not None]
    if leases:
        import ctypes  # noqa: PLC0415 - 10 ms that only a fork pays; in its child an import might wait for ever

        _forking.keep = [functools.partial(ctypes.pythonapi.Py_IncRef, ctypes.py_object(lease)) for lease in leases]


def _after_fork_in_parent() -> None:
    _forking.keep = []
    _leasing.release()


def _after_fork() -> None:
    _leasing.release()
    # A child never closes its parent's connections, not even when it ends: another thread may have been inside one
    # at the fork, and its lock, copied as taken, would never be free again.
    for keep_for_ever in _forking.keep:
        keep_for_ever()
    for store in here.stores():
        store.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
