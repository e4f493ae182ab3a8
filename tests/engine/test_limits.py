"""What a job says itself in place of its task: how many at once, how many in a while, how long, how often."""

from __future__ import annotations

import json
import threading

import pytest

from jobd import Jobd, UsageError, clock
from jobd.engine.limits import Limits
from jobd.engine.pace import Pace
from jobd.engine.threads import Threads
from jobd.store.claim import Claimed, ClaimedJob, Lane
from jobd.store.invariants import check

SECONDS = 20
NARROW = '{"concurrency": 1}'


@pytest.fixture
def app(app):
    yield app
    assert check(app.store) == []


class Crowd:
    """Handlers that run at once: how many, by the letter that their item begins with. ``opened`` lets them go on."""

    def __init__(self):
        self._turn = threading.Lock()
        self.here = {}
        self.most = {}
        self.opened = threading.Event()

    def pass_through(self, item):
        with self._turn:
            self.here[item[0]] = self.here.get(item[0], 0) + 1
            self.most[item[0]] = max(self.most.get(item[0], 0), self.here[item[0]])
        assert self.opened.wait(SECONDS)
        with self._turn:
            self.here[item[0]] -= 1


@pytest.fixture
def crowd():
    crowd = Crowd()
    yield crowd
    crowd.opened.set()


def names(letter, count):
    return [f"{letter}{n}" for n in range(count)]


# -- how many at once


def test_no_more_of_a_job_run_at_once_than_it_says_and_the_others_use_what_it_leaves(app, crowd, until):
    @app.task
    def work(item):
        crowd.pass_through(item)

    narrow = work.submit(names("n", 20), concurrency=1)
    wide = work.submit(names("w", 20))
    with app.daemon(workers=4):
        until(lambda: crowd.here == {"n": 1, "w": 3})
        crowd.opened.set()
        assert narrow.wait(SECONDS).status == wide.wait(SECONDS).status == "completed"
    assert crowd.most["n"] == 1


@pytest.mark.parametrize(("concurrency", "spare", "ahead"), [(2, 0, True), (1, 0, False), (2, 2, False)])
def test_a_job_that_may_have_all_places_waits_in_line_for_them(
    app, crowd, until, monkeypatch, concurrency, spare, ahead
):
    """Else its slots stand idle through each transaction: `map -j 2` says both how many slots there are and that.

    Where a handler that hangs leaves its place to another, there are more places than slots.
    """
    monkeypatch.setattr(Threads, "spare", spare)
    monkeypatch.setattr(Pace, "observe", lambda pace, ended: pace._seconds.update({task: 0.01 for task, _ in ended}))

    @app.task
    def work(item):
        if item != "quick":
            crowd.pass_through(item)

    with app.daemon(workers=2) as daemon:
        work.submit(["quick"]).wait(SECONDS)
        work.submit(names("n", 20), concurrency=concurrency)
        until(lambda: crowd.here.get("n") == concurrency)
        handed = len(daemon._dispatcher.registry)
        crowd.opened.set()
    assert (handed > 2) is ahead
    assert crowd.most["n"] == concurrency


def test_a_full_job_of_a_high_priority_keeps_no_other_waiting(app, crowd, until):
    @app.task
    def work(item):
        crowd.pass_through(item)

    narrow = work.submit(names("n", 5), concurrency=1, priority=9)
    wide = work.submit(names("w", 5))
    with app.daemon(workers=3):
        until(lambda: sum(crowd.here.values()) == 3)
        assert crowd.here == {"n": 1, "w": 2}
        crowd.opened.set()
        assert narrow.wait(SECONDS).status == wide.wait(SECONDS).status == "completed"
    assert crowd.most["n"] == 1


def test_a_task_and_a_job_of_it_bound_each_other(app, crowd, until):
    @app.task(concurrency=3)
    def work(item):
        crowd.pass_through(item)

    first, second = work.submit(names("a", 9), concurrency=2), work.submit(names("b", 9), concurrency=2)
    with app.daemon(workers=8):
        until(lambda: sum(crowd.here.values()) == 3)
        crowd.opened.set()
        first.wait(SECONDS), second.wait(SECONDS)
    assert max(crowd.most.values()) <= 2


def claimed(item_id, policy="{}"):
    return Claimed(item_id, 7, f"k{item_id}", "null", 1, "work", "{}", 0, Lane.FRESH, 0, policy=policy)


def offered(item_id, policy):
    return ClaimedJob(7, "work", "{}", 0, 0, "running", policy, None, 9), claimed(item_id, policy)


def test_what_is_in_flight_of_a_job_takes_its_room():
    limits = Limits(4)
    assert len(limits.round((), 0.0).within([offered(1, NARROW), offered(2, NARROW)])) == 1
    limits.started([claimed(1, NARROW)], 0.0)
    assert limits.round((), 0.0).full == {7}
    limits.left(7)
    assert limits.round((), 0.0).full == set()


@pytest.mark.parametrize("before", ["{}", '{"concurrency": 3}', '{"concurrency": 4}', '{"rate": "9/h"}'])
def test_what_began_before_a_job_was_given_its_bounds_takes_room_too(before):
    limits = Limits(4)
    begun = [offered(item_id, before) for item_id in (1, 2)]
    assert limits.round((), 0.0).within(begun) == begun
    limits.started([item for _, item in begun], 0.0)
    assert limits.round((), 0.0).within([offered(3, NARROW)]) == []
    # Who ends says that somebody waits for it, though nothing of it was claimed since.
    assert [limits.left(7), limits.left(7)] == [True, True]
    assert limits.round((), 0.0).within([offered(3, NARROW), offered(4, NARROW)]) == [offered(3, NARROW)]


def test_what_was_given_up_of_a_job_and_runs_on_takes_its_room(app, crowd, jobd_clock, until):
    """There are two threads, and one in the place of each that hangs: `concurrency=2` bounds something."""

    @app.task(timeout=60)
    def work(item):
        crowd.pass_through(item)

    job = work.submit(names("n", 5), concurrency=2)
    with app.daemon(workers=2) as daemon:
        until(lambda: crowd.here == {"n": 2})
        jobd_clock.move(seconds=61)
        until(lambda: job.refresh().counts.failed == 2)
        dispatcher = daemon._dispatcher
        until(lambda: dispatcher.abandoned == 2 and dispatcher._wake._sleeping and not dispatcher._wake._rung)
        assert job.refresh().counts.queued == 3
        crowd.opened.set()
        assert job.wait(SECONDS).counts.completed == 3
    assert crowd.most == {"n": 2}


def test_the_last_word_counts_also_for_what_runs(app, crowd, until):
    @app.task
    def work(item):
        crowd.pass_through(item)

    job = work.submit(names("a", 9), key="k", concurrency=1)
    with app.daemon(workers=8):
        until(lambda: crowd.here == {"a": 1})
        work.submit(names("a", 9), key="k", concurrency=4)
        until(lambda: crowd.here == {"a": 4})
        work.submit(names("a", 9), key="k")
        crowd.opened.set()
        job.wait(SECONDS)
    assert crowd.most == {"a": 4}


def test_it_holds_for_what_is_interrupted_and_comes_back(app, crowd, until):
    @app.task
    def work(item):
        crowd.pass_through(item)

    job = work.submit(names("a", 6), concurrency=2)
    app.store.write(lambda connection: connection.execute("update job_items set interruptions = 1"))
    with app.daemon(workers=4):
        until(lambda: crowd.here == {"a": 2})
        crowd.opened.set()
        job.wait(SECONDS)
    assert crowd.most == {"a": 2}


def test_drain_keeps_to_it_too(app):
    ran = []
    task = app.task(ran.append, name="work")
    task.submit(range(5), concurrency=1)
    assert app.drain().counts == {"completed": 5}
    assert ran == list(range(5))


def test_another_daemon_reads_it_off_the_job(app, path, crowd, until):
    elsewhere = Jobd(path)
    app.submit("work", names("a", 9), concurrency=2)

    @elsewhere.task
    def work(item):
        crowd.pass_through(item)

    with elsewhere.daemon(workers=5):
        until(lambda: crowd.here == {"a": 2})
        crowd.opened.set()
    elsewhere.close()
    assert crowd.most == {"a": 2}


# -- how many in a while


def test_no_more_of_a_job_start_in_a_while_than_it_says(app, jobd_clock, until):
    ran = []
    work = app.task(ran.append, name="work")
    limited, other = work.submit(range(5), rate="2/m"), work.submit(range(10, 14))
    with app.daemon(workers=4):
        until(lambda: other.refresh().status == "completed" and len(ran) == 6)
        jobd_clock.move(seconds=59)
        assert limited.refresh().counts.completed == 2
        jobd_clock.move(seconds=2)
        until(lambda: limited.refresh().counts.completed == 4)
        jobd_clock.move(seconds=61)
        assert limited.wait(SECONDS).status == "completed"


def test_drain_takes_what_the_rate_lets_start_and_leaves_the_rest(app):
    ran = []
    work = app.task(ran.append, name="work")
    job = work.submit(range(5), rate="2/m")
    work.submit(range(10, 13))
    app.drain()
    assert (sorted(ran), job.refresh().counts.queued) == ([0, 1, 10, 11, 12], 3)


# -- how long, and how often


def test_a_job_has_a_timeout_of_its_own(app, crowd):
    @app.task(timeout="1h")
    def work(item):
        crowd.pass_through(item)

    job = work.submit(["a"], timeout=0.05)
    with app.daemon(workers=1):
        job.wait(SECONDS)
        assert [(item.error_type, item.error) for item in job.items()] == [("TimeOut", "timed out after 0.05 s")]
        crowd.opened.set()


def test_a_job_has_retries_and_a_backoff_of_its_own(app):
    @app.task(retries=7, backoff="1h")
    def work(item):
        raise OSError(item)

    job = work.submit(["a"], retries=2, backoff=0.001)
    with app.daemon(workers=1):
        job.wait(SECONDS)
    assert [(item.attempt, item.failures) for item in job.items()] == [(3, 3)]
    once = work.submit(["a"], retries=0)
    app.drain()
    assert [item.attempt for item in once.items()] == [1]


def test_the_handler_is_told_the_deadline_of_its_job(app):
    told = []

    @app.task
    def work(item, ctx):
        told.append(ctx.deadline - clock.now())

    work.submit(["a"], timeout="1h")
    app.drain()
    assert 3_590_000 < told[0] <= 3_600_000


# -- what cannot be meant


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"rate": "fast"}, {"timeout": -1}, {"retries": -1}, {"retries": True}, {"backoff": "soon"}],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_stored(app, options):
    with pytest.raises(UsageError, match=f"^{next(iter(options))}: "):
        app.submit("work", ["a"], **options)
    assert app.jobs() == []


@pytest.mark.parametrize("policy", ["[]", '{"rate": 7, "concurrency": "x", "timeout": [], "retries": -2}'])
def test_what_a_foreign_hand_has_made_of_it_counts_for_nothing(app, policy):
    job = app.task(lambda item: item, name="work").submit(range(3))
    app.store.write(lambda connection: connection.execute("update jobs set policy = ?", (policy,)))
    app.drain()
    assert job.refresh().status == "completed"


def test_a_submission_that_says_the_same_writes_nothing(app):
    def said():
        (text,) = app.store.read(lambda connection: connection.execute("select policy from jobs").fetchone())
        return json.loads(text)

    app.submit("work", ["a"], key="k", retries=2, halt=3)
    app.submit("work", ["a"], key="k", retries=4)
    assert said() == {"retries": 4, "halt": 3}
