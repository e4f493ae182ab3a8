"""The log stays small: emptied by the daemon alone, by size and by time, and later where a reader pins it."""

from __future__ import annotations

import itertools
import json
import logging
import sqlite3
import threading

import pytest

from jobd import clock
from jobd.engine.sparingly import Sparingly
from jobd.engine.wal import Wal
from jobd.maintenance import checkpoint as maintenance
from jobd.maintenance.checkpoint import checkpoint
from jobd.store.connections import Connections
from jobd.store.failures import Transient

SECONDS = 20
KIB = 1024

READER = """
import sqlite3
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("begin")
connection.execute("select count(*) from jobs").fetchall()
say("reads")
told()
connection.execute("rollback")
connection.close()
say("closed")
"""


@pytest.fixture
def fill(app, rows):
    """Write about so many bytes into the log, which is empty at first."""
    checkpoint(app.store)

    def write(size):
        before = app.store.wal_bytes()
        while app.store.wal_bytes() < before + size:
            rows.change("insert into passes (name, report) values (hex(randomblob(8)), zeroblob(40000))")

    return write


@pytest.fixture
def reader(app, program):
    """A program that has begun to read and does not end; ``close`` ends it."""

    class Reader:
        def __init__(self):
            self._program = program(READER)
            self._program.hears("reads")

        def close(self):
            self._program.tell()
            self._program.hears("closed")

    app.store.version()
    return Reader


@pytest.fixture
def trouble():
    return Sparingly(logging.getLogger("jobd.test"))


@pytest.fixture
def statements(monkeypatch):
    """Every statement of every connection of this process, with its thread."""
    seen, real = [], Connections._open

    def connect(connections):
        connection = real(connections)
        connection.set_trace_callback(lambda sql: seen.append((threading.current_thread().name, sql)))
        return connection

    monkeypatch.setattr(Connections, "_open", connect)
    return seen


# -- when -------------------------------------------------------------------------------------------------------------


def test_past_its_size_it_is_emptied_after_the_commit(app, store, fill, trouble):
    wal = Wal(store, 200 * KIB, trouble)
    fill(100 * KIB)
    wal.after_commit()
    assert store.wal_bytes() >= 100 * KIB
    fill(150 * KIB)
    wal._not_before = 0.0
    wal.after_commit()
    assert store.wal_bytes() == 0


def test_the_beat_empties_it_whatever_its_size_but_for_next_to_nothing(store, fill, trouble, monkeypatch):
    ran = []
    monkeypatch.setattr("jobd.engine.wal.checkpoint", lambda s: (ran.append(1), checkpoint(s))[1])
    wal = Wal(store, 10**9, trouble)
    wal.beat()
    fill(100 * KIB)
    wal.beat()
    assert store.wal_bytes() == 0
    wal.beat()
    assert len(ran) == 1


def test_a_daemon_keeps_it_by_size_under_load(make_app):
    app, sizes = make_app(checkpoint_bytes=200_000), []

    @app.task
    def large(value):
        sizes.append(app.store.wal_bytes())
        return "x" * 4_000

    with app.daemon(workers=2):
        large.submit(range(1_500)).wait(SECONDS)
    # 6 MB and more went through it; it passes its limit by what a transaction or two hold.
    assert max(sizes) < 3_000_000
    assert [1 for before, after in itertools.pairwise(sizes) if after < before]


def test_a_daemon_keeps_it_by_time_when_nothing_else_does(make_app, fill, until, monkeypatch):
    by, app = [], make_app(checkpoint_every=0.05)
    monkeypatch.setattr(
        "jobd.engine.wal.checkpoint", lambda s: (by.append(threading.current_thread().name), checkpoint(s))[1]
    )
    with app.daemon():
        fill(200 * KIB)
        until(lambda: app.store.wal_bytes() < 64 * KIB)
        # The beat, and not the dispatcher after a commit: the log was far below its size.
        assert set(by) == {"jobd-maintenance"}


def test_leaving_empties_it(app, fill):
    with app.daemon():
        fill(200 * KIB)
        assert app.store.wal_bytes() > 200 * KIB
    assert app.store.wal_bytes() < 64 * KIB


# -- a reader in the way ----------------------------------------------------------------------------------------------


def test_a_pinned_log_is_tried_again_later_and_later_still(store, fill, reader, trouble, jobd_clock, monkeypatch):
    monkeypatch.setattr(maintenance, "TIMEOUT_MS", 1)
    wal, tried, real = Wal(store, 100 * KIB, trouble), [], checkpoint
    monkeypatch.setattr("jobd.engine.wal.checkpoint", lambda s: (tried.append(clock.awake()), real(s))[1])
    pin = reader()
    fill(200 * KIB)
    for _ in range(20_000):
        wal.after_commit()
        jobd_clock.move(seconds=0.01)
    assert wal.pinned
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=0.1)
    pin.close()
    jobd_clock.move(seconds=60)
    wal.after_commit()
    assert store.wal_bytes() == 0
    assert not wal.pinned
    # And from the beginning: what comes next waits for nothing.
    fill(200 * KIB)
    jobd_clock.move(seconds=0.1)
    wal.after_commit()
    assert store.wal_bytes() == 0


def test_a_reader_keeps_no_writer_and_its_end_bounds_the_log_again(make_app, reader, rows, until, monkeypatch):
    monkeypatch.setattr(maintenance, "TIMEOUT_MS", 20)
    app = make_app(checkpoint_bytes=100_000, checkpoint_every=0.05, heartbeat=0.02)
    large = app.task(lambda value: "x" * 20_000, name="large")
    with app.daemon(workers=2):
        pin = reader()
        assert large.submit(range(50)).wait(SECONDS).status == "completed"
        assert app.store.wal_bytes() > 1_000_000
        until(lambda: json.loads(rows.one("select state from daemons")).get("wal_pinned"))
        pin.close()
        until(lambda: app.store.wal_bytes() < 64 * KIB)
        until(lambda: "wal_pinned" not in json.loads(rows.one("select state from daemons")))


def test_a_checkpoint_waits_for_a_reader_no_longer_than_its_time(store, fill, reader):
    pin = reader()
    fill(100 * KIB)
    began = clock.awake()
    report = checkpoint(store)
    assert clock.awake() - began < 2
    assert report.counts["busy"] == 1
    assert report.counts["bytes"] == store.wal_bytes() > 0
    pin.close()
    assert checkpoint(store).counts == {"busy": 0, "pages": 0, "bytes": 0}
    # The waiting of the writers is as it was.
    assert store.connection().execute("pragma busy_timeout").fetchone()[0] == 5_000


def test_a_full_disk_is_one_more_reason_for_later(store, fill, jobd_clock, monkeypatch, caplog, trouble):
    def full(_):
        raise Transient("disk full", reason="disk full", waited=0.0)

    monkeypatch.setattr("jobd.engine.wal.checkpoint", full)
    wal = Wal(store, 50 * KIB, trouble)
    fill(100 * KIB)
    for _ in range(1_000):
        wal.after_commit()
        jobd_clock.move(seconds=0.05)
    assert wal.pinned
    assert len(caplog.records) == 2
    monkeypatch.undo()
    wal.beat()
    assert store.wal_bytes() == 0


# -- only so ----------------------------------------------------------------------------------------------------------


def test_only_the_daemon_checkpoints_and_only_truncating(statements, make_app):
    app = make_app(checkpoint_bytes=200_000, heartbeat=0.02, checkpoint_every=0.05)
    client = make_app()

    @app.task
    def large(value, ctx):
        ctx.progress(1, 2)
        return "x" * 20_000

    with app.daemon(workers=2):
        client.submit("large", range(100)).wait(SECONDS)
    client.recover()
    pragmas = [(thread, sql.lower()) for thread, sql in statements if sql.lower().startswith("pragma")]
    ran = [(thread, sql) for thread, sql in pragmas if "checkpoint" in sql]
    assert {sql for _, sql in ran} == {"pragma wal_checkpoint(truncate)"}
    threads = {thread for thread, _ in ran}
    assert threads <= {"jobd-dispatcher", "jobd-maintenance"}
    assert "jobd-dispatcher" in threads


def test_no_connection_of_any_thread_checkpoints_by_itself(app, store):
    found = []

    @app.task
    def look(value):
        found.append(store.connection().execute("pragma wal_autocheckpoint").fetchone()[0])

    with app.daemon(workers=2):
        look.submit(range(4)).wait(SECONDS)
    found.append(store.connection().execute("pragma wal_autocheckpoint").fetchone()[0])
    assert set(found) == {0}


def test_without_a_daemon_the_log_grows_past_where_sqlite_would_empty_it(app, store, fill):
    """By its own default SQLite checkpoints after 1,000 pages; a client of jobd never does."""
    fill(6_000 * KIB)
    fill(1_000 * KIB)
    assert store.wal_bytes() > 7_000 * KIB
    other = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True)
    assert other.execute("pragma page_count").fetchone()[0] > 1_000
    other.close()
