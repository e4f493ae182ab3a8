"""One worker process, as its daemon sees it: spawned, warm, asked for one attempt after another, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobd import clock
from jobd.engine.guard import MERCY, TERM
from jobd.engine.talk import HELLO, Talk
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobd.loading import Place

_GUARD: Final = os.path.join(os.path.dirname(__file__), "guard.py")  # noqa: PTH118, PTH120 - an argument
_IMPORT: Final = 300.0  # seconds that the import of a program may take
# Seconds after which a process that was killed is left to the kernel: it waits for a device.
_LONGEST: Final = MERCY + 5.0


class Died(Exception):
    """The worker has ended in the middle of what it was asked."""


class Worker:
    """A process that runs handlers. One thread talks to it; ``ask_to_end`` and ``gone`` may be called from any.

    ``program`` is what it imports: the arguments, the path, and the places of the tasks. ``words`` are those with which
    this very Python becomes it, or its guard.
    """

    def __init__(self, program: Mapping[str, Any], words: Sequence[str] = ()) -> None:
        self.pid = 0
        self.items = 0
        # Asked to end, by this side: it is used no more, whatever it still answers.
        self.doomed = False
        self.code: int | None = None
        self.greeted = False
        self._closing = threading.Lock()
        self._over = threading.Event()
        ours, theirs = socket.socketpair()
        self._lifeline, far = socket.socketpair()
        with theirs, far:
            try:
                self._guard = _spawn(words or (*_flags(), _GUARD), far.fileno(), theirs.fileno())
            except BaseException:
                ours.close()
                self._lifeline.close()
                raise
        self._talk = Talk(ours.detach())
        _workers.add(self)
        self._poll = select.poll()
        self._poll.register(self._talk.descriptor, select.POLLIN)
        self._poll.register(self._lifeline, select.POLLIN)
        # Nobody waits for it here: the import goes on beside.
        self.tell(program)

    # -- what it is asked -----------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Wait until it has imported the program.

        Raises:
            UsageError: the program cannot be imported, or is not after five minutes.
            Died: it ended over that.
        """
        if self.greeted:
            return
        kind, *found = self._next(_IMPORT)
        if kind != HELLO:
            name, why, hint = found
            raise UsageError(f"task {name} cannot be imported by a process: {why}", hint=hint)
        self.pid = found[0]
        self.greeted = True

    def ask(self, job: Mapping[str, Any]) -> None:
        """Hand it an attempt.

        Raises:
            OSError: it is gone.
        """
        self.items += 1
        self._talk.send(job)

    def hear(self) -> list[Any]:
        """Return what it says next.

        Raises:
            Died: nothing any more.
        """
        found: list[Any] = self._next()
        return found

    def hear_data(self) -> bytes:
        """Return the bytes behind a message.

        Raises:
            Died: it ended in the middle of them.
        """
        try:
            return self._talk.receive_data()
        except EOFError:
            raise Died from None

    def tell(self, message: Any) -> None:
        """Tell it something; where it is gone, that shows at the next word."""
        with contextlib.suppress(OSError):
            self._talk.send(message)

    def _next(self, patience: float | None = None) -> Any:
        while not self._talk.buffered:
            ready = {descriptor for descriptor, _ in self._poll.poll(patience and patience * 1000)}
            if not ready:
                raise UsageError(f"a worker process has not imported the program within {patience:g} s")
            # What it said before its end first.
            if self._talk.descriptor in ready:
                break
            if self._lifeline.fileno() in ready:
                raise Died
        try:
            return self._talk.receive()
        except (EOFError, OSError, ValueError):
            raise Died from None

    @property
    def idle(self) -> bool:
        """Say whether it lives and waits: it has said nothing that nobody asked for."""
        return not self.doomed and not self._poll.poll(0)

    @property
    def over(self) -> bool:
        """Say whether its end has been seen to."""
        return self._over.is_set()

    # -- its end --------------------------------------------------------------------------------------------------

    def ask_to_end(self) -> None:
        """Have it end, and half a second later kill it with all that it started. Returns at once."""
        self.doomed = True
        with self._closing, contextlib.suppress(OSError):
            self._lifeline.send(TERM)

    def gone(self, patience: float = _LONGEST) -> bool:
        """Wait until nothing of it is left, whoever ends it; False where the time ran out."""
        if self._over.wait(MERCY * 2):
            return True
        # Who talks to it may have to wait for the store.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(patience)
        return self._guard.returncode is not None

    def end(self) -> None:
        """End it, wait for that, and note its exit ``code``; None where it cannot be killed."""
        if self._over.is_set():
            return
        self.ask_to_end()
        said = b""
        self._lifeline.settimeout(_LONGEST)
        with contextlib.suppress(TimeoutError):
            # Reset: it left without having read that it should.
            with contextlib.suppress(ConnectionResetError):
                while found := self._lifeline.recv(16):
                    said += found
            # Without a word its guard itself was killed, and the worker with it.
            self.code = int(said or -signal.SIGKILL)
        if self.code is not None:
            self._guard.wait()
        with self._closing:
            self._lifeline.close()
        self._talk.close()
        _workers.discard(self)
        if self.code is not None and not said:
            _clear_session(self._guard.pid)
        self._over.set()

    def drop(self) -> None:
        """Close the ends of this process without a word, in a forked child."""
        with contextlib.suppress(OSError):
            self._lifeline.close()
            self._talk.close()


def program_of(places: Mapping[str, Place]) -> dict[str, Any]:
    """Return what a worker imports: what this process could, and the tasks at these places."""
    return {"argv": sys.argv, "path": list(map(str, sys.path)), "tasks": dict(places)}


def _spawn(words: Sequence[str], lifeline: int, talk: int) -> subprocess.Popen[bytes]:
    # Its own directory must not shadow the standard library's modules.
    command = [sys.executable, "-P", *words, str(lifeline), str(talk), str(os.getpid())]
    return subprocess.Popen(  # noqa: S603 - this very Python, and a file of ours
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(lifeline, talk),
        # Ctrl-C belongs to the daemon.
        start_new_session=True,
    )


def _clear_session(session: int) -> None:
    """Kill what is left in the session of a guard that was killed: nobody else knows of it any more."""
    import psutil  # noqa: PLC0415 - only where somebody kills guards

    until = clock.awake() + _LONGEST
    while clock.awake() < until:
        running = [one for one in psutil.process_iter(["status"]) if one.info["status"] != psutil.STATUS_ZOMBIE]
        left = [one for one in running if _session(one.pid) == session]
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _flags() -> list[str]:
    """Return the interpreter's options, as far as a handler could tell the difference."""
    own = [("-I", sys.flags.isolated), ("-E", sys.flags.ignore_environment), ("-O", sys.flags.optimize)]
    flags = [flag for flag, count in own for _ in range(count)]
    return [*flags, *(f"-W{option}" for option in sys.warnoptions)]


# In a child that a handler forks here the lifelines would stay open, and the daemon's end go unnoticed.
_workers: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()


def _drop_in_child() -> None:
    for worker in tuple(_workers):
        worker.drop()


os.register_at_fork(after_in_child=_drop_in_child)
