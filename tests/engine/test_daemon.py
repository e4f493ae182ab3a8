"""The life of a daemon: its row, its beats, how it leaves and how it comes back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from jobd import DaemonRunning, Jobd, StoreUnusable, clock, process
from jobd.engine.lock import probe
from jobd.engine.passes import PASSES
from jobd.store import daemons
from jobd.store.failures import Transient

SECONDS = 20

# Runs tasks until it is told to stop, or signalled; ``held`` says that it has begun and goes on when told.
RUNS = """
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
app = Jobd(path, **dict(pair.split("=") for pair in sys.argv[2:]))

@app.task
def echo(value):
    return value

@app.task
def held(value):
    say("begun", value)
    told()
    return value

@app.task
def hung(value):
    say("begun", value)
    threading.Event().wait()

app.run(workers=1)
say("left")
"""


# The same, and it says that it was asked to stop: what a handler does before that is not yet "no more".
SAYS_WHEN_STOPPED = RUNS.replace(
    "app.run(",
    """from jobd.engine.daemon import Daemon
real = Daemon.stop
Daemon.stop = lambda self, **how: (real(self, **how), say("stopping"))
app.run(""",
)


def jobd_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jobd-")]


@pytest.fixture
def names_of(rows):
    def statuses(job):
        return [row[0] for row in rows.all("select status from job_items where job_id = ? order by id", job.id)]

    return statuses


# -- its row ----------------------------------------------------------------------------------------------------------


def test_its_row_says_who_it_is(app, rows, held):
    began = clock.now()
    with app.daemon() as daemon:
        me = process.myself()
        row = rows.one(
            "select host, boot, pid, process_started_at, tasks, stopped_at from daemons where id = ?", daemon.id
        )
        assert tuple(row) == (me.host, me.boot, os.getpid(), me.started_at, json.dumps(["held", "shell"]), None)
        started, beat = rows.one("select started_at, heartbeat_at from daemons")
        assert began <= started == beat <= clock.now()
    assert rows.one("select stopped_at from daemons") >= started


def test_its_heart_beats(make_app, until):
    app = make_app(heartbeat=0.02)
    with app.daemon():
        seen = []

        def beats():
            seen.append(app.database.execute_sql("select heartbeats, heartbeat_at from daemons").fetchone())
            return seen[-1][0] >= 3

        until(beats)
    assert seen[-1][1] > seen[0][1]


def test_each_start_has_a_row_of_its_own(app, rows):
    for number in (1, 2):
        with app.daemon() as daemon:
            assert daemon.id == number
    assert rows.one("select count(*) from daemons where stopped_at is not null") == 2


def test_a_heart_that_finds_the_file_unusable_ends_the_daemon(make_app, monkeypatch):
    def damaged(*_, **__):
        raise StoreUnusable("the file is damaged")

    def leave():
        with make_app(heartbeat=0.02).daemon() as daemon:
            monkeypatch.setattr(daemons, "beat", damaged)
            assert daemon.join(SECONDS)

    with pytest.raises(StoreUnusable, match="damaged"):
        leave()


def test_beats_go_on_after_a_first_look_that_had_to_wait(make_app, monkeypatch, until):
    real, calls = daemons.requests, []

    def first_fails(store):
        calls.append(threading.current_thread().name)
        if calls.count("jobd-maintenance") == 1 and calls[-1] == "jobd-maintenance":
            raise Transient("I/O error", reason="I/O error", waited=0)
        return real(store)

    monkeypatch.setattr(daemons, "requests", first_fails)
    app = make_app(heartbeat=0.02)
    with app.daemon():
        until(lambda: app.database.execute_sql("select heartbeats from daemons").fetchone()[0] > 1)
    assert "jobd-maintenance" in calls


# -- in the program of somebody else ----------------------------------------------------------------------------------


def test_the_embedded_one_leaves_no_thread_and_gives_the_bell_back(app, held, gate, until):
    bell, before = app.store.wake, threading.active_count()
    gate.opened.set()
    with app.daemon(workers=3):
        assert app.store.wake is not bell
        held.submit(range(10)).wait(SECONDS)
    assert app.store.wake is bell
    # The threads of the pool end on their own word; the daemon's own have ended when its block has.
    assert {thread.name.rsplit("-", 1)[0] for thread in jobd_threads()} <= {"jobd-worker"}
    until(lambda: not jobd_threads())
    assert threading.active_count() == before


def test_a_start_that_fails_leaves_nothing_behind(app, path, monkeypatch, until):
    def fails(*_, **__):
        raise StoreUnusable("recover: the file is damaged")

    bell = app.store.wake
    monkeypatch.setitem(PASSES, "recover", PASSES["recover"]._replace(run=fails))
    with pytest.raises(StoreUnusable, match="damaged"), app.daemon():
        pytest.fail("it cannot start")
    until(lambda: not jobd_threads())
    assert not probe(str(path))
    assert not path.with_name("jobs.db.wake").exists()
    assert app.store.wake is bell
    monkeypatch.undo()
    with app.daemon():
        pass


def test_what_waits_for_a_slot_when_it_stops_goes_back_as_if_it_had_never_been_claimed(app, rows, until):
    """Claimed ahead and not begun: no event, and the attempt's number is given again."""
    entered, opened = threading.Event(), threading.Event()

    @app.task
    def quick(value):
        if value == "last":
            entered.set()
            assert opened.wait(SECONDS)

    with app.daemon(workers=1) as daemon:
        # The pace of the task has to be known before anything is claimed ahead.
        quick.submit(range(50)).wait(SECONDS)
        job = quick.submit(["last", *range(50)])
        assert entered.wait(SECONDS)
        claimed = rows.one("select max(items_running) from jobs where id = ?", job.id)
        daemon.stop()
        until(lambda: rows.one("select items_running from jobs where id = ?", job.id) == 1)
        opened.set()
    assert claimed > 1
    assert job.refresh().counts.completed == 1
    assert job.counts.queued == 50
    assert rows.item_events() == []
    left = rows.all(
        "select distinct attempt, daemon_id, started_at, interruptions from job_items where status='queued'"
    )
    assert [tuple(row) for row in left] == [(0, None, None, 0)]


def test_an_answer_that_comes_after_it_was_given_back_changes_nothing(make_app, rows, until):
    app = make_app(drain=0.01)
    entered, opened, ended = threading.Event(), threading.Event(), threading.Event()

    @app.task
    def late(value):
        entered.set()
        assert opened.wait(SECONDS)
        ended.set()
        return "late"

    with app.daemon(workers=1):
        job = late.submit([1])
        assert entered.wait(SECONDS)
    assert job.refresh().counts.queued == 1
    opened.set()
    assert ended.wait(SECONDS)
    until(lambda: not jobd_threads())
    assert job.refresh().counts.queued == 1
    assert rows.all("select * from results") == []


def test_join_says_when_the_time_ran_out(app):
    with app.daemon() as daemon:
        assert daemon.join(0.01) is False
        assert daemon.stopping is False
        daemon.stop()
        assert daemon.stopping is True
        assert daemon.join(SECONDS) is True


# -- signals ----------------------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_runs_keeps_the_queue_and_leaves_with_0(app, program, names_of, until, path):
    job = app.submit("held", ["runs", "waits"])
    daemon = program(SAYS_WHEN_STOPPED)
    assert daemon.hears("begun") == "runs"
    daemon.signal(signal.SIGTERM)
    daemon.hears("stopping")
    daemon.tell()
    daemon.hears("left")
    assert daemon.leaves() == 0
    assert names_of(job) == ["completed", "queued"]
    assert not probe(str(path))


def test_what_does_not_end_in_time_is_queued_again_with_an_event(app, program, names_of, rows):
    job = app.submit("hung", ["hangs", "waits"])
    daemon = program(RUNS, "drain=0.05")
    daemon.hears("begun")
    daemon.signal(signal.SIGTERM)
    daemon.hears("left")
    assert daemon.leaves() == 0
    assert names_of(job) == ["queued", "queued"]
    event = rows.one("select name, from_status, to_status, attempt, message from job_events where item_id is not null")
    assert tuple(event) == ("release", "running", "queued", 1, "the daemon stopped before it ended")
    assert rows.all("select attempt, interruptions, daemon_id from job_items") == [(1, 0, None), (0, 0, None)]
    assert rows.one("select stopped_at from daemons") is not None


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_does_not_wait_for_what_runs(app, program, names_of, numbers):
    job = app.submit("hung", ["hangs"])
    daemon = program(RUNS, "drain=1h")
    daemon.hears("begun")
    for number in numbers:
        daemon.signal(number)
    daemon.hears("left")
    assert daemon.leaves() == 0
    assert names_of(job) == ["queued"]


@pytest.mark.usefixtures("refused_at_once")
def test_a_stopped_process_keeps_its_lock_and_goes_on_when_it_is_continued(app, program, path, names_of):
    daemon = program(RUNS, "heartbeat=0.02", "recover_every=0.02", "grace=0.05")
    job = app.submit("held", ["runs"])
    daemon.hears("begun")
    daemon.stop()
    with pytest.raises(DaemonRunning, match=f"pid {daemon.pid}"), Jobd(path).daemon():
        pytest.fail("it lives")
    # Silent for longer than the grace, and not judged by it: it holds the lock.
    assert app.recover(check_only=True).changes == []
    daemon.signal(signal.SIGCONT)
    daemon.tell()
    assert job.wait(SECONDS).status == "completed"
    assert job.items()[0].attempt == 1


# -- coming back ------------------------------------------------------------------------------------------------------


def test_the_next_one_goes_on_at_once_after_a_sigkill(app, program, rows):
    job = app.submit("hung", ["runs"])
    first = program(RUNS)
    first.hears("begun")
    first.kill()
    assert rows.one("select status, daemon_id from job_items") == ("running", 1)
    began = time.monotonic()

    @app.task
    def hung(value):
        return "again"

    with app.daemon():
        assert job.wait(SECONDS).status == "completed"
        assert time.monotonic() - began < 5
    item = job.items()[0]
    assert (item.attempt, item.interruptions) == (2, 1)
    assert rows.item_events() == ["recover"]
    assert [result.value for result in job.results()] == ["again"]


def test_an_idle_daemon_uses_no_processor(program):
    daemon = program(
        """
        import resource
        app = Jobd(path)
        app.task(lambda value: value, name="echo")

        def used():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            return usage.ru_utime + usage.ru_stime

        with app.daemon():
            app.submit("echo", [1]).wait()
            before = used()
            threading.Event().wait(1)
            say("used", used() - before)
        """
    )
    assert float(daemon.hears("used")) < 0.005
