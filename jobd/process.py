"""Who is alive: a process named so that a reused pid fools nobody."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from typing import Final, NamedTuple, Self

# Two readings of one process's start may differ by rounding; a pid is not reused within this time.
START_TOLERANCE_MS = 1_000
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_LINUX: Final = os.path.exists("/proc/self/stat")  # noqa: PTH110 - see _of_linux


class Process(NamedTuple):
    """A process on a machine since one boot.

    ``started_at`` is in milliseconds, on Linux since the boot: there Unix time moves with every step of the clock, and
    a live process would look like another one. It is only ever compared with itself.
    """

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
    return Process(host(), boot(), pid, _started_at(pid) or 0)


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
    try:
        found = _started_at(process.pid)
    except PermissionError:
        # It is there, and hidden from us: rather alive for too long than taken for dead.
        return True
    return found is not None and abs(found - process.started_at) <= START_TOLERANCE_MS


def holders(path: str) -> list[int]:
    """Return who has the file at ``path`` open, by Linux's table of processes; none where there is no such table."""
    import glob  # noqa: PLC0415 - only who is refused pays for it

    found = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):  # noqa: PTH207 - thousands of links: no object for each
        with contextlib.suppress(OSError):
            if os.readlink(link) == path:  # noqa: PTH115 - as above
                found.add(int(link.split("/")[2]))
    return sorted(found)


def _started_at(pid: int) -> int | None:
    """Return when a process started, in ms; None where it is gone or only waits for its parent to notice.

    Raises:
        PermissionError: it is there, and nothing more can be known of it.
    """
    if _LINUX:
        return _of_linux(pid)
    import psutil  # noqa: PLC0415 - 20 ms and 4 MB that a reading verb must not pay

    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else int(found.create_time() * 1000)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(pid) from error


def _of_linux(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib costs a reading verb 3 ms
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        # Not there, or mounted so that others' processes are hidden: a signal of no effect tells.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        raise PermissionError(pid) from None
    # The name in brackets may hold anything; what follows the last one are numbers. Field 3 is the state, field 22 the
    # start in ticks since the boot (proc(5)).
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19]) * 1000 // os.sysconf("SC_CLK_TCK")
