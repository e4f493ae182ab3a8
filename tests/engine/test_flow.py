"""How items flow: tries and their waits, how many at once, how many in a while."""

from __future__ import annotations

import threading

import pytest

from jobd import Cancelled, Fail, Retry, Skip, clock
from jobd.engine import claiming
from jobd.engine.bounds import Bounds
from jobd.engine.threads import Threads
from jobd.policy import LONGEST_BACKOFF
from jobd.store.invariants import check

SECONDS = 20


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


def names(job, name):
    return [event for event in job.events(items=True) if event.name == name]


# -- tries ------------------------------------------------------------------------------------------------------------


def flaky(app, failing, **policy):
    """A task whose first attempts fail."""
    policy = {"retries": 2, "backoff": 10, **policy}

    @app.task(**policy)
    def work(_, ctx):
        if ctx.attempt <= failing:
            raise OSError(f"attempt {ctx.attempt}")
        return ctx.attempt

    return work


def until_it_ends(app, job, jobd_clock):
    """Drain whenever something is due; return the waits in between, in seconds."""
    waits = []
    while (drained := app.drain()).next_due is not None:
        waits.append((drained.next_due - clock.now()) / 1000)
        jobd_clock.move(seconds=waits[-1])
    job.refresh()
    return waits


def test_an_item_that_fails_is_tried_again_until_it_completes(app, jobd_clock):
    job = flaky(app, 2).submit(["a"])
    assert len(until_it_ends(app, job, jobd_clock)) == 2
    (item,) = job.items()
    assert (job.status, job.last_error, job.counts.completed) == ("completed", None, 1)
    assert (item.attempt, item.failures, item.error) == (3, 2, None)
    told = [(event.from_status, event.to_status, event.attempt, event.message) for event in names(job, "reschedule")]
    assert told == [
        ("running", "queued", 1, "OSError: attempt 1"),
        ("running", "queued", 2, "OSError: attempt 2"),
    ]


def test_with_the_last_try_it_fails(app, jobd_clock):
    job = flaky(app, 9).submit(["a"])
    until_it_ends(app, job, jobd_clock)
    (item,) = job.items()
    assert (job.status, item.status, item.attempt, item.failures) == ("failed", "failed", 3, 3)
    assert (item.error_type, item.error) == ("OSError", "attempt 3")


def test_a_task_without_retries_fails_at_once(app):
    job = flaky(app, 1, retries=0).submit(["a"])
    assert app.drain().counts == {"failed": 1}
    assert names(job.refresh(), "reschedule") == []


def test_the_wait_is_any_time_up_to_one_that_doubles(app, jobd_clock, rows):
    work = flaky(app, 1, retries=1, backoff=100)
    jobs = [work.submit([number]) for number in range(40)]
    app.drain()
    waits = [at - clock.now() for (at,) in rows.all("select available_at from job_items")]
    assert all(0 <= wait <= 100_000 for wait in waits)
    # Of forty even ones one in 10^9 times all lie on one side of a fifth.
    assert min(waits) < 40_000
    assert max(waits) > 60_000
    assert len(set(waits)) > 30
    jobd_clock.move(seconds=100)
    app.drain()
    assert {job.refresh().status for job in jobs} == {"completed"}


@pytest.mark.parametrize(("failures", "longest"), [(0, 10), (1, 20), (2, 40), (9, LONGEST_BACKOFF)])
def test_each_failure_doubles_the_longest_wait(app, monkeypatch, failures, longest):
    monkeypatch.setattr("random.uniform", lambda low, high: (low, high))
    assert flaky(app, 9, retries=10).policy.retry_in(failures) == (0, longest)


def test_a_try_that_is_due_after_a_restart_happens_once_and_at_its_time(app, jobd_clock, rows):
    job = flaky(app, 1, backoff=3600).submit(["a"])
    with app.daemon():
        pass
    app.drain()
    (due,) = rows.all("select available_at from job_items")
    at = due[0]
    for _ in range(3):
        with app.daemon():
            pass
    jobd_clock.move(seconds=(at - clock.now()) / 1000 - 0.001)
    assert app.drain().counts == {}
    jobd_clock.move(seconds=0.001)
    assert app.drain().counts == {"completed": 1}
    assert app.drain().counts == {}
    assert job.refresh().item("a").attempt == 2


def test_a_crash_between_the_tries_loses_no_count(app, jobd_clock, jobd_crash):
    job = flaky(app, 2).submit(["a"])
    app.drain()
    jobd_clock.move(seconds=10)
    with jobd_crash("settle.before_commit"):
        app.drain()
    until_it_ends(app, job, jobd_clock)
    (item,) = job.items()
    # The second attempt was lost with its daemon: it counts as an interruption, and the third is the one that fails.
    assert (item.status, item.failures, item.interruptions) == ("completed", 1, 1)
    assert item.attempt == 3


@pytest.mark.parametrize(
    ("error", "ends"),
    [(Fail("no"), "failed"), (Skip("no"), "skipped"), (KeyError("no"), "failed"), (OSError("no"), "queued")],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_only_what_the_task_names_is_tried_again(app, error, ends):
    @app.task(retries=3, retry_on=(OSError, ValueError))
    def work(_):
        raise error

    job = work.submit(["a"])
    app.drain()
    assert job.refresh().item("a").status == ends


def test_a_handler_may_say_when_to_try_again(app, jobd_clock):
    @app.task(retries=1)
    def work(_, ctx):
        if ctx.attempt == 1:
            raise Retry("busy", after="5m")

    job = work.submit(["a"])
    assert app.drain().next_due == clock.now() + 300_000
    assert job.refresh().item("a").error == "busy"
    jobd_clock.move(minutes=5)
    app.drain()
    assert job.refresh().status == "completed"


@pytest.mark.parametrize("after", [None, 0, "nonsense"])
def test_a_wait_that_cannot_be_meant_is_the_tasks_own(app, after):
    @app.task(retries=1, backoff=60)
    def work(_):
        raise Retry(after=after)

    work.submit(["a"])
    due = app.drain().next_due
    assert due is None if after == 0 else due is not None and due <= clock.now() + 60_000


def test_a_handler_that_asks_for_more_tries_than_there_are_fails(app):
    @app.task(retries=1)
    def work(_):
        raise Retry("again", after=0)

    job = work.submit(["a"])
    app.drain()
    assert (job.refresh().item("a").status, job.item("a").error_type) == ("failed", "Retry")


def test_a_result_that_was_stored_before_the_failure_is_not_worked_for_again(app):
    @app.task(retries=3)
    def work(_, ctx):
        ctx.save_result("kept")
        raise OSError("after")

    job = work.submit(["a"])
    app.drain()
    assert (job.refresh().status, [result.value for result in job.results()]) == ("completed", ["kept"])


def test_what_would_be_tried_again_is_cancelled_where_its_job_is(app, gate):
    @app.task(retries=3)
    def work(_):
        gate.pass_through()
        raise OSError("no")

    with app.daemon(workers=1):
        job = work.submit(["a"])
        assert gate.entered.wait(SECONDS)
        job.cancel()
        gate.opened.set()
        assert job.wait(SECONDS).status == "cancelled"
    assert job.item("a").status == "cancelled"


def test_an_attempt_that_takes_too_long_is_tried_again(app, jobd_clock):
    entered, gates = threading.Semaphore(0), [threading.Event(), threading.Event()]

    @app.task(timeout=60, retries=1, backoff=1)
    def work(_, ctx):
        entered.release()
        assert gates[ctx.attempt - 1].wait(SECONDS)
        return ctx.attempt

    with app.daemon(workers=1):
        job = work.submit(["a"])
        assert entered.acquire(timeout=SECONDS)
        jobd_clock.move(seconds=61)
        _wait_for(lambda: job.refresh().item("a").failures == 1)
        jobd_clock.move(seconds=2)
        assert entered.acquire(timeout=SECONDS)
        gates[1].set()
        assert job.wait(SECONDS).status == "completed"
        gates[0].set()
    (event,) = names(job, "time_out")
    assert (event.from_status, event.to_status, event.message) == (
        "running", "queued", "TimeOut: timed out after 1 m",
    )  # fmt: skip
    assert [result.value for result in job.results()] == [2]


def _wait_for(fact):
    pause = threading.Event()
    for _ in range(SECONDS * 500):
        if fact():
            return
        pause.wait(0.002)
    raise AssertionError("it did not come true")


# -- at once ----------------------------------------------------------------------------------------------------------


class Crowd:
    """Handlers that say how many of them run at once."""

    def __init__(self):
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self._lock:
            self.now -= 1


def test_no_more_of_a_task_run_at_once_than_it_says_and_others_take_the_slots(app):
    crowd, others = Crowd(), threading.Barrier(3)

    @app.task(concurrency=1)
    def bounded(_):
        with crowd:
            pass

    @app.task
    def free(_):
        others.wait(SECONDS)

    with app.daemon(workers=4):
        job = bounded.submit(range(300))
        assert free.submit(range(3)).wait(SECONDS).status == "completed"
        assert job.wait(SECONDS).counts.completed == 300
    assert crowd.most == 1


def test_two_of_four_slots_are_used_and_both(app):
    crowd, both = Crowd(), threading.Barrier(2)

    @app.task(concurrency=2)
    def bounded(value):
        with crowd:
            both.wait(SECONDS)

    with app.daemon(workers=4):
        assert bounded.submit(range(40)).wait(SECONDS).status == "completed"
    assert crowd.most == 2


def test_a_bounded_task_of_high_priority_does_not_stop_the_others(app, gate):
    @app.task(concurrency=1)
    def bounded(_):
        gate.pass_through()

    @app.task
    def free(_):
        return None

    with app.daemon(workers=2):
        high = bounded.submit(range(5), priority=9)
        assert gate.entered.wait(SECONDS)
        assert free.submit(range(50)).wait(SECONDS).status == "completed"
        gate.opened.set()
        assert high.wait(SECONDS).counts.completed == 5


# -- in a while -------------------------------------------------------------------------------------------------------


def test_no_more_of_a_task_start_in_a_while_than_its_rate_says(app, jobd_clock):
    @app.task(rate="10/m")
    def work(_):
        return None

    job = work.submit(range(25))
    assert app.drain().counts == {"completed": 10}
    with app.daemon(workers=4):
        _wait_for(lambda: job.refresh().counts.completed == 20)
        for _ in range(3):
            jobd_clock.move(seconds=19)
            assert job.refresh().counts.completed == 20
        jobd_clock.move(seconds=4)
        assert job.wait(SECONDS).counts.completed == 25


def test_a_rate_holds_for_any_stretch_of_its_time():
    class Named:
        class policy:  # noqa: N801 - as the task's attribute
            bounded = True
            concurrency = None

            class rate:  # noqa: N801 - as above
                times, seconds = 3, 10.0

    bounds = Bounds({"work": Named})
    assert bounds.room({}, 0.0) == {"work": 3}
    bounds.started({"work": 1}, 0.0)
    bounds.started({"work": 2}, 6.0)
    assert bounds.room({}, 9.9) == {"work": 0}
    assert bounds.wait({"work": 0}, 9.0) == pytest.approx(1.0)
    assert bounds.room({}, 10.0) == {"work": 1}
    bounds.started({"work": 1}, 10.0)
    assert bounds.wait({"work": 0}, 10.0) == pytest.approx(6.0)
    assert bounds.room({}, 16.0) == {"work": 2}


def test_cancelled_is_told_from_a_failure_that_is_tried_again(app):
    @app.task(retries=5)
    def work(_):
        raise Cancelled("by itself")

    job = work.submit(["a"])
    app.drain()
    # Nobody asked for it: it has failed, and is not tried again.
    assert job.refresh().item("a").status == "failed"


def test_a_crash_is_no_failure_that_is_tried_again(app, jobd_crash):
    job = flaky(app, 0).submit(["a"])
    with jobd_crash("handler.after"):
        app.drain()
    assert job.refresh().item("a").failures == 0
    app.drain()
    assert job.refresh().status == "completed"


@pytest.mark.parametrize("bound", [{"rate": "1/h"}, {"concurrency": 1}], ids=str)
def test_a_job_that_its_bounds_hold_back_does_not_time_out_though_slots_are_free(make_app, jobd_clock, bound):
    app, held = make_app(recover_every=10**8, time_out_every=10**8), threading.Event()

    @app.task(**bound)
    def work(_):
        assert held.wait(SECONDS)

    with app.daemon(workers=2) as daemon:
        first = work.submit(["a"])
        _wait_for(lambda: first.refresh().counts.running == 1)
        job = work.submit(["b"])
        if "rate" in bound:
            held.set()
            assert first.wait(SECONDS).status == "completed"
        _wait_for(lambda: daemon._dispatcher.free_since is not None)
        jobd_clock.move(minutes=50)
        assert daemon._upkeep.run_pass("time_out").changes == []
        assert (job.refresh().status, job.retry_count) == ("queued", 0)
        held.set()
        jobd_clock.move(minutes=20)
        assert job.wait(SECONDS).status == "completed"


# -- until too many have failed ---------------------------------------------------------------------------------------


@pytest.fixture
def picky(app):
    """A task that fails for odd numbers."""

    @app.task
    def picky(number):
        if number % 2:
            raise ValueError("odd")

    return picky


def counts(job):
    found = job.refresh().counts
    return found.completed, found.failed, found.cancelled


def test_a_job_halts_at_its_count_of_failures_and_what_has_not_begun_is_cancelled(app, picky):
    job = picky.submit(range(5_000), halt=3)
    app.drain()
    completed, failed, cancelled = counts(job)
    assert (job.status, completed, failed, cancelled) == ("failed", 3, 3, 4_994)
    assert job.status_message == "halted: 3 items failed"
    assert [event.name for event in job.events()][-1] == "fail"


def test_in_a_daemon_nothing_more_of_it_begins_and_others_go_on(app, picky):
    with app.daemon(workers=2):
        job = picky.submit(range(20_000), halt=1)
        other = picky.submit(range(0, 200, 2))
        assert job.wait(SECONDS).status == "failed"
        assert other.wait(SECONDS).status == "completed"
    completed, failed, cancelled = counts(job)
    assert failed >= 1
    assert cancelled > 10_000
    assert completed + failed + cancelled == 20_000


def test_handlers_that_run_are_told_that_their_job_halts(app, gate):
    told = threading.Event()

    @app.task
    def work(value, ctx):
        if value == "fails":
            gate.entered.wait(SECONDS)
            raise ValueError("no")
        gate.entered.set()
        for _ in range(SECONDS * 500):
            try:
                ctx.raise_if_cancelled()
            except Cancelled:
                told.set()
                raise
            gate.opened.wait(0.002)

    with app.daemon(workers=2):
        job = work.submit(["fails", "runs"], halt=1)
        assert job.wait(SECONDS).status == "failed"
    assert told.is_set()
    assert counts(job) == (0, 1, 1)


def test_below_its_count_a_job_goes_on(app, picky):
    job = picky.submit(range(5), halt=3, tolerance=2)
    app.drain()
    assert (job.refresh().status, counts(job)) == ("completed", (3, 2, 0))


def test_a_crash_behind_the_halt_leaves_it_to_the_next_daemon(app, picky, jobd_crash):
    job = picky.submit(range(100), halt=1)
    with jobd_crash("settle.after_commit", at=2):
        app.drain()
    app.drain()
    assert (job.refresh().status, counts(job)) == ("failed", (1, 1, 98))


@pytest.mark.parametrize("halt", [0, -1, "x", 1.5, True])
def test_a_halt_that_is_no_count_is_refused(app, picky, halt):
    with pytest.raises(ValueError, match="halt: not a count of failed items"):
        picky.submit([1], halt=halt)


# -- what nobody expects ----------------------------------------------------------------------------------------------


class Odd(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")


class Unlike:
    def __eq__(self, other):
        raise RuntimeError("not to be compared")

    __hash__ = None


class Nameless(Exception, metaclass=Odd):
    pass


@pytest.mark.parametrize(
    "error",
    [lambda: Retry("later", after=int("9" * 400)), lambda: Retry("later", after=Unlike()), lambda: Nameless("x")],
    ids=["a wait of 400 digits", "a wait that cannot be compared", "a class without a name"],
)
def test_whatever_a_handler_raises_its_item_ends_and_its_place_goes_on(app, error):
    @app.task
    def work(value):
        if value == "odd":
            raise error()

    with app.daemon(workers=1):
        odd = work.submit(["odd"]).wait(SECONDS)
        assert work.submit(["even"]).wait(SECONDS).status == "completed"
    assert odd.item("odd").status == "failed"


def test_a_retry_that_is_due_soon_is_not_waited_for_longer(app):
    began = []

    @app.task(retries=2)
    def work(_):
        began.append(clock.awake())
        if len(began) < 3:
            raise Retry(after=0.05)

    with app.daemon(workers=2):
        assert work.submit(["a"]).wait(SECONDS).status == "completed"
    # By itself the dispatcher would look again with the next heartbeat, after 5 s.
    assert began[-1] - began[0] < 2.0


def test_a_rate_goes_on_while_what_it_let_start_is_running(app, jobd_clock):
    begun, held = [], threading.Event()

    @app.task(rate="1/m")
    def work(value):
        begun.append(value)
        assert held.wait(SECONDS)

    with app.daemon(workers=3):
        job = work.submit(range(3))
        for count in (1, 2, 3):
            _wait_for(lambda count=count: len(begun) == count)
            jobd_clock.move(seconds=61)
        held.set()
        assert job.wait(SECONDS).status == "completed"


def test_who_must_run_alone_and_is_held_back_by_its_rate_stops_nobody(app, rows):
    held = threading.Event()

    @app.task(rate="1/h")
    def bounded(_):
        return None

    @app.task
    def free(value):
        if value == 0:
            assert held.wait(SECONDS)

    job = bounded.submit(["first", "second"])
    with app.daemon(workers=2):
        _wait_for(lambda: job.refresh().counts.completed == 1)
    rows.change("update job_items set interruptions = 2 where status = 'queued'")
    with app.daemon(workers=2):
        _wait_for(lambda: job.refresh().counts.completed == 2)
        bounded.submit(["third"])
        others = free.submit(range(20))
        _wait_for(lambda: others.refresh().counts.completed == 19)
        held.set()
        others.wait(SECONDS)


@pytest.mark.parametrize(("of_task", "of_job"), [("1/h", None), (None, "1/h")])
def test_what_was_given_back_without_having_begun_counts_for_no_rate(app, monkeypatch, rows, until, of_task, of_job):
    ready, live = threading.Event(), Threads._work
    monkeypatch.setattr(Threads, "_work", lambda *pool: ready.wait(SECONDS) and live(*pool))
    work = app.task(lambda _: None, name="work", **{"rate": of_task} if of_task else {})
    job = work.submit(["one"], rate=of_job)
    with app.daemon(workers=1):
        for status in ("running", "queued"):
            until(lambda status=status: rows.one("select status from job_items") == status)
        ready.set()
        until(lambda: job.refresh().status == "completed")
    assert [item.attempt for item in job.items()] == [1]


def test_a_job_whose_last_failure_halts_it_has_failed(app, picky):
    job = picky.submit([1, 3], halt=2, tolerance="100%")
    app.drain()
    assert (job.refresh().status, job.status_message) == ("failed", "halted: 2 items failed")


def test_the_last_word_of_a_known_job_on_when_to_halt_counts(app, picky):
    picky.submit([0, 2], key="known")
    job = picky.submit([0, 2, *range(1, 100, 2)], key="known", halt=2, tolerance="100%")
    app.drain()
    assert (job.refresh().status, counts(job)) == ("failed", (2, 2, 48))


def test_what_was_given_up_and_runs_on_counts_for_its_concurrency(app, jobd_clock, until):
    crowd, held, entered = Crowd(), threading.Event(), threading.Semaphore(0)

    @app.task(concurrency=1, timeout=60)
    def work(_):
        with crowd:
            entered.release()
            assert held.wait(SECONDS)

    with app.daemon(workers=3) as daemon:
        job = work.submit(["a", "b"])
        assert entered.acquire(timeout=SECONDS)
        jobd_clock.move(seconds=61)
        _wait_for(lambda: job.refresh().counts.failed == 1)
        dispatcher = daemon._dispatcher
        until(lambda: dispatcher.abandoned and dispatcher._wake._sleeping and not dispatcher._wake._rung)
        assert [item.status for item in job.items()] == ["failed", "queued"]
        held.set()
        assert job.wait(SECONDS).counts.completed == 1
    assert crowd.most == 1


def test_a_loop_that_is_held_up_is_claimed_nothing_for(app, monkeypatch):
    held, entered, claimed = threading.Event(), threading.Event(), []
    claim = claiming.claim

    def counted(*args, **options):
        found = claim(*args, **options)
        claimed.extend(item.item_id for item in found)
        return found

    monkeypatch.setattr(claiming, "claim", counted)

    @app.task
    async def work(value):
        if value == 0:
            entered.set()
            assert held.wait(SECONDS)

    with app.daemon(workers=1) as daemon:
        job = work.submit(range(50))
        assert entered.wait(SECONDS)
        _wait_for(lambda: job.refresh().counts.running == 1)
        before = len(claimed)
        for _ in range(5):
            app.store.wake()
            _wait_for(lambda: not daemon._dispatcher._wake._rung and daemon._dispatcher._wake._sleeping)
        assert len(claimed) == before
        held.set()
        assert job.wait(SECONDS).counts.completed == 50


def test_a_time_out_is_tried_again_where_the_task_names_it(app):
    only_values = app.task(name="v", timeout=1, retries=3, retry_on=ValueError)(lambda _: None)
    timeouts = app.task(name="t", timeout=1, retries=3, retry_on=TimeoutError)(lambda _: None)
    assert [any(issubclass(TimeoutError, one) for one in t.policy.retry_on) for t in (only_values, timeouts)] == [
        False, True,
    ]  # fmt: skip
