"""The file: what is created, what is refused without a byte changed, and what happens to connections."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import stat
import sys
import textwrap
import threading

import psutil
import pytest
from kit import forked

from jobd.errors import NotFound, StoreUnusable
from jobd.store import file, here
from jobd.store.failures import Permanent, Transient
from jobd.store.schema import APPLICATION_ID, SCHEMA_VERSION, schema
from jobd.store.sqlite import SqliteStore

ADD = "insert into passes (name) values (?)"
NAMES = "select name from passes order by name"


def add(store, name):
    store.write(lambda connection: connection.execute(ADD, (name,)))


def names(store):
    return [row[0] for row in store.read(lambda connection: connection.execute(NAMES).fetchall())]


def in_child(body, *arguments):
    """Run a program in a process of its own and return its lines."""
    child = forked.run(
        [sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout.splitlines()


# -- a new file -------------------------------------------------------------------------------------------------------


def test_the_constructor_opens_nothing(tmp_path):
    SqliteStore(tmp_path / "jobs.db")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_for_its_owner_alone_and_names_its_schema(tmp_path):
    old = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "jobs.db")
        store.open()
        add(store, "a")
    finally:
        os.umask(old)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600,
    }  # fmt: skip

    def pragmas(connection):
        asked = ("application_id", "user_version", "journal_mode", "foreign_keys", "synchronous", "busy_timeout",
                 "wal_autocheckpoint", "auto_vacuum")  # fmt: skip
        return [connection.execute(f"pragma {name}").fetchone()[0] for name in asked]

    assert pragmas(store.connection()) == [APPLICATION_ID, SCHEMA_VERSION, "wal", 1, 1, 5000, 0, 2]
    store.close()


def test_full_durability_is_asked_of_the_database(tmp_path):
    store = SqliteStore(tmp_path / "jobs.db", durability="full")
    assert store.connection().execute("pragma synchronous").fetchone()[0] == 2
    store.close()


def test_who_only_reads_does_not_create_a_file(tmp_path):
    store = SqliteStore(tmp_path / "jobs.db")
    with pytest.raises(NotFound, match="there is no jobd file") as refusal:
        store.open(create=False)
    assert refusal.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_becomes_a_jobd_file(tmp_path):
    (tmp_path / "jobs.db").touch()
    store = SqliteStore(tmp_path / "jobs.db")
    add(store, "a")
    assert names(store) == ["a"]
    store.close()


def test_a_file_system_that_quietly_refuses_wal_is_refused(tmp_path, monkeypatch):
    """Without shared memory SQLite answers "delete", and says nothing."""
    named = file.uri
    monkeypatch.setattr(file, "uri", lambda path, options: named(path, f"{options}&vfs=unix-none"))
    with pytest.raises(StoreUnusable, match=r"does not allow WAL \(journal mode is delete\)"):
        SqliteStore(tmp_path / "jobs.db").open()


def test_who_opens_a_file_that_another_one_is_bringing_to_wal_waits_for_that(tmp_path, monkeypatch):
    path = tmp_path / "jobs.db"
    first = SqliteStore(path)
    first.open()
    first.close()
    other = sqlite3.connect(path, isolation_level=None)
    assert other.execute("pragma journal_mode=delete").fetchone() == ("delete",)
    other.execute("begin immediate")
    other.execute("update jobs set priority = 1")
    asked = []

    def pause(seconds):
        asked.append(seconds)
        if len(asked) == 3:
            other.execute("commit")
            other.close()

    monkeypatch.setattr("jobd.store.sqlite.sleep", pause)
    store = SqliteStore(path)
    store.open(create=False)
    assert len(asked) == 3
    assert store.connection().execute("pragma journal_mode").fetchone() == ("wal",)
    store.close()


def test_many_who_open_the_same_new_file_at_once_share_it(tmp_path):
    barrier = threading.Barrier(6, timeout=30)
    errors = []

    def begin(number):
        store = SqliteStore(tmp_path / "jobs.db")
        barrier.wait()
        try:
            add(store, str(number))
        except Exception as error:  # noqa: BLE001 - collected for the test
            errors.append(error)
        store.close()

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    store = SqliteStore(tmp_path / "jobs.db")
    assert names(store) == [str(number) for number in range(6)]
    store.close()


def test_a_file_that_another_fills_between_two_looks_is_not_taken_for_an_emptied_one(tmp_path, monkeypatch):
    first, path = SqliteStore(tmp_path / "jobs.db"), str(tmp_path / "jobs.db")
    real = file.size

    def size(path):
        found = real(path)
        monkeypatch.setattr(file, "size", real)
        add(first, "a")
        assert file.bytes_of(f"{path}-wal")
        return found

    monkeypatch.setattr(file, "size", size)
    (tmp_path / "jobs.db").touch()
    assert file.header(path, timeout_ms=1_000).version == SCHEMA_VERSION
    first.close()


def test_a_file_into_which_its_log_is_put_just_then_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    store, spoilt = SqliteStore(tmp_path / "jobs.db"), tmp_path / "spoilt.db"
    store.open()
    store.checkpoint(1)
    content = bytearray((tmp_path / "jobs.db").read_bytes())
    content[100:4096] = b"\xff" * 3996
    spoilt.write_bytes(content)
    real, looked_at = file.connect_to_read, []

    def connect(path, **options):
        looked_at.append(path)
        return real(str(spoilt) if len(looked_at) == 1 else path, **options)

    monkeypatch.setattr(file, "connect_to_read", connect)
    assert file.header(str(tmp_path / "jobs.db"), timeout_ms=1_000).version == SCHEMA_VERSION
    assert len(looked_at) == 2
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        file.header(str(spoilt), timeout_ms=1_000)
    store.close()


def test_threads_of_one_store_wait_until_its_file_is_checked(tmp_path):
    for number in range(10):
        store = SqliteStore(tmp_path / f"{number}.db")
        barrier = threading.Barrier(4, timeout=30)
        errors = []

        def begin(name, store=store, barrier=barrier, errors=errors):
            barrier.wait()
            try:
                add(store, name)
            except Exception as error:  # noqa: BLE001 - collected for the test
                errors.append(error)

        threads = [threading.Thread(target=begin, args=(str(name),)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert names(store) == ["0", "1", "2", "3"]
        store.close()


def test_a_creation_killed_midway_is_finished_by_the_next(tmp_path):
    half = sqlite3.connect(tmp_path / "jobs.db")
    half.execute("pragma auto_vacuum=incremental")
    half.execute("pragma journal_mode=wal")
    half.close()
    store = SqliteStore(tmp_path / "jobs.db")
    add(store, "a")
    assert names(store) == ["a"]
    store.close()


# -- one name ---------------------------------------------------------------------------------------------------------


def test_a_symlink_and_a_relative_path_lead_to_one_path(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").symlink_to("real/jobs.db")
    monkeypatch.chdir(tmp_path / "real")
    paths = [
        tmp_path / "real/jobs.db",
        "jobs.db",
        "../link/jobs.db",
        tmp_path / "file",
        str(tmp_path / "link/./jobs.db"),
    ]
    assert {SqliteStore(path).path for path in paths} == {str(tmp_path / "real/jobs.db")}
    first, second = SqliteStore(paths[1]), SqliteStore(paths[3])
    add(first, "a")
    monkeypatch.chdir("/")
    assert names(second) == ["a"]
    assert first.identity() == second.identity()
    first.close()
    second.close()


def test_a_path_of_any_characters_is_that_file(tmp_path):
    store = SqliteStore(tmp_path / "a b?mode=ro#%20é.db")
    add(store, "a")
    assert (tmp_path / "a b?mode=ro#%20é.db").stat().st_size > 0
    store.close()


def test_a_moved_or_replaced_file_has_another_identity(store, tmp_path):
    before = store.identity()
    assert before == store.identity()
    (tmp_path / "jobs.db").rename(tmp_path / "moved.db")
    assert store.identity() is None
    (tmp_path / "jobs.db").write_bytes(b"")
    assert store.identity() not in {before, None}


# -- refused, and not one byte changed --------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _what_was_there_before_stays():
    # Each refusal looks whether its connections are collected: the suite's other objects need no look every time.
    gc.collect()
    gc.freeze()


def bytes_of(folder):
    # Whoever only reads a file with a log must build its index; it says nothing that the log does not say.
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}


def assert_refused(path, sentence):
    before = bytes_of(path.parent)
    store = SqliteStore(path)
    for call in (store.open, lambda: names(store), lambda: add(store, "a")):
        with pytest.raises(StoreUnusable, match=sentence) as refusal:
            call()
        assert refusal.value.exit_code == 6
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    store.close()
    gc.collect()
    assert bytes_of(path.parent) == before


@pytest.fixture
def whole(tmp_path):
    """A jobd file with some pages, as its last connection left it."""
    store = SqliteStore(tmp_path / "jobs.db")
    for number in range(50):
        add(store, str(number) * 500)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.db"]
    return tmp_path / "jobs.db"


@pytest.mark.parametrize("content", [b"\x00" * 8192, b"garbage" * 2000, b"#!/bin/sh\n", b"S", b"SQLite format 3\x00"])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "jobs.db").write_bytes(content)
    assert_refused(tmp_path / "jobs.db", "not a database|damaged|truncated")


@pytest.mark.parametrize("keep", [1, 15, 99, 100, 1000, 4095, 4096, 10_000, 0.5, -1])
def test_a_truncated_file_is_refused(whole, keep):
    size = whole.stat().st_size
    os.truncate(whole, {0.5: size // 2, -1: size - 1}.get(keep, keep))
    assert_refused(whole, "not a database|damaged|truncated")


def test_an_overwritten_header_is_refused(whole):
    content = bytearray(whole.read_bytes())
    content[:16] = b"X" * 16
    whole.write_bytes(content)
    assert_refused(whole, "not a database")


def test_a_file_whose_last_page_is_still_in_the_log_is_not_truncated(tmp_path):
    store = SqliteStore(tmp_path / "jobs.db")
    for number in range(50):
        add(store, str(number) * 500)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{store.path}{suffix}", crashed / f"jobs.db{suffix}")
    store.close()
    after = SqliteStore(crashed / "jobs.db")
    assert len(names(after)) == 50
    after.close()


@pytest.mark.parametrize("main", [b"", None], ids=["empty", "missing"])
def test_a_log_without_its_file_is_left_alone(tmp_path, main):
    store = SqliteStore(tmp_path / "jobs.db")
    add(store, "the only copy")
    folder = tmp_path / "lost"
    folder.mkdir()
    shutil.copy(f"{store.path}-wal", folder / "jobs.db-wal")
    store.close()
    if main is not None:
        (folder / "jobs.db").write_bytes(main)
    assert_refused(folder / "jobs.db", "the file is empty but its -wal is not")


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("application", [0, 0x12345678])
@pytest.mark.parametrize("crashed", [False, True])
def test_the_database_of_another_application_is_refused(tmp_path, journal, application, crashed):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute(f"pragma journal_mode={journal}")
    other.execute(f"pragma application_id={application}")
    other.execute("create table mine (x)")
    other.execute("insert into mine values (1)")
    other.commit()
    folder = tmp_path / "folder"
    folder.mkdir()
    if not crashed:
        other.close()
    for path in list(tmp_path.glob("other.db*")):
        if not path.name.endswith("-shm"):
            shutil.copy(path, folder / path.name)
    assert_refused(folder / "other.db", "another application")
    other.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_a_newer_schema_is_refused(tmp_path, crashed):
    store = SqliteStore(tmp_path / "jobs.db")
    add(store, "a")
    store.connection().execute(f"pragma user_version={SCHEMA_VERSION + 1}")
    folder = tmp_path / "folder"
    folder.mkdir()
    if not crashed:
        store.close()
    for path in list(tmp_path.glob("jobs.db*")):
        if not path.name.endswith("-shm"):
            shutil.copy(path, folder / path.name)
    store.close()
    assert_refused(folder / "jobs.db", f"it has schema {SCHEMA_VERSION + 1}, this jobd knows {SCHEMA_VERSION}")


def test_what_is_not_a_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder", "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a regular file")
    with pytest.raises(StoreUnusable, match="No such file or directory"):
        SqliteStore(tmp_path / "nowhere" / "jobs.db").open()


NOT_ROOT = """
    import os, sys
    from jobd.errors import StoreUnusable
    from jobd.store.sqlite import SqliteStore
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    for path in sys.argv[1:]:
        store = SqliteStore(path)
        try:
            store.write(lambda c: c.execute("insert into passes (name) values ('a')"))
            print("written")
        except StoreUnusable as error:
            print(error.exit_code, path in str(error), len(str(error).splitlines()))
"""


def test_a_read_only_file_or_folder_is_refused_by_name(anybodys):
    paths = []
    for name, file_mode, folder_mode in (("file", 0o444, 0o777), ("folder", 0o666, 0o555), ("hidden", 0o600, 0o777)):
        folder = anybodys / name
        folder.mkdir()
        store = SqliteStore(folder / "jobs.db")
        store.open()
        store.close()
        (folder / "jobs.db").chmod(file_mode)
        folder.chmod(folder_mode)
        paths.append(folder / "jobs.db")
    empty = anybodys / "empty"
    empty.mkdir(mode=0o555)
    paths.append(empty / "jobs.db")
    before = {path: path.read_bytes() for path in paths[:3]}
    assert in_child(NOT_ROOT, *paths) == ["6 True 1"] * 4
    assert {path: path.read_bytes() for path in paths[:3]} == before


# -- connections ------------------------------------------------------------------------------------------------------


def descriptors(path):
    """Return how many descriptors of this process lead to the file or its companions."""
    return sum(found.path.startswith(path) for found in psutil.Process().open_files())


def test_a_connection_is_closed_with_its_thread(store):
    gc.disable()
    try:
        after = []
        for number in range(20):
            thread = threading.Thread(target=add, args=(store, str(number)))
            thread.start()
            thread.join()
            after.append(descriptors(store.path))
    finally:
        gc.enable()
    # SQLite keeps the first one for the next thread: closing it would drop the locks of this one.
    assert set(after) == {after[0]}
    assert len(names(store)) == 20


def test_each_thread_has_a_connection_of_its_own(store):
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.connection())) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len({id(connection) for connection in (*found, store.connection())}) == 4


def test_the_version_changes_when_another_connection_has_committed(store):
    before = store.version()
    add(store, "mine")
    assert store.version() == before
    thread = threading.Thread(target=add, args=(store, "other"))
    thread.start()
    thread.join()
    assert store.version() != before


FORKED = """
    import os, sys, threading
    from jobd.store.sqlite import SqliteStore
    store = SqliteStore(sys.argv[1])
    def add(name):
        store.write(lambda c: c.execute("insert into passes (name) values (?)", (name,)))
    add("before")
    parents = store.connection()
    child = os.fork()
    if child == 0:
        assert store.connection() is not parents
        add("child")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert store.connection() is parents
    add("parent")
    print(*sorted(r[0] for r in store.read(lambda c: c.execute("select name from passes").fetchall())))
    print(store.read(lambda c: c.execute("pragma integrity_check").fetchone()[0]))
"""


def test_a_forked_child_writes_through_a_connection_of_its_own(tmp_path):
    assert in_child(FORKED, tmp_path / "jobs.db") == ["before child parent", "ok"]


FORKED_AMID_A_QUERY = """
    import os, select, signal, sqlite3, sys, threading
    from jobd.store.sqlite import SqliteStore
    store = SqliteStore(sys.argv[1])
    inside = threading.Event()
    for_ever = "with recursive n(i) as (select inside() union all select i + 1 from n) select max(i) from n"

    def ask():
        connection = store.connection()
        connection.create_function("inside", 0, lambda: inside.set() or 1)
        connections.append(connection)
        try:
            connection.execute(for_ever).fetchone()
        except sqlite3.OperationalError as error:
            print(error)

    connections = []
    thread = threading.Thread(target=ask)
    thread.start()
    inside.wait(20)
    living, end = os.pipe()
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.close(end)
    ended, _, _ = select.select([living], [], [], 20)
    if not ended:
        os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
    connections[0].interrupt()
    thread.join()
"""


def test_a_child_forked_while_another_thread_is_inside_the_database_can_end(tmp_path):
    assert in_child(FORKED_AMID_A_QUERY, tmp_path / "jobs.db") == ["0", "interrupted"]


def test_a_child_forked_during_a_write_does_not_inherit_the_mutex(tmp_path):
    body = """
        import os, sys, signal, threading
        from jobd.store.sqlite import SqliteStore
        store = SqliteStore(sys.argv[1])
        inside, leave = threading.Event(), threading.Event()
        def work(connection):
            connection.execute("insert into passes (name) values ('thread')")
            inside.set()
            leave.wait(20)
        thread = threading.Thread(target=store.write, args=(work,))
        thread.start()
        inside.wait(20)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os.write(1, b"%d" % len(store.read(lambda c: c.execute("select 1 from passes").fetchall())))
            os.write(1, b" %s\\n" % str(store.mutex.acquire(timeout=1)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        leave.set()
        thread.join()
    """
    assert in_child(body, tmp_path / "jobs.db") == ["0 True"]


# -- the dialect ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(1, "a")],
        [(2**63 - 1, "é\n\x1b\u202e'\""), (None, "\x7f"), (-(2**63), "")],
        [(number, str(number)) for number in range(3_000)],
    ],
)
def test_rows_come_out_of_one_parameter_as_they_went_in(store, rows):
    def work(connection):
        source = f"from {store.rows('n', 'text')} as m"
        assert connection.execute(f"select n, text {source}", (store.pack(rows),)).fetchall() == rows
        return store.gather(connection, "m.n, length(m.text) as size", source, (store.pack(rows),))

    assert store.read(work) == [[number, len(text)] for number, text in rows]


def test_one_column_is_an_array_of_values(store):
    def work(connection):
        statement = f"select id from {store.rows('id')} as m"
        return connection.execute(statement, (store.pack([(3,), (1,)]),)).fetchall()

    assert store.read(work) == [(3,), (1,)]


def test_a_store_may_be_collected_while_all_are_looked_at(tmp_path):
    kept = {SqliteStore(tmp_path / f"{number}.db") for number in range(25)}
    usual = gc.get_threshold()
    gc.collect()
    gc.enable()
    try:
        for later in range(20):
            gone = SqliteStore(tmp_path / "gone.db")
            gone.upgrade = gone.open  # a cycle, which the collector alone ends
            del gone
            gc.set_threshold(gc.get_count()[0] + later)
            assert kept <= set(here.stores())
            gc.set_threshold(*usual)
    finally:
        gc.disable()
        gc.set_threshold(*usual)


def driver_error(name):
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", Transient),
        ("SQLITE_BUSY_SNAPSHOT", Transient),
        ("SQLITE_LOCKED", Transient),
        ("SQLITE_FULL", Transient),
        ("SQLITE_IOERR_WRITE", Transient),
        ("SQLITE_CONSTRAINT_UNIQUE", Permanent),
        ("SQLITE_TOOBIG", Permanent),
        ("SQLITE_CORRUPT", StoreUnusable),
        ("SQLITE_NOTADB", StoreUnusable),
        ("SQLITE_READONLY_DBMOVED", StoreUnusable),
        ("SQLITE_CANTOPEN", StoreUnusable),
        ("SQLITE_ERROR", sqlite3.OperationalError),
        ("SQLITE_MISUSE", sqlite3.OperationalError),
    ],
)
def test_an_error_of_the_driver_means_one_of_three_things_or_a_defect(tmp_path, name, kind):
    assert type(SqliteStore(tmp_path / "jobs.db").judge(driver_error(name))) is kind


def test_the_schema_is_found_and_names_every_table(store):
    tables = "select count(*) from sqlite_master where type = 'table' and name not like 'sqlite_%'"
    assert store.read(lambda c: c.execute(tables).fetchone()[0]) == schema().count("create table ")
