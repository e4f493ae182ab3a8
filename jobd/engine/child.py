"""What runs in a worker process: handlers, one after another, in its main thread, where a signal can interrupt them.

Everything that they tell the store goes over the pipe to the daemon, which alone decides what is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from jobd import clock, codec, loading
from jobd.context import Context, Line, tail
from jobd.engine.answer import Answer, answer_to
from jobd.engine.beside import beside, none_left_open
from jobd.engine.talk import END, HELLO, Talk
from jobd.errors import Cancelled, JobdError, Lost, Skip, StoreBusy, StoreUnusable
from jobd.states import COMPLETED
from jobd.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

REFUSED: Final = "refused"
LOG: Final = "log"
_ASKED: Final = "the attempt was asked to end"


def work(descriptor: int) -> None:
    """Be the worker at the other end of a daemon's pipe, until that closes it or asks for the end."""
    _Child(Talk(descriptor)).work()


class _Child:
    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._pid = os.getpid()
        self._functions: dict[str, Callable[..., Any]] = {}
        self._asking = threading.Lock()
        # Asked to end: by a signal, which interrupts a handler but no message.
        self._asked = False
        self._handling = False
        self._talking = False
        signal.signal(signal.SIGTERM, self._end)
        # Ctrl-C is the daemon's. Not ignored, for what a handler starts would then ignore it, too.
        signal.signal(signal.SIGINT, lambda *_: None)
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # What a handler forks is no worker: it neither speaks for the attempt nor keeps the pipe open.
        self._talk.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        if self._asked:
            return
        self._asked = True
        if self._handling and not self._talking:
            raise Cancelled(_ASKED)
        if not self._handling:
            # Not by an exception: it may be met anywhere in the interpreter's own leaving, and be told on stderr.
            _flush()
            os._exit(0)

    def work(self) -> None:
        with contextlib.suppress(EOFError, BrokenPipeError):
            if not self._prepare(self._talk.receive()):
                return
            while not self._asked:
                job = self._talk.receive()
                answer = none_left_open(self._run(job), job["db"])
                if os.getpid() != self._pid:
                    # A handler forked and its child came back here: it is a copy of a worker that it must not be.
                    os._exit(0)
                _flush()
                self._talk.send([END, self._asked, *answer])

    def _prepare(self, program: dict[str, Any]) -> bool:
        """Import the program as the daemon has it; say whether that could be done."""
        sys.argv[:] = program["argv"]
        sys.path[:] = program["path"]
        for name, place in program["tasks"].items():
            try:
                self._find(name, place)
            except BaseException as error:  # noqa: BLE001 - a user's module may raise anything, SystemExit too
                self._talk.send([REFUSED, name, *loading.why(error)])
                return False
        self._talk.send([HELLO, self._pid])
        return True

    def _find(self, name: str, place: list[Any]) -> Callable[..., Any]:
        if name not in self._functions:
            with loading.apart():
                found = loading.find(loading.Place(*place))
            self._functions[name] = found.function if isinstance(found, Task) else found
        return self._functions[name]

    # -- one attempt ----------------------------------------------------------------------------------------------

    def _run(self, job: dict[str, Any]) -> Answer:
        try:
            try:
                self._handling = True
                function = self._find(job["task"], job["place"])
                arguments = {} if job["ctx"] is None else {"ctx": self._context(job)}
                value = function(codec.loads(job["payload"]), **arguments)
            finally:
                # From here on nothing is interrupted.
                self._handling = False
            return Answer(COMPLETED, codec.result(value))
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it is the handler's, not the worker's
            wanted = any(loading.class_name(one) in job["retry_on"] for one in type(error).__mro__)
            return answer_to(error, (type(error),) if wanted else ())

    def _context(self, job: dict[str, Any]) -> Context:
        line = Line(
            awake=clock.awake,
            cancelled=lambda: self._asked,
            progress=lambda ctx, text: self._ask("progress", ctx, text),
            result=lambda ctx, text: self._ask("result", ctx, text),
            intent=lambda ctx, note: self._ask("intent", ctx, note),
            data=lambda ctx, data: self._ask("data", ctx, None, data),
            items=lambda ctx, chunk: self._ask("items", ctx, chunk),
            defer=lambda ctx, deferral: self._ask("defer", ctx, deferral),
        )
        line = beside(line, job["db"], None)
        return _Context(self._log, params=codec.loads(job["params"]), task=job["task"], line=line, **job["ctx"])

    def _ask(self, name: str, ctx: Context, argument: Any, data: bytes | None = None) -> Any:
        """Have the daemon do one of a line's calls, and return what that returned, or raise what it raised."""
        kind, found = self._exchange([name, ctx.item_id, ctx.attempt, argument], data)
        if kind is not None:
            raise _error(kind, found)
        return found

    def _log(self, ctx: Context, level: int, at: float, text: str) -> None:
        self._exchange([LOG, ctx.item_id, ctx.attempt, [level, at, text]], answered=False)

    def _exchange(self, message: list[Any], data: bytes | None = None, *, answered: bool = True) -> Any:
        if os.getpid() != self._pid:
            raise JobdError("ctx is of the process that the handler was called in, not of one that it forked")
        here, asked = threading.current_thread() is threading.main_thread(), self._asked
        # A signal in the middle of a message would leave half of it in the pipe.
        self._talking = self._talking or here
        try:
            with self._asking:
                self._talk.send(message, data)
                answer = self._talk.receive() if answered else None
        finally:
            self._talking = self._talking and not here
        if here and self._asked and not asked:
            raise Cancelled(_ASKED)
        return answer


class _Context(Context):
    """A context whose log is sent, line by line: what a handler said before it was killed is kept, too."""

    def __init__(self, send: Callable[[Context, int, float, str], None], **what: Any) -> None:
        super().__init__(**what)
        self._logger = logging.Logger(f"jobd.task.{what['task']}", logging.DEBUG)  # noqa: LOG001 - as its parent's
        self._logger.propagate = False
        self._logger.addHandler(_Sender(lambda *line: send(self, *line)))

    @property
    def log(self) -> logging.Logger:
        """A logger below ``jobd.task``, whose tail is kept with the item."""
        return self._logger


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[int, float, str], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; one that cannot be formatted is told on stderr, as everywhere, and fails no item."""
        try:
            line = tail(self.format(record))[0]
        except Exception:  # noqa: BLE001 - the user's arguments and their __str__
            self.handleError(record)
            return
        self._send(record.levelno, record.created, line)


def _error(kind: str, text: str) -> Exception:
    """Return the error that the daemon met: one of those that a context's calls name, or one that says which it was."""
    known = {one.__name__: one for one in (Cancelled, Lost, Skip, StoreBusy, StoreUnusable)}
    return known[kind](text) if kind in known else JobdError(f"{kind}: {text}")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
