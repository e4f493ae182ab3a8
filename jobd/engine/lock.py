"""One daemon to a file: a kernel lock on ``<db>.lock``, held for the daemon's life.

``flock`` and not a POSIX lock: those are dropped by any close of the file in the process. ``flock`` in turn outlives
its process in a forked child, so a child drops the descriptor at once. The kernel frees the lock however the process
ends; no pid and no time is ever believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import weakref
from typing import Final, NamedTuple

from jobd.errors import DaemonRunning, StoreUnusable
from jobd.process import holders as _holders

_RETRY: Final = 0.02
# A probe holds the lock for an instant; a daemon that starts just then must not take it for another daemon.
PATIENCE: Final = 0.5
# To who wanted to run items.
IN_USE: Final = "jobd watch to look, jobd submit to hand it work"


class Owner(NamedTuple):
    """What the holder wrote beside its lock, for people."""

    pid: int
    host: str
    since: int


class Lock:
    """The claim of one daemon on one database file; ``path`` is the real path of the database."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}.lock"
        self._database = path
        self._descriptor: int | None = None
        _locks.add(self)

    @property
    def held(self) -> bool:
        """Say whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, owner: Owner, *, patience: float = PATIENCE) -> None:
        """Take the lock and write ``owner`` beside it.

        Raises:
            DaemonRunning: another daemon holds it.
            StoreUnusable: the file system has no locks, or the folder cannot be written.
        """
        tries = max(1, int(patience / _RETRY))
        for attempt in range(tries):
            descriptor = _open(self.path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if attempt + 1 < tries:
                    time.sleep(_RETRY)
                continue
            except OSError as error:
                os.close(descriptor)
                raise StoreUnusable(f"{self.path}: the file system has no locks ({error.strerror})") from error
            if _same_file(descriptor, self.path):
                self._descriptor = descriptor
                # For people only: on a full disk the lock holds as well without it.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(owner._asdict()).encode(), 0)
                return
            # Somebody removed the file between our open and our lock: it guards nothing any more.
            os.close(descriptor)
        raise _taken(self._database)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two daemons each lock a file of that name."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self.drop()

    def drop(self) -> None:
        """Close the descriptor without touching the file, as a forked child must."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def intact(self) -> bool:
        """Say whether the lock still guards the file of that name."""
        return self._descriptor is not None and _same_file(self._descriptor, self.path)


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _drop_in_child() -> None:
    for lock in tuple(_locks):
        lock.drop()


os.register_at_fork(after_in_child=_drop_in_child)


def probe(path: str) -> bool:
    """Say whether a daemon holds the lock of the database at ``path`` (a real path)."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def owner(path: str) -> Owner | None:
    """Return what the holder of the lock wrote; None if nothing readable is there."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = json.loads(os.read(descriptor, 4096))
        finally:
            os.close(descriptor)
        return Owner(int(found["pid"]), str(found["host"]), int(found["since"]))
    return None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"{path}: {error.strerror}") from error


def _same_file(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)  # noqa: PTH116 - compared with fstat
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _taken(path: str) -> DaemonRunning:
    found = owner(path)
    holders = _holders(f"{path}.lock")
    holding = ", ".join(map(str, holders))
    who = f"pid {found.pid} on {found.host}" if found else f"pid {holding}" if holding else "an unknown process"
    if found and holders and found.pid not in holders:
        # Forked past the interpreter, by C code: no hook has dropped its copy of the lock.
        return DaemonRunning(
            f"the lock of {path} is held by pid {holding}, left behind by its last daemon ({who})",
            hint=f"ps -p {holding} shows what it is; the lock is free when it ends",
        )
    return DaemonRunning(f"another daemon owns {path} ({who})", hint=IN_USE)
