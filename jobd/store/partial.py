"""Copies that are not whole yet: named beside their target, and told from what a killed process has left.

Who makes one holds a shared lock on its folder until it has its name; who gets the folder's exclusive lock knows that
what is there is nobody's. Where a file system has no locks on folders, or another program has this one's, nothing is
known and nothing removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from time import sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# No name that others give: downloads end in ".partial", and what is called so here is removed.
_SUFFIX: Final = ".jobd-partial"
_MADE: Final = re.compile(rf"(.*)\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}", re.DOTALL)  # as mkstemp makes them
_LONGEST: Final = 255 - len(".abcdefgh" + _SUFFIX) - len("-journal")  # bytes; what SQLite puts beside it has a name too
_DATED: Final = re.compile(r".*\.schema-\d+-\d{8}T\d{6}Z(-\d+)?", re.DOTALL)
_TRIES: Final = 100
_PAUSE: Final = 0.01  # seconds between two of them


@contextlib.contextmanager
def begun(target: str) -> Iterator[str]:
    """Give an empty file for its owner alone, beside ``target``; what killed processes left of others for it goes.

    The block renames it or removes it.

    Raises:
        OSError: the folder cannot be written.
    """
    folder, name = os.path.split(target)
    name = _stem(name)
    with _opened(folder) as descriptor:
        if _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for path in _found(folder, name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108 - names are text here
        _share(descriptor)
        made, path = tempfile.mkstemp(prefix=f"{name}.", suffix=_SUFFIX, dir=folder)
        os.close(made)
        yield path


def _stem(name: str) -> str:
    """Return a name to which there is something to add, always the same for the same name."""
    there = os.fsencode(name)
    if len(there) <= _LONGEST:
        return name
    mark = hashlib.sha256(there).hexdigest()[:8]
    return f"{there[: _LONGEST - len(mark) - 1].decode(errors='ignore')}.{mark}"


def of_migration(path: str) -> bool:
    """Say whether a copy was made by a migration: its name tells when, so no later one has it again."""
    found = _MADE.fullmatch(os.path.basename(path))  # noqa: PTH119 - names are text here
    return found is not None and _DATED.fullmatch(found[1]) is not None


def left(folder: str) -> list[str]:
    """Return the copies in ``folder`` that nobody makes any more."""
    try:
        with _opened(folder) as descriptor:
            return _found(folder) if _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) else []
    except OSError:
        return []


def _found(folder: str, name: str | None = None) -> list[str]:
    """Return the copies in ``folder``, of one target or of any."""
    found = ((entry, _MADE.fullmatch(entry)) for entry in sorted(os.listdir(folder)))  # noqa: PTH208 - as above
    return [
        os.path.join(folder, entry)  # noqa: PTH118 - as above
        for entry, of in found
        if of is not None and name in {None, of[1]}
    ]


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _share(descriptor: int) -> None:
    """Hold the folder's shared lock, where it can be had soon."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who cleans up holds it for an instant, somebody else perhaps for as long as this takes: in a cron table
            # `flock FOLDER jobd backup` waits for its own end.
            sleep(_PAUSE)
        except OSError:
            return  # there are no locks here
        else:
            return


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True
