"""Who is alive: a process named so that a reused pid fools nobody."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from typing import Final, NamedTuple, Self

# Two readings of one process's start differ by rounding; a pid is not reused within this time.
START_TOLERANCE_MS = 2_000
# Text: who only looks does not pay for pathlib.
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Process(NamedTuple):
    """A process on a machine since one boot; ``started_at`` is in Unix milliseconds."""

    host: str
    boot: str
    pid: int
    started_at: int

    def dumps(self) -> str:
        """Return the JSON text that a row keeps."""
        return json.dumps(self._asdict())

    @classmethod
    def loads(cls, text: str) -> Self | None:
        """Read what ``dumps`` wrote; None for anything else (the file may come from elsewhere)."""
        try:
            found = json.loads(text)
            return cls(str(found["host"]), str(found["boot"]), int(found["pid"]), int(found["started_at"]))
        except (ValueError, TypeError, KeyError):
            return None


def myself() -> Process:
    """Return the name of this process."""
    return _named(os.getpid())


@functools.lru_cache(maxsize=1)
def _named(pid: int) -> Process:
    import psutil  # noqa: PLC0415 - 20 ms that a reading verb must not pay

    return Process(host(), boot(), pid, int(psutil.Process(pid).create_time() * 1000))


@functools.cache
def host() -> str:
    """Return this machine's name."""
    return platform.node() or "localhost"


@functools.cache
def boot() -> str:
    """Return what tells this boot of the machine from every other."""
    with contextlib.suppress(FileNotFoundError), open(_BOOT_ID, encoding="ascii") as linux:  # noqa: PTH123 - see above
        return linux.read().strip()
    import psutil  # noqa: PLC0415 - only where the kernel has no boot id

    return str(int(psutil.boot_time()))


def alive(process: Process) -> bool | None:
    """Say whether ``process`` still runs; None where that cannot be known from here (another host)."""
    if process.host != host():
        return None
    if process.boot != boot():
        return False
    import psutil  # noqa: PLC0415 - see above

    try:
        found = psutil.Process(process.pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(int(found.create_time() * 1000) - process.started_at) <= START_TOLERANCE_MS
    except psutil.NoSuchProcess:
        return False
