"""How the dispatcher sleeps and is woken: one wait for outcomes, for callers in this process and for other processes.

A byte to a datagram socket beside the file wakes it from elsewhere; threads of this process ring the same way, but
only when it sleeps. A socket that cannot be made (a long path) costs latency, not correctness: the dispatcher looks at
the database's version once in a while anyhow.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from typing import Final

_LONGEST_PATH: Final = 100  # sun_path holds 104 bytes on macOS, 108 on Linux
_DRAIN: Final = 4096


class Wake:
    """The daemon's end. ``close`` removes the socket."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}.wake"
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._socket = _listen(self._path)
        self._inode = os.lstat(self._path).st_ino if self._socket is not None else None
        self._poll = select.poll()
        for end in (self._reader, self._socket):
            if end is not None:
                self._poll.register(end, select.POLLIN)
        self._sleeping = False
        self._rung = False

    @property
    def reachable(self) -> bool:
        """Say whether other processes can wake this one."""
        return self._socket is not None

    def ring(self) -> None:
        """Say that the store has changed; from any thread, or from a signal handler."""
        self._rung = True
        self.nudge()

    def nudge(self) -> None:
        """Wake the sleeper, if it sleeps: the caller has left something where it looks before it sleeps."""
        if self._sleeping:
            self._sleeping = False
            with contextlib.suppress(OSError):  # full: it is being woken already
                self._writer.send(b"\0")

    def prepare(self) -> None:
        """Announce the sleep. What is looked at after this call and before ``sleep`` cannot be missed."""
        self._sleeping = True

    def sleep(self, seconds: float) -> bool:
        """Wait for a ring or a nudge, at most so long; say whether anybody has rung since the last time."""
        ready = [] if self._rung else self._poll.poll(max(0.0, seconds) * 1000)
        self._sleeping = False
        # Only a ring that was seen is taken back: one that comes between the look and a blind reset would be lost.
        rung = self._rung
        if rung:
            self._rung = False
        for descriptor, _ in ready:
            if descriptor == self._reader.fileno():
                # One look takes all there is: it is no row of datagrams.
                self._reader.recv(_DRAIN)
                continue
            _drain(self._socket)
            rung = True
        return rung

    def close(self) -> None:
        """Close both ends and remove the socket."""
        for end in (self._reader, self._writer, self._socket):
            if end is not None:
                end.close()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Where the file was replaced, another daemon may listen under this name by now.
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)  # noqa: PTH108 - a str path, as everywhere here


def _drain(end: socket.socket | None) -> None:
    try:
        while end is not None and end.recv(_DRAIN):
            pass
    except OSError:  # empty; not by suppress, which costs as much again on the way to whoever is woken
        pass


def _listen(path: str) -> socket.socket | None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return None
    # The caller holds the lock: a socket of that name is a dead daemon's.
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)  # noqa: PTH108 - as above
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.setblocking(False)
        end.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101 - as above
    except OSError:
        end.close()
        return None
    return end


class Bell:
    """The other processes' end: wakes the daemon of a file, if there is one. Never raises, never blocks."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}.wake"
        # By process, and without a lock: one that another thread holds at a fork stays locked in the child for ever.
        self._sockets: dict[int, socket.socket] = {}

    def __call__(self) -> None:
        """Wake it."""
        with contextlib.suppress(OSError):
            end = self._sockets.get(os.getpid()) or self._open()
            end.sendto(b"\0", self._path)

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setblocking(False)
        end = self._sockets.setdefault(os.getpid(), made)
        if end is not made:
            made.close()
        return end

    def __del__(self) -> None:
        for end in self._sockets.values():
            end.close()
