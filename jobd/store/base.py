"""One store: its connections, its one way to write, and what a database driver must answer.

Every write of every caller goes through :meth:`Store.write`: one immediate transaction at a time in this process,
retried with jittered backoff while the database is busy, full or failing, and told apart from errors that no retry
mends. Threads have a connection each, closed with its thread.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from jobd.errors import JobdError, StoreBusy, StoreUnusable
from jobd.store.loops import Loops
from jobd.store.news import News
from jobd.store.sharing import Asked, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import peewee

# A connection of the driver. Both drivers speak enough of the DB-API alike for ``execute``.
Connection = Any
T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5_000
CLIENT_PATIENCE: Final = 10.0
FIRST_DELAY: Final = 0.3
_LOOK_EVERY: Final = 0.01


class Transient(StoreBusy):
    """Busy, full or an I/O error: the same write may go through later. ``reason`` is one or two words."""

    def __init__(self, message: str, *, reason: str, waited: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.waited = waited


class Permanent(JobdError):
    """A constraint, a value or a text that the database will never take; the cause is ``__cause__``."""


class Store(ABC):
    """What every module of the store stands on. ``path`` names the database for people."""

    database: peewee.Database
    path: str

    def __init__(self) -> None:
        # One writer at a time in this process: threads wait here in turn instead of in the driver's busy loop.
        self.mutex = threading.RLock()
        self.waiting = Waiting()
        self.loops = Loops()
        self.news = News({})
        # Called after a commit that may have given the daemon something to do.
        self.wake: Callable[[], None] = lambda: None

    # -- what a driver answers ------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> None:
        """Check the file, create it where there is none, and bring its connection settings in order."""

    @abstractmethod
    def connection(self) -> Connection:
        """Return the calling thread's connection, opened if need be."""

    @abstractmethod
    def close(self) -> None:
        """Close the calling thread's connection."""

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin a transaction that holds the write lock from its first statement."""

    @abstractmethod
    def in_transaction(self, connection: Connection) -> bool:
        """Say whether a transaction is open, by the driver's own word."""

    @abstractmethod
    def holds_transaction(self) -> bool:
        """Say whether the calling thread has one open, opening no connection for it."""

    @abstractmethod
    def drop_transaction(self) -> bool:
        """Roll back what the calling thread left open, opening no connection for it; say whether there was any."""

    @abstractmethod
    def judge(self, error: BaseException) -> BaseException:
        """Return what ``error`` means: Transient, Permanent, StoreUnusable, or the error itself."""

    @abstractmethod
    def rows(self, *columns: str) -> str:
        """Return a subselect that turns one bound parameter, ``pack(rows)``, into rows of ``columns``.

        A whole batch is one statement and one step: statement by statement the interpreter's lock would change hands
        for every row, and a busy handler thread keeps it for 5 ms each time.
        """

    @abstractmethod
    def pack(self, rows: Sequence[Sequence[Any]]) -> str:
        """Return the parameter that ``rows()`` reads."""

    @abstractmethod
    def pairs(self, key: str, value: str) -> str:
        """Return a subselect that turns one bound parameter, ``pack_pairs(pairs)``, into rows of two columns.

        For two columns of text it takes two thirds of the time of ``rows``.
        """

    @abstractmethod
    def pack_pairs(self, pairs: Mapping[Any, str]) -> str:
        """Return the parameter that ``pairs()`` reads."""

    @abstractmethod
    def new_id(self, connection: Connection, statement: str, params: Sequence[Any]) -> int:
        """Insert one row and return the id that it was given."""

    @abstractmethod
    def gather(self, connection: Connection, columns: str, source: str, params: Sequence[Any]) -> list[list[Any]]:
        """Return the rows of ``select columns source`` in one step, for the same reason as ``rows``."""

    @abstractmethod
    def version(self) -> int:
        """Return a number that changes when another connection has committed."""

    # -- writing and reading --------------------------------------------------------------------------------------

    def write(self, work: Callable[[Connection], T], *, patience: float = CLIENT_PATIENCE) -> T:
        """Run ``work(connection)`` in one transaction and return what it returns.

        ``work`` may run several times and must leave nothing behind in memory. Inside a transaction of this thread it
        joins it. ``patience`` is in seconds; 0 tries once.

        Raises:
            Transient: the patience ran out.
            Permanent: the database will never take it.
            StoreUnusable: the file cannot be used.
        """
        return self._patiently(lambda: self._transaction(work), patience)

    def share(self, work: Callable[[Connection], T], *, patience: float = CLIENT_PATIENCE) -> T:
        """As :meth:`write`, for a short ``work`` that other threads' may be committed with, in whichever thread.

        ``work`` keeps to the connection that it is given. What it raises undoes it alone.
        """
        connection = self._asked_for()
        if self.in_transaction(connection):
            self.loops.join()
            return work(connection)
        mine = self.waiting.add(work)
        if self.waiting.company:
            # Whoever is about to ask, too, gets the interpreter for it: else most would find nobody to share with.
            time.sleep(0)
        try:
            self._patiently(lambda: self._with_others(mine), patience)
        except Transient:
            while not self.waiting.withdraw(mine):
                # Somebody is about to commit it: to give it up now would be to deny what is stored.
                time.sleep(_LOOK_EVERY)
            if not mine.answered:
                raise
        finally:
            self.waiting.forget(mine)
        if mine.error is not None:
            self._raise(mine.error)
        answer: T = mine.answer
        return answer

    def _with_others(self, mine: Asked) -> None:
        if mine.answered:
            return
        together = self.waiting.with_others(mine)
        try:
            if together == [mine]:
                mine.answer = self._transaction(mine.work)
                return
            answers = self._transaction(lambda connection: [self._apart(connection, asked.work) for asked in together])
            for asked, (answer, error) in zip(together, answers, strict=True):
                self.waiting.forget(asked)
                asked.answer, asked.error, asked.answered = answer, error, True
        finally:
            self.waiting.release(together)

    def _apart(self, connection: Connection, work: Callable[[Connection], T]) -> tuple[T | None, Exception | None]:
        """Run one of several in the same transaction; return its answer, or the error that undid it alone."""
        connection.execute("savepoint apart")
        mark = self.news.mark()
        try:
            answer = work(connection)
        except Exception as error:
            if isinstance(self.judge(error), (Transient, StoreUnusable)) or not self.in_transaction(connection):
                raise
            connection.execute("rollback to apart")
            self.news.undo(mark)
            connection.execute("release apart")
            return None, error
        connection.execute("release apart")
        return answer, None

    def _patiently(self, turn: Callable[[], T], patience: float) -> T:
        spent = 0.0
        for delay in _delays():
            try:
                self._take_turn()
                try:
                    answer = turn()
                finally:
                    self.mutex.release()
                self.news.tell()
                if self.news.rings:
                    self.news.rings = False
                    self.wake()
                return answer  # noqa: TRY300 - in the loop's own words: this try is over
            except Transient as error:
                spent += error.waited + delay
                if spent > patience:
                    raise
            time.sleep(delay)
        raise AssertionError  # the delays never end

    def _take_turn(self) -> None:
        # Not for ever: another thread may hold it in a transaction of the program's own, and wait there for this one.
        waited = BUSY_TIMEOUT_MS / 1000
        if not self.mutex.acquire(timeout=waited):
            hint = "try again; an app.atomic() that is held for long keeps all others out"
            raise Transient(f"{self.path}: locked", reason="locked", waited=waited, hint=hint)

    @contextmanager
    def holding(self, connection: Connection) -> Iterator[None]:
        """Begin a transaction for the block, tried again as a write is; the block has to end it.

        Other threads wait for the process's write mutex meanwhile, as for any write.
        """

        def begin() -> None:
            try:
                self.begin(connection)
                # Kept beyond this try, until the block is left.
                self.mutex.acquire()
            except BaseException as error:  # noqa: BLE001 - judged and raised again
                if self.in_transaction(connection):
                    connection.execute("rollback")
                self._raise(error)

        self._patiently(begin, CLIENT_PATIENCE)
        try:
            self.news.undo()
            yield
        finally:
            self.mutex.release()

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        connection = self._asked_for()
        if self.in_transaction(connection):
            self.loops.join()
            # Not judged here: the outermost write alone retries. One that retried inside it would sleep with the
            # lock held, and after a full disk, which ends the transaction, commit its half alone.
            return work(connection)
        try:
            self.begin(connection)
            # What a transaction of somebody else's in this thread has moved, and rolled back, is no news.
            self.news.undo()
            self.news.linked = False
            answer = work(connection)
            connection.execute("commit")
            self.news.commit()
        except BaseException as error:  # noqa: BLE001 - judged and raised again
            # A Ctrl-C may come between the BEGIN and our knowing of it: left open, every later write of this thread
            # would join it and never commit. After a full disk or an I/O error the transaction may be gone already:
            # a ROLLBACK would then fail and hide the cause.
            self.news.undo()
            if self.in_transaction(connection):
                connection.execute("rollback")
            self._raise(error)
        return answer

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` on one snapshot of the database and return what it returns."""
        connection = self._asked_for()
        try:
            if self.in_transaction(connection):
                return work(connection)
            try:
                connection.execute("begin")
                return work(connection)
            finally:
                if self.in_transaction(connection):
                    connection.execute("rollback")
        except Exception as error:  # noqa: BLE001 - judged and raised again
            self._raise(error)

    def _asked_for(self) -> Connection:
        try:
            return self.connection()
        except Exception as error:  # noqa: BLE001 - judged and raised again
            self._raise(error)

    def _raise(self, error: BaseException) -> NoReturn:
        meant = self.judge(error)
        if meant is error:
            raise error
        raise meant from error


def _delays() -> Iterator[float]:
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        delay = min(delay * 2, 5.0)
