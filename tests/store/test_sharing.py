"""Writes of several threads that come at once share a transaction; what one raises undoes it alone."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from jobd.errors import Conflict
from jobd.store.failures import Permanent, Transient
from jobd.store.submission import Submission
from jobd.store.submit import submit

ADD = "insert into passes (name) values (?)"
NAMES = "select name from passes order by name"
NOW = 1_795_305_600_000


def add(name):
    def work(connection):
        connection.execute(ADD, (name,))
        return name

    return work


@pytest.fixture
def begun(store, monkeypatch):
    """The transactions that began, as the threads that began them."""
    threads = []
    begin = store.begin

    def counted(connection):
        threads.append(threading.get_ident())
        begin(connection)

    monkeypatch.setattr(store, "begin", counted)
    return threads


@pytest.fixture
def at_once(store, begun):
    """Calls functions that share, each in its thread, so that all of them wait before the first gets its turn."""

    def run(*calls):
        arrived, queue = threading.Semaphore(0), store.waiting.add

        def add_and_tell(work):
            asked = queue(work)
            arrived.release()
            return asked

        store.waiting.add = add_and_tell
        with ThreadPoolExecutor(len(calls)) as pool:
            with store.mutex:
                futures = []
                for call in calls:
                    futures.append(pool.submit(call))
                    assert arrived.acquire(timeout=10)
            wait(futures, timeout=10)
        store.waiting.add = queue
        return futures

    return run


def test_writes_that_wait_together_are_one_transaction_and_each_gets_its_own_answer(store, rows, begun, at_once):
    futures = at_once(*(lambda name=name: store.share(add(name)) for name in "abcde"))
    assert [future.result() for future in futures] == list("abcde")
    assert rows.all(NAMES) == [(name,) for name in "abcde"]
    assert len(begun) == 1


def test_a_write_that_waits_alone_has_a_transaction_of_its_own(store, rows, begun):
    assert store.share(add("a")) == "a"
    assert store.share(add("b")) == "b"
    assert rows.all(NAMES) == [("a",), ("b",)]
    assert len(begun) == 2


def test_what_one_of_them_raises_undoes_it_alone_and_reaches_its_own_caller(store, rows, begun, at_once):
    def refused(connection):
        add("half")(connection)
        raise Conflict("not this one")

    def twice(connection):
        add("twice")(connection)
        add("twice")(connection)

    first, second, third, fourth = at_once(
        lambda: store.share(add("a")),
        lambda: store.share(refused),
        lambda: store.share(twice),
        lambda: store.share(add("b")),
    )
    assert (first.result(), fourth.result()) == ("a", "b")
    with pytest.raises(Conflict, match="not this one"):
        second.result()
    with pytest.raises(Permanent, match="UNIQUE"):
        third.result()
    assert rows.all(NAMES) == [("a",), ("b",)]
    assert len(begun) == 1


def test_where_the_shared_transaction_fails_nothing_of_it_stays_and_each_write_is_tried_again(
    store, rows, begun, at_once, monkeypatch
):
    failures = []

    def full_at_first(connection):
        add("b")(connection)
        if not failures:
            failures.append("disk full")
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return "b"

    monkeypatch.setattr("jobd.store.base.FIRST_DELAY", 0.001)
    futures = at_once(lambda: store.share(add("a")), lambda: store.share(full_at_first), lambda: store.share(add("c")))
    assert [future.result() for future in futures] == ["a", "b", "c"]
    assert rows.all(NAMES) == [("a",), ("b",), ("c",)]
    assert failures == ["disk full"]


def test_an_interrupted_caller_takes_nothing_of_the_others_along(store, rows, at_once):
    runs = []

    def interrupted(connection):
        add("never")(connection)
        runs.append(threading.get_ident())
        raise KeyboardInterrupt

    def caller():
        # Whichever of them runs it: the one that asked is told at the latest when it runs its own.
        try:
            store.share(interrupted)
        except KeyboardInterrupt:
            return "interrupted"

    def other():
        # Until the one that asked runs its own, whoever comes again can run it again.
        while True:
            try:
                return store.share(add("other"))
            except KeyboardInterrupt:
                continue

    first, second = at_once(caller, other)
    assert (first.result(), second.result()) == ("interrupted", "other")
    assert rows.all(NAMES) == [("other",)]
    assert runs


def test_inside_a_transaction_it_joins_that(store, rows, begun):
    def outer(connection):
        store.share(add("inner"))
        raise Conflict("all of it")

    with pytest.raises(Conflict):
        store.write(outer)
    assert rows.all(NAMES) == []
    assert len(begun) == 1


def test_no_more_than_a_batch_shares_one_transaction(store, rows, begun, at_once, monkeypatch):
    monkeypatch.setattr("jobd.store.sharing.MOST", 2)
    futures = at_once(*(lambda name=name: store.share(add(name)) for name in "abcd"))
    assert [future.result() for future in futures] == list("abcd")
    assert rows.all(NAMES) == [(name,) for name in "abcd"]
    assert len(begun) >= 2


def test_jobs_submitted_at_once_under_one_key_are_one_job(store, rows, begun, at_once):
    def call():
        return submit(store, Submission("work", key="nightly"), [("a", "1")], now=NOW, actor="test")

    answers = [future.result() for future in at_once(call, call, call)]
    assert sorted(answer.created for answer in answers) == [False, False, True]
    assert {answer.job_id for answer in answers} == {1}
    assert rows.one("select count(*) from job_items") == 1


def test_a_long_submission_has_a_transaction_of_its_own(store, monkeypatch):
    asked = []
    monkeypatch.setattr(store, "share", asked.append)
    answer = submit(store, Submission("work"), [(f"{number}", "1") for number in range(500)], now=NOW, actor="test")
    assert (answer.added, asked) == (500, [])


def test_who_gives_up_while_another_commits_its_write_hears_that_it_is_stored(store, rows, monkeypatch):
    asked, inside, given_up = threading.Event(), threading.Event(), threading.Event()
    take_turn, withdraw, impatient = store._take_turn, store.waiting.withdraw, []

    def turn():
        if threading.get_ident() in impatient:
            asked.set()
            assert inside.wait(10)
            raise Transient("locked", reason="locked", waited=0.0)
        assert asked.wait(10)
        take_turn()

    def withdraw_and_tell(mine):
        out = withdraw(mine)
        given_up.set()
        return out

    def slow(connection):
        # Both are in this transaction by now; the other one runs out of patience meanwhile.
        inside.set()
        assert given_up.wait(10)
        return add("slow")(connection)

    def second():
        impatient.append(threading.get_ident())
        return store.share(add("b"), patience=0)

    monkeypatch.setattr(store, "_take_turn", turn)
    monkeypatch.setattr(store.waiting, "withdraw", withdraw_and_tell)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(second), pool.submit(store.share, slow)]
    assert [future.result() for future in futures] == ["b", "slow"]
    assert rows.all(NAMES) == [("b",), ("slow",)]


def test_who_gives_up_in_time_has_stored_nothing(store, rows, monkeypatch):
    monkeypatch.setattr("jobd.store.base.BUSY_TIMEOUT_MS", 1)
    with ThreadPoolExecutor(1) as pool:
        with store.mutex:
            asked = pool.submit(lambda: store.share(add("b"), patience=0))
            with pytest.raises(Transient):
                asked.result(10)
        assert store.share(add("c")) == "c"
    assert rows.all(NAMES) == [("c",)]
