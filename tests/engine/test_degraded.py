"""The store cannot be written for a while: handlers go on, no outcome is dropped, and the log is not flooded."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from jobd import StoreBusy
from jobd.engine.sparingly import PERIOD, Sparingly
from jobd.store import daemons, sqlite
from jobd.store.failures import Transient

SECONDS = 20

LOCKS = """
import sqlite3
connection = sqlite3.connect(path, isolation_level=None)
while told() == "lock":
    connection.execute("begin exclusive")
    say("locked")
    told()
    connection.execute("rollback")
    say("free")
"""


class Elsewhere:
    """Another program that holds the write lock."""

    def __init__(self, program):
        self._program = program(LOCKS)

    def lock(self):
        self._program.tell("lock")
        self._program.hears("locked")

    def free(self):
        self._program.tell("free")
        self._program.hears("free")


@pytest.fixture
def elsewhere(app, program):
    app.store.version()
    return Elsewhere(program)


@pytest.fixture
def impatient(monkeypatch):
    """Five seconds of waiting for the lock are 20 ms."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)


@pytest.fixture
def troubles(caplog):
    def lines():
        return [
            record.getMessage()
            for record in caplog.records
            if record.name.startswith("jobd.") and record.levelno >= logging.WARNING
        ]

    return lines


def test_a_short_lock_of_another_program_is_invisible(app, held, gate, elsewhere, troubles, until, monkeypatch):
    refused, real = [], sqlite.sleep
    monkeypatch.setattr(sqlite, "sleep", lambda seconds: (refused.append(seconds), real(seconds)))
    with app.daemon(workers=2) as daemon:
        job = held.submit([1, 2])
        assert gate.entered.wait(SECONDS)
        elsewhere.lock()
        gate.opened.set()
        until(lambda: daemon._dispatcher._pools.waiting() == 0 and len(refused) > 3)
        elsewhere.free()
        assert job.wait(SECONDS).status == "completed"
        assert daemon.degraded is None
    assert troubles() == []


def test_handlers_go_on_and_what_they_leave_is_kept_and_written(impatient, app, elsewhere, rows, until, troubles):
    ran, entered, opened = [], threading.Event(), threading.Event()

    @app.task
    def work(value):
        if value == "held":
            entered.set()
            assert opened.wait(SECONDS)
        ran.append(value)
        return value

    with app.daemon(workers=1) as daemon:
        # Once their pace is known, others are claimed ahead of the held one.
        work.submit(range(30)).wait(SECONDS)
        job = work.submit(["held", *range(30)])
        assert entered.wait(SECONDS)
        claimed = rows.one("select items_running from jobs where id = ?", job.id)
        assert claimed > 1
        ran.clear()
        elsewhere.lock()
        opened.set()
        until(lambda: daemon.degraded == "locked")
        assert ran[0] == "held"
        # Reading goes on.
        assert app.job(job.id).counts.completed == 0
        elsewhere.free()
        assert job.wait(SECONDS).status == "completed"
        until(lambda: daemon.degraded is None)
    assert sorted(ran, key=str) == sorted(["held", *range(30)], key=str)
    assert rows.one("select max(attempt) from job_items") == 1
    assert rows.item_events() == []
    assert len(list(job.results())) == 31
    assert troubles() == [
        "degraded: locked; outcomes are kept until the store can be written",
        "the store can be written again",
    ]


def test_a_daemon_that_has_nothing_to_run_is_well_again_too(app, until, monkeypatch, troubles):
    """As a bare `jobd start` before its first job: it looks for requests, and has no task to claim for."""
    with app.daemon(workers=1) as daemon:
        dispatcher = daemon._dispatcher
        until(lambda: not dispatcher._wake._rung and dispatcher._wake._sleeping)
        attend, tried = dispatcher._rung, []

        def fails_once():
            tried.append(None)
            if len(tried) == 1:
                raise Transient("jobs.db: I/O error", reason="I/O error", waited=1.0)
            attend()

        monkeypatch.setattr(dispatcher, "_rung", fails_once)
        app.store.wake()
        until(lambda: len(tried) > 1 and daemon.degraded is None)
    assert troubles()[-1] == "the store can be written again"


def test_nothing_is_claimed_meanwhile(impatient, app, held, gate, elsewhere, rows, until):
    with app.daemon(workers=1) as daemon:
        job = held.submit(["first", "second"])
        assert gate.entered.wait(SECONDS)
        elsewhere.lock()
        gate.opened.set()
        until(lambda: daemon.degraded)
        assert rows.one("select items_running from jobs where id = ?", job.id) == 1
        assert set(daemon._dispatcher.registry) == {1}
        elsewhere.free()
        job.wait(SECONDS)


def test_it_says_so_at_most_twice_a_minute_whoever_is_in_trouble(
    impatient, make_app, gate, elsewhere, troubles, until, monkeypatch
):
    app, tried, real = make_app(heartbeat=0.02, checkpoint_every=0.02), [], daemons.beat
    monkeypatch.setattr(daemons, "beat", lambda *a, **k: (tried.append(1), real(*a, **k)))
    held = app.task(lambda value: gate.pass_through(), name="held")
    with app.daemon() as daemon:
        job = held.submit([1])
        assert gate.entered.wait(SECONDS)
        elsewhere.lock()
        before = len(tried)
        until(lambda: len(tried) > before + 4)
        gate.opened.set()
        until(lambda: daemon.degraded)
        elsewhere.free()
        assert job.wait(SECONDS).status == "completed"
        assert daemon.failure is None
    assert len(troubles()) == 2


def test_of_one_trouble_two_lines_a_minute_are_logged(caplog, monkeypatch):
    from jobd.engine import sparingly

    awake = [100.0]
    monkeypatch.setattr(sparingly.clock, "awake", lambda: awake[0])
    trouble = Sparingly(logging.getLogger("jobd.test"))
    for _ in range(100):
        trouble.warning("line %d", len(caplog.records))
        awake[0] += 1
    assert [record.getMessage() for record in caplog.records] == ["line 0", "line 1", "line 2", "line 3"]
    assert caplog.records[2].getMessage()
    assert PERIOD == 60


def test_progress_is_lost_and_a_result_waits_rather_than_fail_the_item(
    impatient, app, elsewhere, until, rows, monkeypatch
):
    entered, locked, tried = threading.Event(), threading.Event(), []
    real = sqlite.SqliteStore.begin
    monkeypatch.setattr(
        sqlite.SqliteStore, "begin", lambda *a: (tried.append(threading.current_thread().name), real(*a))[1]
    )

    @app.task
    def work(value, ctx):
        entered.set()
        assert locked.wait(SECONDS)
        ctx.progress(1, 2)
        tried.clear()
        ctx.save_result("saved")

    with app.daemon(workers=1):
        job = work.submit([1])
        assert entered.wait(SECONDS)
        elsewhere.lock()
        locked.set()
        until(lambda: tried.count("jobd-worker-1") >= 2)
        elsewhere.free()
        assert job.wait(SECONDS).status == "completed"
    assert [result.value for result in job.results()] == ["saved"]
    assert rows.one("select progress from job_items") is None


def test_a_second_signal_does_not_wait_for_the_lock_and_loses_nothing(
    impatient, app, held, gate, elsewhere, path, until
):
    kept = Path(f"{path}.rescue")

    def leave():
        with app.daemon(workers=2) as daemon:
            job = held.submit(["ends"])
            assert gate.entered.wait(SECONDS)
            elsewhere.lock()
            gate.opened.set()
            until(lambda: daemon.degraded)
            daemon.stop(drain=False)
            daemon.join(SECONDS / 2)
            elsewhere.free()
        pytest.fail(f"job {job.id}: it did not say that it could not write")

    with pytest.raises(StoreBusy, match="locked") as left:
        leave()
    assert left.value.exit_code == 5
    assert [json.loads(line)["value"] for line in kept.read_text().splitlines() if line] == ['"ends"']
    gate.entered.clear()
    with app.daemon():
        assert app.job("@last").wait(SECONDS).status == "completed"
    assert not gate.entered.is_set()
    assert not kept.exists()


def test_the_row_says_that_it_is_degraded(app, rows):
    with app.daemon() as daemon:
        daemon._dispatcher.degraded = "disk full"
        daemon._upkeep.heartbeat()
        assert json.loads(rows.one("select state from daemons"))["degraded"] == "disk full"
        daemon._dispatcher.degraded = None
        daemon._upkeep.heartbeat()
        assert "degraded" not in json.loads(rows.one("select state from daemons"))


# -- the disk is full -------------------------------------------------------------------------------------------------

# As much as the log has now, and a little more; then as much as there is.
FULL = """
import resource
logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")
app = Jobd(path, heartbeat=0.05, checkpoint_bytes=200_000, checkpoint_every=0.05)

@app.task
def large(value):
    return "x" * 20_000

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

job = large.submit(range(100))
limit(max(os.stat(path).st_size, os.stat(path + "-wal").st_size) + 100_000)
with app.daemon(workers=2) as daemon:
    while daemon.degraded is None and daemon.failure is None:
        threading.Event().wait(0.002)
    say("degraded", daemon.degraded)
    say("reads", app.job(job.id).status)
    told()
    limit(resource.RLIM_INFINITY)
    say("ended", job.wait(20).status)
    say("failure", daemon.failure)
"""


def test_a_full_disk_loses_nothing_and_it_goes_on_by_itself_when_there_is_room(program, app, rows):
    full = program(FULL)
    assert full.hears("degraded") in {"disk full", "I/O error"}
    assert full.hears("reads") == "running"
    full.tell()
    assert full.hears("ended") == "completed"
    assert full.hears("failure") == "None"
    assert full.leaves() == 0
    assert rows.one("select items_completed from jobs") == 100
    assert rows.one("select count(*), min(length(value)) from results") == (100, 20_002)
    assert rows.one("select max(attempt) from job_items") == 1
    log = [line for line in full.log().splitlines() if line.startswith("jobd.")]
    assert 1 <= len(log) <= 2, log
    assert app.doctor().exit_code == 0
