"""One store: its one way to write, and to read.

Every write of every caller goes through :meth:`Store.write`: one immediate transaction at a time in this process,
retried with jittered backoff while the database is busy, full or failing, and told apart from errors that no retry
mends. Threads have a connection each, closed with its thread.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from jobd.errors import StoreUnusable
from jobd.store.driver import BUSY_TIMEOUT_MS, Connection, Driver
from jobd.store.failures import Transient
from jobd.store.loops import Loops
from jobd.store.news import News
from jobd.store.sharing import Asked, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What works on a store takes both from here.
__all__ = ["CLIENT_PATIENCE", "FIRST_DELAY", "Connection", "Store"]

T = TypeVar("T")

CLIENT_PATIENCE: Final = 10.0
FIRST_DELAY: Final = 0.3
_LOOK_EVERY: Final = 0.01


class Store(Driver):
    """What every module of the store stands on."""

    def __init__(self) -> None:
        # One writer at a time in this process: threads wait here in turn instead of in the driver's busy loop.
        self.mutex = threading.RLock()
        self.waiting = Waiting()
        self.loops = Loops()
        self.news = News({})
        # Called after a commit that may have given the daemon something to do.
        self.wake: Callable[[], None] = lambda: None

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
        spent, longest = 0.0, FIRST_DELAY
        while True:
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
                delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
                longest = min(longest * 2, 5.0)
                spent += error.waited + delay
                if spent > patience:
                    raise
            time.sleep(delay)

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
