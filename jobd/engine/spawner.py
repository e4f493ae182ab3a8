"""The spawner of commands: a program of its own that runs one command after another, and sees to the end of each.

A command is its process tree: when it has ended, was asked to end, has taken too long, or the daemon is gone, nothing
is left of what it started, whatever session that fled to. The rules are those of a worker's guard, and so are the three
numbers that it is called with; but there is no worker, as a command needs no Python: what a command costs is its own
start. Nothing of the daemon is loaded here, so that one of them is small and quick to start.

Over the talk comes one order after another; to each goes back how it ended, and what the command printed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any, Final

from jobd.engine.guard import MERCY, adopt_orphans, called, clear, descriptor_of, nobody_left, woken_by_children
from jobd.engine.printing import Kept
from jobd.engine.talk import END, HELLO, Talk

_READ: Final = 65_536
_LONGEST: Final = 86_400.0  # seconds of one wait: poll(2) counts its milliseconds in an int, which is 25 days
# What this program ignores, or Python does, a command must not find ignored.
_DEFAULTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
_NOT_STARTED: Final = 127  # as a shell has it


def main() -> None:
    """Run what is ordered, until the daemon closes the talk, asks for the end, or ends."""
    lifeline, talk, daemon = called()
    adopt_orphans()
    _Spawner(lifeline, Talk(talk), daemon).work()
    with contextlib.suppress(OSError):  # the daemon is gone
        os.write(lifeline, b"0")
    os._exit(0)


class _Spawner:
    def __init__(self, lifeline: int, talk: Talk, daemon: int) -> None:
        self._lifeline = lifeline
        self._talk = talk
        self._wake = woken_by_children()
        self._daemon = descriptor_of(daemon)
        self._asked = False  # to end
        self._orphaned = os.getppid() != daemon
        self._poll = select.poll()
        for descriptor in (lifeline, self._wake, self._daemon):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    @property
    def _leaves(self) -> bool:
        return self._asked or self._orphaned

    def work(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            self._talk.receive()  # what a worker would import
            self._talk.send([HELLO, os.getpid()])
            while (order := self._next()) is not None:
                self._answer(order)

    def _next(self) -> Any:
        """Return the next order; None where it is time to leave."""
        self._poll.register(self._talk.descriptor, select.POLLIN)
        while not self._leaves:
            if self._talk.buffered or self._talk.descriptor in self._look(None):
                self._poll.unregister(self._talk.descriptor)
                return self._talk.receive()
        return None

    def _answer(self, order: dict[str, Any]) -> None:
        kept = Kept(order["spool"])
        try:
            command = _Command(order, kept)
        except OSError as error:
            self._talk.send(
                [END, {"code": _NOT_STARTED, "why": f"cannot be started: {_words(error)}"}, 0, 0, False], b""
            )
            return
        for descriptor in command.streams:
            self._poll.register(descriptor, select.POLLIN)
        try:
            self._see_through(command)
        finally:
            for descriptor in tuple(command.streams):
                command.close(descriptor)
        ended = {"code": command.code, "late": command.late, "asked": self._asked}
        out, err = kept.end()
        self._talk.send([END, ended, len(out), len(err), kept.cut], out + err)

    def _see_through(self, command: _Command) -> None:
        """Wait until nothing of the command is left, and end it where it is time."""
        while not command.over:
            if self._orphaned or command.is_doomed():
                command.kill()
                break
            ready = self._look(command.patience)
            for descriptor in ready & command.streams.keys():
                if not command.read(descriptor):
                    self._poll.unregister(descriptor)
                    command.close(descriptor)
            if self._wake in ready:
                command.reap()
            if self._asked or command.is_late():
                command.ask_to_end()
        for descriptor in tuple(command.streams):
            self._poll.unregister(descriptor)
            command.drain(descriptor)

    def _look(self, patience: float | None) -> set[int]:
        ready = {descriptor for descriptor, _ in self._poll.poll(None if patience is None else patience * 1000 + 1)}
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._lifeline in ready:
            try:
                word = os.read(self._lifeline, 1)
            except OSError:
                word = b""
            self._asked = self._asked or bool(word)
            self._orphaned = self._orphaned or not word
        self._orphaned = self._orphaned or self._daemon in ready
        return ready


class _Command:
    """A command that runs. ``streams`` are the pipes that it prints into, each with which of the two it is.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, order: dict[str, Any], kept: Kept) -> None:
        self._kept = kept
        self.code: int | None = None
        self.late = False
        self._empty = False  # nothing of it is left
        self._until: float | None = None  # when what is left is killed
        self._timeout = order["timeout"]
        self.streams: dict[int, int] = {}
        os.chdir(_bytes(order["cwd"]))
        ours, theirs = zip(os.pipe(), os.pipe(), strict=True)
        try:
            self.pid = _spawn(order, *theirs)
        except BaseException:
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.streams = {ours[0]: 0, ours[1]: 1}
        self._late_at = None if self._timeout is None else time.monotonic() + self._timeout

    @property
    def over(self) -> bool:
        """Say whether nothing is left of it, and everything that it printed is read."""
        return self._empty and not self.streams

    @property
    def patience(self) -> float | None:
        """For how many seconds at most nothing has to be done to it; None for as long as it takes."""
        at = self._until if self._until is not None else self._late_at
        return None if at is None else min(_LONGEST, max(0.0, at - time.monotonic()))

    def is_doomed(self) -> bool:
        """Say whether it has had its time to end."""
        return self._until is not None and time.monotonic() >= self._until

    def is_late(self) -> bool:
        """Say whether it has taken too long."""
        if self._until is None and self._late_at is not None and time.monotonic() >= self._late_at:
            self.late = True
        return self.late

    def ask_to_end(self) -> None:
        """Have it end, and half a second later kill it with all that it started."""
        if self._until is None:
            self._until = time.monotonic() + MERCY
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGTERM)

    def read(self, descriptor: int) -> bool:
        """Keep what it has printed; False at the end of that."""
        found = os.read(descriptor, _READ)
        self._kept.add(self.streams[descriptor], found)
        return bool(found)

    def drain(self, descriptor: int) -> None:
        """Keep what is left in a pipe that somebody may hold open still."""
        os.set_blocking(descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while self.read(descriptor):
                pass

    def close(self, descriptor: int) -> None:
        os.close(descriptor)
        del self.streams[descriptor]

    def reap(self) -> None:
        """Take note of who has ended. What the command itself leaves running has half a second to end, too."""
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._note(*found)
        except ChildProcessError:
            self._empty = nobody_left()
        if self.code is not None and self._until is None:
            self._until = time.monotonic() + MERCY

    def kill(self) -> None:
        clear(self._note)
        self._empty = True

    def _note(self, pid: int, status: int) -> None:
        if pid == self.pid:
            self.code = os.waitstatus_to_exitcode(status)


def _spawn(order: dict[str, Any], out: int, err: int) -> int:
    """Start the command in a process group of its own; it inherits nothing but its two pipes."""
    argv = [_bytes(word) for word in order["argv"]]
    environment = os.environb | {_bytes(name): _bytes(value) for name, value in order["environment"].items()}
    return os.posix_spawnp(
        argv[0],
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ],
        setpgroup=0,
        setsigmask=(),
        setsigdef=_DEFAULTS,
    )


def _bytes(text: str) -> bytes:
    """Return the bytes that ``text`` stands for: of those that are not UTF-8 each is one surrogate."""
    return text.encode("utf-8", "surrogateescape")


def _words(error: OSError) -> str:
    name = error.filename
    where = f": {name.decode('utf-8', 'replace')}" if isinstance(name, bytes) else ""
    return f"{error.strerror or error}{where}"


if __name__ == "__main__":
    main()
