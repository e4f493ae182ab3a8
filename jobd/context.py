"""What a handler that asks for ``ctx`` is given."""

from __future__ import annotations

import collections
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jobd import arguments, codec, measures
from jobd.arguments import text_of
from jobd.errors import Cancelled, Deferred, UsageError
from jobd.items import normalise
from jobd.store.chunks import Chunks
from jobd.store.defer import EXTERNAL_LIMIT, Deferral

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

    from jobd.items import ItemKey

OUTPUT_LIMIT: Final = 64 * 1024
_PROGRESS_EVERY: Final = 0.25
_INTENT_LIMIT: Final = 4096


class Context:
    """One attempt at one item, as its handler sees it.

    Attributes:
        job_id, item_id: the numbers that the command line shows.
        key: the item's key, unique in its job.
        attempt: counted from 1.
        params: what the submission gave to all its items.
        deadline: when the attempt times out, in Unix ms; None without a time-out.
        idempotency_key: the same for every attempt at this item, and for no other item.
        log: a standard logger; the last 64 KiB of what it is given are kept with the item.
    """

    def __init__(  # noqa: PLR0913 - what an attempt is
        self,
        *,
        job_id: int,
        item_id: int,
        key: str,
        attempt: int,
        params: Any,
        idempotency_key: str,
        task: str,
        line: Line,
        deadline: int | None = None,
    ) -> None:
        self.job_id = job_id
        self.item_id = item_id
        self.key = key
        self.attempt = attempt
        self.params = params
        self.deadline = deadline
        self.idempotency_key = idempotency_key
        self.saved = False
        self._task = task
        self._line = line
        self._tail: Tail | None = None
        self._log: logging.Logger | None = None
        self._reported = float("-inf")
        self._told = False

    @property
    def log(self) -> logging.Logger:
        """A logger below ``jobd.task``, whose tail is kept with the item."""
        if self._log is None:
            self._tail = Tail()
            # Not from getLogger: a logger of each item's own would live as long as the process. What is kept does not
            # depend on the levels that the program set for its log; what goes on to it does.
            self._log = logging.Logger(f"jobd.task.{self._task}", logging.DEBUG)  # noqa: LOG001 - see above
            self._log.propagate = False
            self._log.addHandler(self._tail)
            self._log.addHandler(_Onward())
        return self._log

    def progress(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Show how far this item is; written at most four times a second.

        It is for who looks on: what cannot be shown, as it is not JSON or over 4 KiB, fails no item and is said once
        in the log.

        Raises:
            Lost: the attempt is no longer the item's.
        """
        now = self._line.awake()
        if now - self._reported < _PROGRESS_EVERY:
            return
        try:
            shown = codec.dumps([done, total, text], what="progress", limit=4096)
        except codec.NotStorable as error:
            self._say_not_shown(error)
            return
        self._line.progress(self, shown)
        self._reported = now

    def _say_not_shown(self, why: Exception) -> None:
        if not self._told:
            self._told = True
            self.log.warning("ctx.progress is not shown: %s", why)

    def raise_if_cancelled(self) -> None:
        """Leave the handler if its job is being cancelled or failed.

        Raises:
            Cancelled: so the item ends as cancelled.
        """
        if self._line.cancelled():
            raise Cancelled("the job is being cancelled")

    def save_result(self, value: Any) -> None:
        """Store the result now: the work is complete, whatever happens to this attempt afterwards.

        Raises:
            Lost: the attempt is no longer the item's.
            NotStorable: the value is not JSON, or over 1 MiB.
        """
        self._line.result(self, codec.result(value))
        self.saved = True

    def add_items(self, items: Iterable[Any], *, item_key: ItemKey | None = None) -> int:
        """Add items to this very job, at once, and return how many of them are new; the others are known by their key.

        ``items`` and ``item_key`` are as for a submission; it is read in chunks, each of which is stored when the next
        is asked for. A key that comes twice, or that the job has, is left as it is: with another payload that is an
        event in the item's history. The job ends only when nothing of it is open, so a crawler may go on until there is
        nothing new.

        Raises:
            Lost: the attempt is no longer the item's.
            Cancelled: the job is being cancelled or failed.
            InvalidItem: an item whose key or payload cannot be stored; chunks before it may be stored.
        """
        return sum(self._line.items(self, chunk) for chunk in Chunks(normalise(items, self._task, item_key), skip=True))

    def intend(self, note: str) -> None:
        """Note what this attempt is about to do outside, before it does it: up to 4,096 characters.

        It is stored when this returns. If the program dies in what follows, the task's ``verify`` is given the note.

        Raises:
            Lost: the attempt is no longer the item's.
            UsageError: not text, or over 4,096 characters.
        """
        text = storable(text_of("intend", note))
        if len(text) > _INTENT_LIMIT:
            raise UsageError(f"intend: the note is {len(text):,} characters, the limit is {_INTENT_LIMIT:,}")
        self._line.intent(self, text)

    def defer(
        self,
        external_id: str | int,
        *,
        poll_after: float | str | dt.timedelta | None = None,
        deadline: float | str | dt.timedelta | dt.datetime | None = None,
    ) -> NoReturn:
        """Leave the item ``waiting`` for work that goes on outside under ``external_id``, and leave the handler.

        It is stored before the handler is left; from then on the item takes no slot and has used up no try. It ends by
        what the task's ``poll`` says, asked ``poll_after`` from now (10 s by default) and then less and less often, by
        a delivery, or at its ``deadline``: a time, or how long from now, as failed. Without one it waits for ever.

        Where the attempt has saved a result, that wins: the item completes. A number as the id is its decimal text.

        Raises:
            Deferred: always, in the end; no error, and nothing to catch.
            Lost: the attempt is no longer the item's.
            UsageError: the id is no text of 1 to 4,096 characters, or a time is none.
        """
        deferral = _deferral(external_id, poll_after, deadline)
        self._line.defer(self, deferral)
        raise Deferred(*deferral)

    def save_data(self, data: bytes) -> None:
        """Store the large companion of the result: bytes of any size, compressed, read only when asked for.

        Raises:
            Lost: the attempt is no longer the item's.
            TypeError: not bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"save_data() takes bytes, not {type(data).__name__}")
        self._line.data(self, bytes(data))

    def output(self) -> tuple[str, bool] | None:
        """Return what was logged and whether its beginning was cut; None if nothing was."""
        return self._tail.text() if self._tail is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The way from a context to whoever runs it. In threads it leads straight to the store."""

    awake: Callable[[], float]
    cancelled: Callable[[], bool]
    progress: Callable[[Context, str], None]
    result: Callable[[Context, str], None]
    intent: Callable[[Context, str], None]
    data: Callable[[Context, bytes], None]
    items: Callable[[Context, dict[str, str]], int]
    defer: Callable[[Context, Deferral], None]


def _deferral(external_id: Any, poll_after: Any, deadline: Any) -> Deferral:
    number = isinstance(external_id, int) and not isinstance(external_id, bool)
    found = arguments.text("defer: external_id", str(external_id) if number else external_id)
    if not 0 < len(found) <= EXTERNAL_LIMIT or "\0" in found:
        raise UsageError(
            f"defer: external_id is not of 1 to {EXTERNAL_LIMIT:,} characters without a NUL: {found[:50]!a}"
        )
    by = isinstance(deadline, datetime)
    return Deferral(
        found,
        poll_after_ms=None if poll_after is None else _ms(poll_after),
        deadline_ms=None if deadline is None or by else _ms(deadline),
        deadline_at=measures.moment(deadline) if by else None,
    )


def _ms(span: Any) -> int:
    return max(1, int(measures.duration(span) * 1000))


class _Onward(logging.Handler):
    """Hands on to the program's own logging what that lets through."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record on."""
        onward = logging.getLogger("jobd.task")
        if onward.isEnabledFor(record.levelno):
            onward.handle(record)


class Tail(logging.Handler):
    """Keeps the last 64 KiB of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._lines: collections.deque[str] = collections.deque()
        self._size = 0
        self._truncated = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record; one that cannot be formatted is told on stderr, as everywhere, and fails no item."""
        try:
            self.keep(self.format(record))
        except Exception:  # noqa: BLE001 - the user's arguments and their __str__
            self.handleError(record)

    def keep(self, line: str) -> None:
        """Keep one line, and drop the oldest over the limit."""
        text, cut = tail(storable(line))
        self._truncated = self._truncated or cut
        self._lines.append(text)
        self._size += len(text) + 1
        # The line break behind the last one is not kept: a line that fills the tail alone stays.
        while self._size > OUTPUT_LIMIT + 1:
            self._size -= len(self._lines.popleft()) + 1
            self._truncated = True

    def text(self) -> tuple[str, bool] | None:
        """Return the kept lines and whether earlier ones were dropped; None if there was no line.

        It takes no lock, in whatever thread: that of a handler which hangs in what it logs is held for ever. A copy is
        one step.
        """
        lines = self._lines.copy()
        return ("\n".join(lines), self._truncated) if lines else None


def storable(text: str) -> str:
    """Return ``text`` as the database can hold it: a lone surrogate becomes its escape, and so does a NUL, at which
    SQLite's JSON would cut it off.
    """
    text = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")


def tail(text: str, limit: int = OUTPUT_LIMIT) -> tuple[str, bool]:
    """Return the last ``limit`` characters of ``text`` and whether any were cut."""
    return (text, False) if len(text) <= limit else (text[-limit:], True)
