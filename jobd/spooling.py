"""Files beside the database that hold all of what commands printed, for as long as somebody waits to show it.

A row keeps the last 64 KiB. Who shows outputs says so by a file of its own in ``DB.output/watchers``, which it holds
locked: the kernel frees that however it ends, so nothing is spooled for nobody, and what is left of one that was killed
is known to be nobody's. Its name begins with the job that it watches, or with ``any`` while that is not known yet.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import secrets
from typing import Final

ANY: Final = "any"
STREAMS: Final = ("out", "err")
_TRIES: Final = 100  # to be quicker than those who sweep


class Spools:
    """The files beside the database at ``path``."""

    def __init__(self, path: str) -> None:
        self._folder = f"{path}.output"
        self._watchers = os.path.join(self._folder, "watchers")  # noqa: PTH118 - names are text here

    # -- who runs commands ----------------------------------------------------------------------------------------

    def beginning(self, job_id: int, item_id: int, attempt: int) -> str | None:
        """Return the beginning of the names of an attempt's two files; None where nobody waits for them."""
        if not self._waiting(job_id):
            return None
        if attempt > 1:
            self.remove(job_id, item_id, attempt - 1)
        return self._name(job_id, item_id, attempt)

    def sweep(self) -> None:
        """Remove what nobody waits for any more."""
        watched = self._watched()
        if ANY in watched:
            return
        for name in _names(self._folder):
            if name.partition("-")[0] not in watched:
                _unlink(f"{self._folder}/{name}")
        for folder in () if watched else (self._watchers, self._folder):
            # Somebody may just have come.
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - as above

    # -- who shows them -------------------------------------------------------------------------------------------

    def watch(self) -> tuple[int, str]:
        """Say that somebody waits for outputs; return the descriptor that holds that and its file's name.

        Raises:
            OSError: there is no place for them.
        """
        for _ in range(_TRIES):
            name = f"{self._watchers}/{ANY}-{secrets.token_hex(8)}"
            try:
                for folder in (self._folder, self._watchers):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, 0o700)  # noqa: PTH102 - as above
                descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileNotFoundError:
                continue  # a folder was swept in between
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Who looked before it was locked took it for nobody's.
            if os.fstat(descriptor).st_nlink:
                return descriptor, name
            os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._watchers)

    def narrow(self, name: str, job_id: int) -> str:
        """Let a watcher wait for one job only; return its file's new name."""
        narrowed = name.replace(f"/{ANY}-", f"/{job_id}-")
        os.rename(name, narrowed)  # noqa: PTH104 - as above
        return narrowed

    def open(self, job_id: int, item_id: int, attempt: int) -> list[int]:
        """Return descriptors of an attempt's two files; nothing where they are not there."""
        beginning = self._name(job_id, item_id, attempt)
        found: list[int] = []
        try:
            found += [os.open(f"{beginning}.{stream}", os.O_RDONLY) for stream in STREAMS]
        except OSError:
            return []
        return found

    def shown(self, job_id: int, item_id: int, attempt: int) -> None:
        """Remove an attempt's files, unless others wait for them too: then they go with the last of those."""
        if self._waiting(job_id) < 2:
            self.remove(job_id, item_id, attempt)

    def remove(self, job_id: int, item_id: int, attempt: int) -> None:
        """Remove an attempt's files."""
        for stream in STREAMS:
            _unlink(f"{self._name(job_id, item_id, attempt)}.{stream}")

    # -- their parts ----------------------------------------------------------------------------------------------

    def _name(self, job_id: int, item_id: int, attempt: int) -> str:
        return f"{self._folder}/{job_id}-{item_id}-{attempt}"

    def _waiting(self, job_id: int) -> int:
        """Return how many wait for the outputs of a job."""
        watched = self._watched()
        return watched[ANY] + watched[str(job_id)]

    def _watched(self) -> collections.Counter[str]:
        """Return whose outputs live watchers wait for, and how many; the files of those that were killed go."""
        while True:
            # Who left in between may have come back under another name.
            with contextlib.suppress(FileNotFoundError):
                return collections.Counter(
                    name.partition("-")[0] for name in _names(self._watchers) if self._lives(f"{self._watchers}/{name}")
                )

    def _lives(self, path: str) -> bool:
        """Say whether a watcher holds its file, and remove one that nobody holds.

        Raises:
            FileNotFoundError: it is gone by now.
        """
        if _held(path):
            return True
        _unlink(path)
        return False


def _names(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError:
        return []


def _held(path: str) -> bool:
    """Say whether somebody holds a file locked; one that cannot be opened for now may be.

    Raises:
        FileNotFoundError: it is not there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - names are text here
