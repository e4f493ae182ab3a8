"""Jobs whose clock runs and jobs whose clock stands, under a real daemon whose time a test moves."""

from __future__ import annotations

import contextlib
import threading

import pytest
from kit.beats import WITHOUT_BEATS

from jobd import clock
from jobd.engine.passes import PASSES
from jobd.store.invariants import check

SECONDS = 20
MINUTE, HOUR = 60, 3_600
NIGHT = 8 * HOUR
BEATS = sum(found.every is not None for found in PASSES.values())


@pytest.fixture
def app(make_app, jobd_clock):
    """Without beats: a test runs the passes itself."""
    del jobd_clock
    return make_app(**WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


class Held:
    """A task whose handlers wait, each at its attempt's own gate, until the test lets them all go."""

    def __init__(self, app, name, **policy):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

        @app.task(name=name, **policy)
        def held(value):
            self.entered.release()
            assert self.opened.wait(SECONDS)
            return value

        self.task = held

    def wait_for(self, count=1):
        for _ in range(count):
            assert self.entered.acquire(timeout=SECONDS)


@pytest.fixture
def held(app):
    made = []

    def make(name="held", **policy):
        made.append(Held(app, name, **policy))
        return made[-1]

    yield make
    for one in made:
        one.opened.set()


@pytest.fixture
def daemon(app, rows, until):
    """Run a daemon, and let the passes that are due at its start end: a late one would do what a test asks for."""

    @contextlib.contextmanager
    def run(workers=1):
        with app.daemon(workers=workers) as daemon:
            until(lambda: rows.one("select count(*) from passes where finished_at is not null") == BEATS)
            yield daemon

    return run


def events(job, name):
    return [event.message for event in job.events(items=True) if event.name == name]


def test_a_job_that_hangs_times_out_goes_on_and_fails_at_the_third_time(app, daemon, held, jobd_clock, until):
    hangs = held(job_timeout="30m")
    with daemon(workers=1) as running:
        job = hangs.task.submit(["a", "b"])
        hangs.wait_for()
        for count in (1, 2):
            assert job.refresh().timeout_at is not None
            jobd_clock.move(seconds=30 * MINUTE - 1)
            assert running._upkeep.run_pass("time_out").changes == []
            jobd_clock.move(seconds=1)
            report = running._upkeep.run_pass("time_out")
            assert report.counts == {"timed_out": 1, "interrupted": 1}
            if count == 1:
                hangs.wait_for()
            assert job.refresh().retry_count == count
        until(lambda: running.degraded)
        assert running.degraded == "2 threads hang"
        # Nothing of it runs now: for want of a slot no job fails.
        jobd_clock.move(seconds=NIGHT)
        assert running._upkeep.run_pass("time_out").changes == []
        hangs.opened.set()
        assert job.wait(SECONDS).status == "completed"
        assert job.timeout_at is None
        until(lambda: len(events(job, "late")) == 2)
    assert events(job, "time_out") == [
        "no progress for 30 m", "its job made no progress for 30 m",
        "no progress for 30 m", "its job made no progress for 30 m",
    ]  # fmt: skip


def test_a_job_that_has_timed_out_too_often_fails_though_its_handlers_hang_still(app, daemon, held, jobd_clock, until):
    hangs = held(job_timeout="30m")
    with daemon(workers=2) as running:
        job = hangs.task.submit(["a"])
        other = app.task(name="other")(lambda value: value).submit([1])
        for _ in range(3):
            hangs.wait_for()
            jobd_clock.move(seconds=30 * MINUTE)
            running._upkeep.run_pass("time_out")
        until(lambda: job.refresh().status == "failed")
        assert other.wait(SECONDS).status == "completed"
        hangs.opened.set()
        until(lambda: len(events(job, "late")) == 3)
    assert (job.last_error, job.retry_count) == ("timed out: no progress for 30 m", 2)
    assert job.counts.cancelled == 1


def test_a_suspend_of_a_night_touches_nothing(app, daemon, held, jobd_clock):
    limited, handlers = held("limited", timeout="5m"), held(job_timeout="30m")
    with daemon(workers=2) as running:
        item, job = limited.task.submit(["a"]), handlers.task.submit(["a", "b"])
        limited.wait_for()
        handlers.wait_for()
        jobd_clock.move(seconds=4 * MINUTE)
        before = job.refresh().timeout_at
        jobd_clock.suspend(seconds=NIGHT)
        app.store.wake()
        for name in ("recover", "time_out", "reconcile"):
            assert running._upkeep.run_pass(name).changes == []
        running._upkeep.heartbeat()
        after = job.refresh()
        assert after.timeout_at - before == pytest.approx(NIGHT * 1_000, abs=5_000)
        assert (after.counts.running, after.retry_count, running._dispatcher.abandoned) == (1, 0, 0)
        limited.opened.set()
        assert item.wait(SECONDS).status == "completed"
        # It has what was left of its time.
        jobd_clock.move(seconds=30 * MINUTE)
        assert running._upkeep.run_pass("time_out").counts["timed_out"] == 1
        handlers.opened.set()
        job.wait(SECONDS)


@pytest.mark.parametrize("seconds", [-2 * HOUR, -50 * 365 * 24 * HOUR, 2 * HOUR])
def test_a_clock_that_is_set_touches_nothing(app, daemon, held, jobd_clock, seconds):
    handlers = held(job_timeout="30m")
    with daemon(workers=1) as running:
        job = handlers.task.submit(["a"])
        handlers.wait_for()
        jobd_clock.suspend(seconds=seconds)
        for _ in range(2):
            for name in ("recover", "time_out", "reconcile"):
                assert running._upkeep.run_pass(name).changes == []
        jobd_clock.suspend(seconds=-seconds)
        assert running._upkeep.run_pass("time_out").changes == []
        handlers.opened.set()
        assert job.wait(SECONDS).status == "completed"


def test_a_night_without_a_daemon_touches_nothing(app, daemon, held, jobd_clock, rows):
    handlers = held(job_timeout="30m")
    with daemon(workers=1) as running:
        job = handlers.task.submit(["a", "waits"])
        handlers.wait_for()
        jobd_clock.move(seconds=20 * MINUTE)
        running._upkeep.heartbeat()
        running.stop(drain=False)
        assert running.join(SECONDS)
        handlers.opened.set()
    jobd_clock.move(seconds=NIGHT)
    deadline = rows.one("select timeout_at from jobs")
    assert app.time_out().changes == []
    handlers.opened.clear()
    with daemon(workers=1) as running:
        handlers.wait_for()
        assert running._upkeep.run_pass("time_out").changes == []
        assert rows.one("select timeout_at from jobs") > deadline
        jobd_clock.move(seconds=30 * MINUTE - 1)
        assert running._upkeep.run_pass("time_out").changes == []
        assert job.refresh().retry_count == 0
        handlers.opened.set()
        assert job.wait(SECONDS).status == "completed"


def test_what_waits_has_its_time_still_after_a_night_without_a_daemon(app, daemon, jobd_clock, rows):
    app.task(name="work")(lambda value: value)
    now = clock.now()
    with daemon():
        pass
    job_id = waiting(rows, now, deadline_at=now + MINUTE * 1_000)
    jobd_clock.move(seconds=NIGHT)
    assert app.time_out().changes == []
    with daemon(workers=1) as running:
        assert running._upkeep.run_pass("time_out").changes == []
        jobd_clock.move(seconds=2 * MINUTE)
        assert running._upkeep.run_pass("time_out").counts == {"failed": 1}
    assert rows.items(job_id) == ["failed"]


def waiting(rows, now, *, deadline_at):
    """Add a job whose one item waits, with the events that led to it."""
    job_id = rows.job(["waiting"], created_at=now, sealed_at=now, status_updated_at=now, status="queued")
    rows.change("update jobs set status='running', started_at=?, progress_at=?, version=2", now, now)
    rows.change(
        "insert into job_events (job_id, name, from_status, to_status, at, actor)"
        " values (?, 'start', 'queued', 'running', ?, 'test')",
        job_id, now,
    )  # fmt: skip
    rows.change("update job_items set started_at=?, deadline_at=?", now, deadline_at)
    return job_id


def test_a_job_that_others_starve_is_left_alone(app, daemon, held, jobd_clock):
    """Its one free slot is taken by another job for hours; then it has the whole time."""
    greedy, starved = held("greedy"), held("starved", job_timeout="30m")
    with daemon(workers=1) as running:
        first = greedy.task.submit([1])
        greedy.wait_for()
        job = starved.task.submit([1])
        for _ in range(6):
            jobd_clock.move(seconds=HOUR)
            assert running._upkeep.run_pass("time_out").changes == []
        greedy.opened.set()
        starved.wait_for()
        jobd_clock.move(seconds=30 * MINUTE - 1)
        assert running._upkeep.run_pass("time_out").changes == []
        jobd_clock.move(seconds=1)
        assert running._upkeep.run_pass("time_out").counts == {"timed_out": 1, "interrupted": 1}
        starved.opened.set()
        assert job.wait(SECONDS).status == "completed"
        assert first.refresh().retry_count == 0


def test_a_pause_stops_the_clock_of_a_job(app, daemon, held, jobd_clock):
    handlers = held(job_timeout="30m")
    with daemon(workers=1) as running:
        job = handlers.task.submit(["a", "b"])
        handlers.wait_for()
        jobd_clock.move(seconds=20 * MINUTE)
        job.pause()
        assert (job.timeout_at, job.health) == (None, "paused")
        jobd_clock.move(seconds=NIGHT)
        assert running._upkeep.run_pass("time_out").changes == []
        job.unpause()
        jobd_clock.move(seconds=10 * MINUTE - 1)
        assert running._upkeep.run_pass("time_out").changes == []
        jobd_clock.move(seconds=2)
        assert running._upkeep.run_pass("time_out").counts["timed_out"] == 1
        handlers.opened.set()
        assert job.wait(SECONDS).status == "completed"


def test_a_job_without_a_time_out_of_its_own_may_take_as_long_as_it_takes(app, daemon, held, jobd_clock):
    handlers = held()
    with daemon(workers=1) as running:
        job = handlers.task.submit(["a"])
        handlers.wait_for()
        for _ in range(4):
            jobd_clock.move(seconds=NIGHT)
            assert running._upkeep.run_pass("time_out").changes == []
        assert (job.refresh().timeout_at, job.retry_count) == (None, 0)
        handlers.opened.set()
        assert job.wait(SECONDS).status == "completed"


def test_what_nobody_has_told_the_daemon_of_is_seen_to_in_the_end(app, daemon, jobd_clock, monkeypatch):
    """Nothing runs, a slot is free, and the dispatcher believes that there is nothing to do."""
    done = threading.Event()
    app.task(name="work")(lambda _: done.set())
    with daemon(workers=1) as running:
        dispatcher = running._dispatcher
        app.submit("work", [0]).wait(SECONDS)
        done.clear()
        with monkeypatch.context() as deaf:
            deaf.setattr(dispatcher._pools, "claim", lambda *_: ([], 0))
            deaf.setattr(type(dispatcher._pools), "wanted", lambda _: False)
            deaf.setattr(
                type(dispatcher._pools), "free_since", property(lambda pools: pools._all()[0].claims._full_until)
            )
            job = app.submit("work", [1])
            jobd_clock.move(seconds=29 * MINUTE)
            assert running._upkeep.run_pass("time_out").changes == []
            jobd_clock.move(seconds=2 * MINUTE)
            report = running._upkeep.run_pass("time_out")
            assert [change.evidence for change in report.changes] == ["nothing of it has run for 30 m; time-out 1 of 2"]
        app.store.wake()
        assert job.wait(SECONDS).status == "completed"


def test_the_passes_of_a_day_are_run_by_a_program_that_has_its_clock_running_in_between(app, jobd_clock, rows):
    app.task(name="work")(lambda value: value)
    now = clock.now()
    app.drain()
    waiting(rows, now, deadline_at=now + MINUTE * 1_000)
    jobd_clock.move(seconds=24 * HOUR)
    (report,) = [report for report in app.tick() if report.name == "time_out"]
    assert report.counts == {"failed": 1}


@pytest.fixture
def stopped(jobd_clock, monkeypatch):
    """Stop the process as Ctrl-Z does: none of its threads goes on, and every clock does."""
    really, away = clock.real, [0.0]
    monkeypatch.setattr(clock, "real", lambda: really() + away[0])

    def stop(seconds):
        away[0] += seconds
        jobd_clock.move(seconds=seconds)

    return stop


def test_a_process_that_was_stopped_for_a_night_touches_nothing(app, daemon, held, stopped, jobd_clock, until):
    limited, handlers = held("limited", timeout="5m"), held(job_timeout="30m")
    with daemon(workers=2) as running:
        item, job = limited.task.submit(["a"]), handlers.task.submit(["a"])
        limited.wait_for()
        handlers.wait_for()
        jobd_clock.move(seconds=4 * MINUTE)
        stopped(NIGHT)
        # Whoever of them comes first.
        assert running._upkeep.run_pass("time_out").changes == []
        until(lambda: running._dispatcher._arrivals._standstill._total >= NIGHT)
        assert running._upkeep.run_pass("time_out").changes == []
        assert (item.refresh().status, running._dispatcher.abandoned) == ("running", 0)
        jobd_clock.move(seconds=MINUTE + 5)
        app.store.wake()
        until(lambda: item.refresh().status == "failed")
        # A stop is noticed to the second.
        jobd_clock.move(seconds=25 * MINUTE + 5)
        assert running._upkeep.run_pass("time_out").counts["timed_out"] == 1
        handlers.opened.set()
        assert job.wait(SECONDS).status == "completed"
