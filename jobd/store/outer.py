"""A transaction of the caller's: what a program writes through peewee and what it submits commit together.

To peewee it is a transaction as any other, so that its own ``atomic()`` inside is a savepoint. Only the BEGIN is tried
again: the block has run once, and whether it may run twice only the caller knows.

A handler that defers its item leaves the block by ``Deferred``, which is no error: what it wrote is committed.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import peewee

from jobd.errors import Deferred, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobd.store.base import Connection, Store

log = logging.getLogger("jobd.store")


@contextmanager
def atomic(store: Store) -> Iterator[bool]:
    """Commit what the block writes, or nothing of it where it raises; yield whether this is the outermost one.

    Inside a transaction of this thread it is a savepoint.

    Raises:
        Transient: the database stayed locked, or could not take it; nothing of the block is stored.
        UsageError: the block has ended the transaction by itself, or has awaited in it; or another asyncio task has
            one open in this thread.
    """
    connection = store.connection()
    if store.in_transaction(connection):
        store.loops.join()
        with _savepoint(store, connection):
            yield False
        return
    left: Deferred | None = None
    database = store.database
    # Not by the first query in the block: when it connects, it forgets the transactions that it was told of.
    database.connect(reuse_if_open=True)
    with store.holding(connection), store.loops.hold() as held:
        database.push_transaction(database.transaction())
        try:
            try:
                yield True
            except Deferred as error:
                left = error
            held.check()
            _check_open(store, connection)
            connection.execute("commit")
            store.news.commit()
        except BaseException as error:
            _drop(store, connection)
            if left is not None:
                # The outcome carries the deferral: the vendor's id is not lost with what was written beside it.
                log.error("what was written beside a deferral to %a is lost: %s", left.args[0], error)  # noqa: TRY400 - one line
                raise left from error
            meant = error if isinstance(error, peewee.PeeweeException) else store.judge(error)
            if meant is error:
                raise
            raise meant from error
        finally:
            database.pop_transaction()  # type: ignore[no-untyped-call] # peewee's
    store.news.tell()
    store.wake()
    database._run_commit_callbacks()  # type: ignore[attr-defined] # noqa: SLF001 - of app.database.after_commit()
    if left is not None:
        raise left


def _check_open(store: Store, connection: Connection) -> None:
    if not store.in_transaction(connection):
        raise UsageError("the block ended its transaction by itself", hint="app.atomic() commits at its end")


def _drop(store: Store, connection: Connection) -> None:
    store.news.undo()
    store.database._clear_commit_callbacks()  # type: ignore[attr-defined] # noqa: SLF001 - as above
    # After a full disk the transaction may be gone already: a ROLLBACK would hide the cause.
    if store.in_transaction(connection):
        connection.execute("rollback")


@contextmanager
def _savepoint(store: Store, connection: Connection) -> Iterator[None]:
    connection.execute("savepoint inner")
    mark = store.news.mark()
    try:
        yield
    except Deferred:
        connection.execute("release inner")
        raise
    except BaseException:
        store.news.undo(mark)
        if store.in_transaction(connection):
            connection.execute("rollback to inner")
            connection.execute("release inner")
        raise
    connection.execute("release inner")
