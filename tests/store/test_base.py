"""One way to write: retried where that mends it, told apart where nothing does, one writer at a time."""

from __future__ import annotations

import sqlite3
import sys
import textwrap
import threading

import pytest
from kit import forked

from jobd.errors import JobdError
from jobd.store import base, sqlite
from jobd.store.failures import Permanent, Transient
from jobd.store.sqlite import SqliteStore

ADD = "insert into passes (name, requested_at) values (?, 1)"
COUNT = "select count(*) from passes"


@pytest.fixture
def impatient(monkeypatch):
    """The driver gives up at once, and no retry waits: the delays asked for are kept."""
    delays = []
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 10)
    monkeypatch.setattr(base.time, "sleep", delays.append)
    return delays


@pytest.fixture
def store(impatient, store):
    store.close()  # the connection that the fixture opened still has the patience of production
    return store


@pytest.fixture
def holder(tmp_path):
    """Another program with the write lock in its hands."""
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    connection.execute("begin exclusive")
    yield connection
    connection.close()


def add(name="a"):
    return lambda connection: connection.execute(ADD, (name,))


def test_a_write_waits_for_another_program_and_then_goes_through(store, rows, holder, impatient, monkeypatch):
    def sleep(seconds):
        impatient.append(seconds)
        if len(impatient) == 3:
            holder.execute("commit")

    monkeypatch.setattr(base.time, "sleep", sleep)
    store.write(add())
    assert rows.one(COUNT) == 1
    assert [0.5 <= delay / full <= 1 for delay, full in zip(impatient, (0.3, 0.6, 1.2), strict=True)] == [True] * 3


def test_a_client_gives_up_after_about_ten_seconds_with_one_line(store, rows, holder, impatient):
    with pytest.raises(Transient, match=r"jobs\.db: locked$") as refusal:
        store.write(add())
    assert refusal.value.exit_code == 5
    assert "\n" not in str(refusal.value)
    assert refusal.value.hint
    assert refusal.value.reason == "locked"
    assert 5 < sum(impatient) <= 10
    holder.execute("rollback")
    assert rows.one(COUNT) == 0


def test_the_time_spent_in_the_driver_counts_as_patience(store, holder, impatient, monkeypatch):
    store.connection()  # opened with the short timeout, so that only the count is that of production
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 5_000)
    monkeypatch.setattr(sqlite, "sleep", lambda _: None)
    with pytest.raises(Transient):
        store.write(add())
    assert len(impatient) == 1, "5 s in the driver, a delay, 5 s in the driver"


def test_without_patience_a_write_is_tried_once(store, holder, impatient):
    with pytest.raises(Transient):
        store.write(add(), patience=0)
    assert impatient == []


def test_reading_goes_on_while_another_program_holds_the_write_lock(store, rows, holder):
    assert rows.one(COUNT) == 0


def test_waiting_for_another_program_leaves_the_writers_of_this_process_their_turn(store, holder, monkeypatch):
    free = []
    monkeypatch.setattr(base.time, "sleep", lambda _: free.append(mutex_is_free(store)) or holder.execute("rollback"))
    store.write(add())
    assert free == [True]


def mutex_is_free(store):
    def take():
        taken.append(store.mutex.acquire(blocking=False))
        if taken[0]:
            store.mutex.release()

    taken = []
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("insert into job_events (job_id, name, at, actor) values (1, 'n', 0, null)", ()),
        (ADD, ("\ud800",)),
        (ADD, (2**63,)),
        ("insert into jobs (task, status, status_updated_at, created_at) values ('t', 'done', 0, 0)", ()),
        ("insert into job_items (job_id, key, payload) values (404, 'k', 'null')", ()),
    ],
    ids=["null", "surrogate", "65 bits", "check", "foreign key"],
)
def test_what_the_database_will_never_take_is_refused_at_once_and_rolled_back(store, rows, impatient, sql, params):
    def work(connection):
        add()(connection)
        connection.execute(sql, params)

    with pytest.raises(Permanent) as refusal:
        store.write(work)
    assert isinstance(refusal.value.__cause__, sqlite3.IntegrityError | UnicodeEncodeError | OverflowError)
    assert impatient == []
    assert rows.one(COUNT) == 0


def test_a_defect_of_the_caller_is_raised_as_it_is_and_rolled_back(store, rows):
    for error in (ZeroDivisionError, KeyboardInterrupt, JobdError):

        def work(connection, error=error):
            add()(connection)
            raise error("mine")

        with pytest.raises(error, match="mine"):
            store.write(work)
        assert not store.connection().in_transaction
    assert rows.one(COUNT) == 0
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.write(lambda connection: connection.execute("select * from nowhere"))


def test_work_that_is_tried_again_begins_from_nothing(store, rows, impatient):
    tries = []

    def work(connection):
        add(f"try {len(tries)}")(connection)
        tries.append(rows_seen(connection))
        if len(tries) < 3:
            raise full()
        return "answer"

    assert store.write(work) == "answer"
    assert tries == [1, 1, 1]
    assert rows.all("select name from passes") == [("try 2",)]
    assert len(impatient) == 2


def full():
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def rows_seen(connection):
    return connection.execute(COUNT).fetchone()[0]


def test_a_write_holds_the_lock_from_its_first_statement(store, rows, tmp_path):
    def work(connection):
        # A transaction that only reads so far, and that took no lock for it, could never write after this commit.
        other = sqlite3.connect(tmp_path / "jobs.db", timeout=0, isolation_level=None)
        try:
            other.execute(ADD, ("other",))
        except sqlite3.OperationalError as error:
            return error.sqlite_errorname
        finally:
            other.close()

    assert store.write(work) == "SQLITE_BUSY"
    assert rows.one(COUNT) == 0


def test_a_write_inside_a_write_joins_it(store, rows):
    def outer(connection):
        store.write(add("inner"))
        add("outer")(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write(outer)
    assert rows.one(COUNT) == 0


def test_a_write_inside_a_write_is_retried_only_with_the_whole(store, rows, impatient):
    tries = []

    def inner(connection):
        tries.append(rows_seen(connection))
        if len(tries) == 1:
            # As SQLite does when the disk is full: the transaction is gone before anybody asks for it.
            connection.execute("rollback")
            raise full()
        add("inner")(connection)

    def outer(connection):
        add("outer")(connection)
        store.write(inner)

    store.write(outer)
    assert tries == [1, 1], "never without the outer half"
    assert rows.all("select name from passes order by name") == [("inner",), ("outer",)]


def test_a_read_sees_one_snapshot_and_leaves_no_transaction_behind(store, tmp_path):
    other = SqliteStore(tmp_path / "jobs.db")

    def work(connection):
        before = rows_seen(connection)
        thread = threading.Thread(target=lambda: other.write(add()))
        thread.start()
        thread.join()
        return before, rows_seen(connection)

    assert store.read(work) == (0, 0)
    assert not store.connection().in_transaction
    assert store.read(rows_seen) == 1
    with pytest.raises(ZeroDivisionError):
        store.read(lambda _: 1 / 0)
    assert not store.connection().in_transaction


def test_threads_of_one_process_write_in_turn_and_none_is_refused(store, rows, impatient):
    barrier = threading.Barrier(4)

    def write(name):
        barrier.wait(20)
        for number in range(50):
            store.write(add(f"{name} {number}"))
        store.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows.one(COUNT) == 200
    assert impatient == [], "nobody met a lock: they wait for each other in the process"


FULL = """
    import resource, sqlite3, sys
    from jobd.store import base
    from jobd.store.failures import Transient
    from jobd.store.sqlite import SqliteStore
    base.time.sleep = lambda _: None
    store = SqliteStore(sys.argv[1])
    store.open()
    store.write(lambda c: c.execute("insert into passes (name) values ('before')"))
    limit = 2 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        store.write(lambda c: c.executemany("insert into passes (name, report) values (?, zeroblob(100000))",
                                            [(str(n),) for n in range(100)]))
    except Transient as error:
        print(error.reason, error.exit_code, bool(error.hint))
    print(store.read(lambda c: c.execute("select name from passes").fetchall()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.write(lambda c: c.execute("insert into passes (name) values ('after')"))
    print(store.read(lambda c: c.execute("select name from passes order by name").fetchall()))
"""


def test_a_full_disk_is_transient_and_the_store_goes_on_when_there_is_room(tmp_path):
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "jobs.db")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert child.stderr == ""
    reason, before, after = child.stdout.splitlines()
    assert reason in {"disk full 5 True", "I/O error 5 True"}
    assert before == "[('before',)]"
    assert after == "[('after',), ('before',)]"


def test_a_ctrl_c_right_after_the_begin_leaves_no_transaction_that_later_writes_would_join(store, rows, monkeypatch):
    begin = store.begin

    def interrupted(connection):
        begin(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write(add())
    monkeypatch.undo()
    assert not store.in_transaction(store.connection())
    store.write(add())
    assert rows.one(COUNT) == 1
