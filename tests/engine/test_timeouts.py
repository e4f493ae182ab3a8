"""Attempts that take too long, in a real daemon: the item is settled, the slot another's, a late answer refused."""

from __future__ import annotations

import threading

import pytest
from kit.beats import WITHOUT_BEATS

from jobd import clock
from jobd.engine import turn as turning
from jobd.engine.claims import Claims
from jobd.engine.overdue import NEVER, Overdue
from jobd.engine.runner import Attempt
from jobd.engine.threads import Threads
from jobd.errors import Cancelled, Lost
from jobd.maintenance.time_out import Hung
from jobd.policy import Policy
from jobd.store.claim import Claimed, Lane
from jobd.store.failures import Transient
from jobd.store.invariants import check

SECONDS = 20
TIMEOUT = 300


@pytest.fixture
def app(make_app, jobd_clock):
    """Without the beats that write: nothing but what is under test wakes the dispatcher."""
    del jobd_clock
    return make_app(**WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


class Handlers:
    """A task with a time-out, each of whose attempts waits until it is let go, and says what became of it."""

    def __init__(self, app, **policy):
        self.entered = threading.Semaphore(0)
        self.gates = {}
        self.said = []
        self.spoken = threading.Semaphore(0)

        @app.task(timeout=TIMEOUT, **policy)
        def slow(value, ctx):
            gate = self.gates.setdefault((value, ctx.attempt), threading.Event())
            self.entered.release()
            assert gate.wait(SECONDS)
            for act in (lambda: ctx.progress(1), lambda: ctx.save_result(1), ctx.raise_if_cancelled):
                try:
                    act()
                except (Lost, Cancelled) as error:
                    self.said.append(type(error))
            self.spoken.release()
            return value

        self.task = slow

    def wait_for(self, count=1):
        for _ in range(count):
            assert self.entered.acquire(timeout=SECONDS)

    def let_go(self, value, attempt=1):
        self.gates[value, attempt].set()
        assert self.spoken.acquire(timeout=SECONDS)

    def close(self):
        for gate in self.gates.values():
            gate.set()


@pytest.fixture
def handlers(app):
    handlers = Handlers(app)
    yield handlers
    handlers.close()


@pytest.fixture
def passes(app, jobd_clock):
    """Let time pass, and wake who sleeps."""

    def passes(seconds):
        jobd_clock.move(seconds=seconds)
        app.store.wake()

    return passes


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jobd-worker-")]


def events(job, name):
    return [
        (event.item_key, event.from_status, event.to_status) for event in job.events(items=True) if event.name == name
    ]


def test_a_handler_that_hangs_fails_its_item_at_the_timeout_and_its_late_answer_is_refused_with_an_event(
    app, handlers, passes, until
):
    with app.daemon(workers=1) as daemon:
        job = handlers.task.submit(["hangs", "other"])
        handlers.wait_for()
        passes(TIMEOUT - 1)
        until(lambda: not daemon._dispatcher._wake._rung)
        assert job.refresh().counts.running == 1
        passes(1)
        handlers.wait_for()
        item = job.item("hangs")
        assert (item.status, item.error_type, item.error) == ("failed", "TimeOut", "timed out after 5 m")
        assert item.failures == 1
        assert job.refresh().last_error == "TimeOut: timed out after 5 m"
        assert events(job, "time_out") == [("hangs", "running", "failed")]
        assert (daemon._dispatcher.abandoned, daemon.degraded) == (1, None)
        handlers.let_go("other")
        assert job.wait(SECONDS).counts.completed == 1
        handlers.let_go("hangs")
        until(lambda: events(job, "late"))
        assert events(job, "late") == [("hangs", "failed", "failed")]
        assert handlers.said == [Lost, Lost, Cancelled]
        until(lambda: len(workers()) == 1)
        assert daemon._dispatcher.abandoned == 0
    job.refresh()
    assert (job.status, job.counts.failed, job.counts.completed) == ("failed", 1, 1)
    assert [result.value for result in job.results()] == ["other"]


def test_beyond_twice_the_pool_the_daemon_says_that_threads_hang_until_they_come_back(app, handlers, passes, until):
    with app.daemon(workers=2) as daemon:
        job = handlers.task.submit(range(6))
        for _ in range(2):
            handlers.wait_for(2)
            passes(TIMEOUT)
        until(lambda: daemon.degraded == "4 threads hang")
        assert len(workers()) == 4
        daemon._upkeep.heartbeat()
        state = app.daemon_status().state
        assert (state["degraded"], state["abandoned_threads"]) == ("4 threads hang", 4)
        assert daemon._dispatcher.workers == 0
        assert job.refresh().counts.queued == 2
        handlers.let_go(0)
        handlers.wait_for()
        assert daemon.degraded == "3 threads hang"
        handlers.let_go(1)
        handlers.wait_for()
        assert daemon.degraded is None
        handlers.let_go(2)
        handlers.let_go(3)
        until(lambda: len(workers()) == 2)
        handlers.let_go(4)
        handlers.let_go(5)
        job.wait(SECONDS)
        daemon._upkeep.heartbeat()
        assert "abandoned_threads" not in app.daemon_status().state
    assert (job.counts.failed, job.counts.completed) == (4, 2)
    assert len(events(job, "late")) == 4


def test_a_late_answer_leaves_a_newer_attempt_of_its_item_alone(app, handlers, passes, until):
    with app.daemon(workers=1) as daemon:
        job = handlers.task.submit(["hangs"])
        handlers.wait_for()
        passes(TIMEOUT)
        until(lambda: job.refresh().status == "failed")
        job.retry()
        handlers.wait_for()
        handlers.let_go("hangs", attempt=1)
        until(lambda: events(job, "late"))
        assert (job.item("hangs").status, len(daemon._dispatcher.registry)) == ("running", 1)
        handlers.let_go("hangs", attempt=2)
        assert job.wait(SECONDS).status == "completed"
    assert [(item.attempt, item.status) for item in job.items()] == [(2, "completed")]


def test_what_it_had_logged_until_its_timeout_is_kept_and_nothing_after_it(app, passes, gate, until):
    @app.task(timeout=TIMEOUT)
    def logs(_, ctx):
        ctx.log.info("before")
        gate.pass_through()
        ctx.log.info("after")

    with app.daemon(workers=1):
        job = logs.submit(["a"])
        assert gate.entered.wait(SECONDS)
        passes(TIMEOUT)
        until(lambda: job.refresh().status == "failed")
        kept = job.output("a")
        gate.opened.set()
        until(lambda: events(job, "late"))
    assert kept.text.endswith("INFO before")
    assert job.output("a") == kept


def test_a_handler_that_hangs_in_what_it_logs_keeps_nobody_waiting(app, passes, gate, until):
    class Hangs:
        def __str__(self):
            gate.entered.set()
            gate.opened.wait()
            return "at last"

    @app.task(timeout=TIMEOUT)
    def logs(_, ctx):
        ctx.log.info("before")
        ctx.log.info("%s", Hangs())

    with app.daemon(workers=1):
        job = logs.submit(["a"])
        assert gate.entered.wait(SECONDS)
        passes(TIMEOUT)
        try:
            until(lambda: job.refresh().status == "failed")
            assert job.output("a").text.endswith("INFO before")
        finally:
            gate.opened.set()


def test_a_result_that_was_saved_before_the_timeout_wins_over_it(app, passes, gate, until):
    @app.task(timeout=TIMEOUT)
    def saves(_, ctx):
        ctx.save_result("saved")
        gate.pass_through()

    with app.daemon(workers=1):
        job = saves.submit()
        assert gate.entered.wait(SECONDS)
        passes(TIMEOUT)
        until(lambda: job.refresh().status == "completed")
        gate.opened.set()
        until(lambda: events(job, "late"))
    (event,) = [event for event in job.events(items=True) if event.item_key and event.name == "complete"]
    assert event.message == "its result was stored before it ended as timed_out: TimeOut: timed out after 5 m"
    assert [result.value for result in job.results()] == ["saved"]


def test_an_answer_that_comes_while_the_timeout_cannot_be_written_counts(app, passes, gate, monkeypatch, until):
    """The store first: until it has said so, the attempt is not given up."""
    reach, tried, ended = turning.reach, threading.Event(), threading.Event()

    @app.task(timeout=TIMEOUT)
    def slow(value):
        gate.pass_through()
        return value

    def refuse(name):
        if name == "settle.before_commit" and not ended.is_set():
            tried.set()
            assert ended.wait(SECONDS)
            raise Transient("locked", reason="locked", waited=0.001)
        reach(name)

    monkeypatch.setattr(turning, "reach", refuse)
    with app.daemon(workers=1) as daemon:
        job = slow.submit(["slow"])
        assert gate.entered.wait(SECONDS)
        passes(TIMEOUT)
        assert tried.wait(SECONDS)
        gate.opened.set()
        until(lambda: daemon._dispatcher._arrivals)
        ended.set()
        assert job.wait(SECONDS).status == "completed"
        assert daemon._dispatcher.abandoned == 0
    assert events(job, "time_out") == []


def test_the_handler_is_told_when_its_time_is_over(app):
    seen = []

    @app.task(timeout="2s")
    def timed(_, ctx):
        seen.append(ctx.deadline)

    @app.task
    def free(_, ctx):
        seen.append(ctx.deadline)

    with app.daemon(workers=1):
        job = timed.submit().wait(SECONDS)
        free.submit().wait(SECONDS)
    assert seen == [job.items()[0].started_at + 2_000, None]


# -- when it is looked at ---------------------------------------------------------------------------------------------


class Named:
    def __init__(self, timeout):
        self.policy = Policy("work", timeout=timeout)


def attempt(number=1, timeout=5.0, began=None):
    claimed = Claimed(number, 1, str(number), "null", 1, "work", "null", 0, Lane.FRESH, 0)
    made = Attempt(claimed, Named(timeout), 100.0)
    if began is not None:
        made.began, made.began_at, made.started = began, 1_000, True
    return made


def overdue(*attempts, handed=100.0):
    found = Overdue({one.claimed.item_id: one for one in attempts})
    found.handed(attempts, handed)
    return found


def given_up(found, awake):
    return [(one.claimed.item_id, outcome.kind) for one, outcome in found.outcomes(awake, 9_000)]


def test_where_no_task_has_a_timeout_nothing_is_ever_looked_at():
    found = overdue(attempt(timeout=None, began=100.0))
    assert (found.next, found.due(10**9)) == (NEVER, False)


def test_the_time_of_an_attempt_begins_when_it_does_and_not_with_its_claim():
    waits = attempt()
    found = overdue(waits)
    assert found.next == 105.0
    assert given_up(found, 105.0) == []
    assert found.next == 110.0
    waits.began, waits.started = 107.0, True
    assert given_up(found, 110.0) == []
    assert found.next == 112.0
    assert not found.due(111.9)
    assert given_up(found, 112.0) == [(1, "timed_out")]
    assert found.next == NEVER


def test_the_next_look_is_at_the_first_of_many():
    found = overdue(attempt(1, 5.0, 103.0), attempt(2, 60.0, 100.0), attempt(3, None, 100.0))
    assert given_up(found, 105.0) == []
    assert found.next == 108.0
    assert given_up(found, 108.5) == [(1, "timed_out")]


def test_what_has_ended_and_waits_to_be_settled_is_not_given_up():
    ended = attempt(began=100.0)
    ended.collected = True
    found = overdue(ended)
    found.interrupt([Hung(1, 1, "why")])
    assert given_up(found, 105.0) == []


def test_an_attempt_is_interrupted_once_and_only_the_one_that_was_meant():
    found = overdue(attempt(1, 5.0, 100.0), attempt(2, None, 100.0), attempt(3, None))
    found.interrupt([Hung(1, 1, "why"), Hung(2, 2, "an earlier one"), Hung(3, 1, "not begun"), Hung(9, 1, "gone")])
    assert found.due(0.0)
    assert given_up(found, 105.0) == [(1, "interrupted")]
    assert not found.due(0.0)


# -- the pool ---------------------------------------------------------------------------------------------------------


def test_a_thread_is_given_up_only_while_it_runs_that_attempt(gate):
    delivered = threading.Semaphore(0)
    pool = Threads(1, run=lambda one: gate.pass_through(), deliver=lambda *_: delivered.release(), at_end=lambda: None)
    first, second = attempt(1), attempt(2)
    pool.hand([first, second])
    assert gate.entered.wait(SECONDS)
    pool.abandon(second)
    assert (pool.abandoned, pool.size) == (0, 1)
    gate.opened.set()
    for _ in range(2):
        assert delivered.acquire(timeout=SECONDS)
    pool.abandon(first)
    assert (pool.abandoned, pool.size) == (0, 1)
    pool.close()


def test_what_waits_behind_one_that_is_given_up_runs_in_the_fresh_thread(gate):
    first, *others = [attempt(number) for number in range(1, 4)]
    delivered, ended = threading.Semaphore(0), threading.Semaphore(0)
    pool = Threads(
        1,
        run=lambda one: gate.pass_through() if one is first else None,
        deliver=lambda *_: delivered.release(),
        at_end=ended.release,
    )
    pool.hand([first, *others])
    assert gate.entered.wait(SECONDS)
    pool.abandon(first)
    for _ in others:
        assert delivered.acquire(timeout=SECONDS)
    gate.opened.set()
    assert delivered.acquire(timeout=SECONDS)
    pool.close()
    for _ in range(2):
        assert ended.acquire(timeout=SECONDS)


def test_nothing_begins_in_a_pool_that_is_closed(gate):
    ran = []
    ended = threading.Semaphore(0)

    def run(one):
        ran.append(one)
        gate.pass_through()

    pool = Threads(1, run=run, deliver=lambda *_: None, at_end=ended.release)
    first, second = attempt(1), attempt(2)
    pool.hand([first, second])
    assert gate.entered.wait(SECONDS)
    pool.close()
    gate.opened.set()
    assert ended.acquire(timeout=SECONDS)
    assert (ran, pool.take_back()) == ([first], [second])


def test_a_pool_that_is_closed_gives_no_place_to_who_comes_back(gate, until):
    ended = threading.Semaphore(0)
    before = set(workers())
    pool = Threads(1, run=lambda one: gate.pass_through(), deliver=lambda *_: None, at_end=ended.release)
    for number in (1, 2):
        one = attempt(number)
        pool.hand([one])
        until(lambda one=one: one in pool._running)
        pool.abandon(one)
    assert (pool.abandoned, pool.size) == (2, 0)
    pool.close()
    gate.opened.set()
    for _ in range(2):
        assert ended.acquire(timeout=SECONDS)
    assert (pool.abandoned, pool.size) == (0, 0)
    until(lambda: not set(workers()) - before)


def test_a_slot_counts_as_free_since_the_last_moment_in_which_every_one_was_taken(jobd_clock):
    claims = Claims(None, daemon_id=1, tasks=(), slots=2)
    one, two = attempt(1).claimed, attempt(2).claimed
    assert claims.free_since is None  # nobody has looked yet
    claims.more = False
    began = claims.free_since
    jobd_clock.move(hours=1)
    claims.started([one], clock.awake())
    assert claims.free_since == began
    claims.started([two], clock.awake())
    assert claims.free_since is None
    jobd_clock.move(hours=1)
    claims.left([one])
    assert claims.free_since == began + 7_200
    jobd_clock.move(hours=1)
    claims.left([two])
    assert claims.free_since == began + 7_200
    claims.solitude.anybody = True
    assert claims.free_since is None
    claims.solitude.anybody = False
    claims.resize(0)
    claims.more = False
    assert claims.free_since is None


def test_the_dispatcher_sleeps_no_longer_than_until_the_first_deadline(app, gate, until):
    @app.task(timeout=0.5)
    def timed(_):
        gate.pass_through()

    @app.task
    def free(_):
        gate.pass_through()

    with app.daemon(workers=2) as daemon:
        dispatcher = daemon._dispatcher
        free.submit()
        assert gate.entered.wait(SECONDS)
        assert dispatcher._arrivals.overdue.next == NEVER
        timed.submit()
        until(lambda: dispatcher._arrivals.overdue.next != NEVER)
        assert dispatcher._patience() <= 0.5
        gate.opened.set()
