"""The guard of one worker process: a program of its own, which starts the worker and sees to its end.

Whatever becomes of the worker or of the daemon, nothing outlives them that the worker started, however it was started:
a forked child, a double fork, a session of its own. That is not the worker's to see to, which may hang with the
interpreter's lock in its hands, nor the daemon's, which may be killed; so it is that of a process that does nothing
else. It imports almost nothing: it is there for every worker, and what it has imported, its worker has as well.

Called with three numbers: the descriptor of the lifeline to the daemon, that of the worker's talk, the daemon's pid.
Over the lifeline comes TERM; at its end, or the daemon's, everything is killed at once. Over it goes the worker's exit
code, negative for the signal that killed it, once nothing is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable  # noqa: TC003 - typing takes longer to load than all of this

TERM = b"T"
MERCY = 0.5  # seconds between being asked to end and being killed
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_LINUX = sys.platform == "linux"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - no pathlib


def main() -> None:
    """Start the worker and guard it; in the worker's process, be the worker."""
    lifeline, talk, daemon = called()
    adopt_orphans()
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.close(lifeline)
        # Should the guard be killed itself.
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            _be_worker(talk)
        return
    os.close(talk)
    code = _Guard(lifeline, worker, daemon).watch()
    with contextlib.suppress(OSError):  # the daemon is gone
        os.write(lifeline, b"%d" % code)
    os._exit(0)


def called() -> tuple[int, int, int]:
    """Return the three numbers that this program was called with; what it starts inherits neither descriptor."""
    lifeline, talk, daemon = map(int, sys.argv[1:])
    for descriptor in (lifeline, talk):
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return lifeline, talk, daemon


def adopt_orphans() -> None:
    """Become the parent of whoever is orphaned below: nobody gets lost."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def woken_by_children() -> int:
    """Return what can be read from when a child has ended; ignore the signals that are the daemon's."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake, wakes = os.pipe()
    for descriptor in (wake, wakes):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake


def _be_worker(talk: int) -> None:
    # Behind everything: it is the daemon that says where modules are looked for.
    sys.path.append(_ROOT)
    from jobd.engine import child  # noqa: PLC0415 - not in the guard

    child.work(talk)


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Guard:
    def __init__(self, lifeline: int, worker: int, daemon: int) -> None:
        self._lifeline = lifeline
        self._worker = worker
        self._code: int | None = None
        self._until: float | None = None
        self._wake = woken_by_children()
        self._poll = select.poll()
        self._poll.register(lifeline, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        # The lifeline's other end may live on in a copy of the daemon that C code forked; this shows its own end.
        self._daemon = descriptor_of(daemon)
        if self._daemon is not None:
            self._poll.register(self._daemon, select.POLLIN)
        self._orphaned = os.getppid() != daemon

    def watch(self) -> int:
        """Return the worker's exit code, once nothing is left of what it started."""
        while not self._orphaned and not self._ended():
            left = None if self._until is None else self._until - time.monotonic()
            if left is not None and left <= 0:
                break
            self._look({descriptor for descriptor, _ in self._poll.poll(None if left is None else left * 1000 + 1)})
        return self._clear()

    def _look(self, ready: set[int]) -> None:
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._lifeline in ready:
            try:
                word = os.read(self._lifeline, 1)
            except OSError:
                word = b""
            if not word:
                self._orphaned = True
            elif self._until is None and not self._ended():
                os.kill(self._worker, signal.SIGTERM)
                self._until = time.monotonic() + MERCY
        self._orphaned = self._orphaned or self._daemon in ready

    def _ended(self) -> bool:
        """Take note of whoever has ended; say whether the worker has."""
        try:
            while self._code is None:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self._note(pid, status)
        except ChildProcessError:
            pass
        return self._code is not None

    def _note(self, pid: int, status: int) -> None:
        if pid == self._worker:
            self._code = os.waitstatus_to_exitcode(status)

    def _clear(self) -> int:
        clear(self._note)
        return -signal.SIGKILL if self._code is None else self._code


def clear(note: Callable[[int, int], None]) -> None:
    """Kill until nobody is left: who was about to fork when it was looked for has left a child.

    ``note`` is given the pid and the status of each that has ended.
    """
    me = os.getpid()
    while True:
        left = _left(me) if _has_children() else []
        for pid in left:
            with contextlib.suppress(OSError):  # gone, or another user's
                os.kill(pid, signal.SIGKILL)
        try:
            note(*os.waitpid(-1, 0))
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                note(*found)
        except ChildProcessError:
            if not left:
                return
            time.sleep(0.001)  # not this process's to wait for


def nobody_left() -> bool:
    """Say whether nothing is left of what this process has started."""
    return not _has_children() if _LINUX else not _left(os.getpid())


def _has_children() -> bool:
    if not _LINUX:
        return True  # an orphan is nobody's child here
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descriptor_of(pid: int) -> int | None:
    """Return what shows the end of a process; None where there is no such thing, or the process."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _left(guard: int) -> list[int]:
    """Return who is to be killed next: the children of this process, to whom theirs are added once they are orphans.

    Where there is no subreaper all descendants are found at once, with the orphans of the worker's session.
    """
    if not _LINUX:
        import psutil  # noqa: PLC0415 - where there is no /proc

        orphans = [process.pid for process in psutil.process_iter(["ppid"]) if process.info["ppid"] == 1]
        descendants = [process.pid for process in psutil.Process(guard).children(recursive=True)]
        return descendants + [pid for pid in orphans if _session(pid) == guard]
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - no pathlib
                    text = file.read()
            except OSError:
                continue
            # The name in brackets may hold anything; behind the last one are the state and the parent (proc(5)).
            if int(text[text.rindex(b")") + 2 :].split(None, 2)[1]) == guard:
                found.append(int(name))
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


if __name__ == "__main__":
    main()
