"""A program's own queries by peewee: on the connection that the store has in this thread, and on no other."""

from __future__ import annotations

import sqlite3
import sys
import textwrap
import threading

import peewee
import pytest
from kit import forked

from jobd.store.failures import Permanent


def count(store):
    return store.read(lambda connection: connection.execute("select count(*) from passes").fetchone()[0])


def add(store, name="one"):
    return store.database.execute_sql("insert into passes (name) values (?)", (name,))


def test_it_writes_by_the_connection_of_the_store_and_so_in_its_transaction(store):
    def work(connection):
        add(store)
        assert connection.in_transaction
        raise LookupError

    with pytest.raises(LookupError):
        store.write(work)
    assert store.database.connection() is store.connection()
    assert count(store) == 0
    add(store)
    assert count(store) == 1


def test_all_threads_have_one_database_with_a_connection_for_each(store):
    found, look = [], lambda: found.append((store.database, store.database.connection()))
    for thread in [threading.Thread(target=look) for _ in range(4)]:
        thread.start()
        thread.join()
    assert {id(database) for database, _ in found} == {id(store.database)}
    assert len({id(connection) for _, connection in found}) == 4


def test_closing_it_closes_what_the_store_alone_has_opened(store):
    database = store.database
    first = store.connection()
    assert database.close()
    assert database.is_closed()
    assert not database.close()
    assert store.connection() is not first
    assert count(store) == 0


def test_closing_the_store_closes_it_and_the_next_query_opens_both(store):
    add(store)
    store.close()
    assert store.database.is_closed()
    add(store, "two")
    assert count(store) == 2


def test_a_transaction_that_was_left_open_is_forgotten_when_it_is_rolled_back(store):
    """Else the next handler in this thread could neither close the database nor begin a transaction in it."""
    told = []
    store.database.transaction().__enter__()
    store.database.after_commit(lambda: told.append("left"))
    add(store)
    assert store.drop_transaction()
    assert count(store) == 0
    with store.database.atomic():
        add(store, "two")
    assert store.database.close()
    assert (count(store), told) == (1, [])


def test_a_function_that_was_registered_is_known_in_every_thread(store):
    store.database.register_function(lambda text: text[::-1], "backwards", 1)
    found = []
    ask = lambda: found.extend(store.database.execute_sql("select backwards('abc')").fetchone())  # noqa: E731
    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == ["cba", "cba"]


def test_an_error_of_the_driver_is_judged_the_same_by_whichever_way_it_comes(store):
    add(store)
    with pytest.raises(Permanent) as told:
        store.write(lambda connection: connection.execute("insert into passes (name) values ('one')"))
    assert isinstance(told.value.__cause__, sqlite3.IntegrityError)
    with pytest.raises(Permanent) as told:
        store.write(lambda _: add(store))
    assert isinstance(told.value.__cause__, peewee.IntegrityError)


FORKED = """
    import os, sys
    from jobd.store.sqlite import SqliteStore
    store = SqliteStore(sys.argv[1])
    store.open()
    database = store.database
    def add(name):
        database.execute_sql("insert into passes (name) values (?)", (name,))
    add("before")
    parents = database.connection()
    child = os.fork()
    if child == 0:
        assert database.connection() is not parents
        assert database is store.database
        add("child")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert database.connection() is parents
    add("parent")
    print(*sorted(row[0] for row in database.execute_sql("select name from passes")))
"""


def test_in_a_forked_child_what_is_bound_to_it_has_a_connection_of_its_own(tmp_path):
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(FORKED), str(tmp_path / "jobs.db")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (child.stdout, child.stderr, child.returncode) == ("before child parent\n", "", 0)
