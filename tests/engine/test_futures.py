"""Executors that the program brings along: what they cannot do is said, and they stay the program's own."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from kit import scripts
from kit.beats import WITHOUT_BEATS
from kit.doors import Door, come

from jobd import NotFound, UsageError
from jobd.engine import remote
from jobd.loading import Place, place_of
from jobd.store.invariants import check

SECONDS = 20
TIMEOUT = 300


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def app(make_app, threads):
    app = make_app(executors={"pool": threads}, **WITHOUT_BEATS)
    yield app
    assert check(app.store) == []


@pytest.fixture
def door(threads):
    door = Door()
    yield door
    door.close()


@pytest.fixture
def submit(app, door):
    def submit(*items, **policy):
        if "act" not in app.tasks:
            app.task(name="act", isolation="pool", **policy)(scripts.plain)
        numbered = enumerate(items)
        return app.submit("act", list(items), item_key=lambda _: next(numbered)[0], params=door.path)

    return submit


def told(job):
    return [(item.status, item.error_type, item.error) for item in job.items()]


# -- by name ----------------------------------------------------------------------------------------------------------


def test_a_task_that_names_no_executor_is_refused_when_it_is_registered(app):
    with pytest.raises(UsageError, match="unknown isolation 'pol'") as refused:
        app.task(name="act", isolation="pol")(scripts.plain)
    assert refused.value.hint == "did you mean pool?"
    assert list(app.tasks) == ["shell"]


@pytest.mark.parametrize("name", ["thread", "process", "asyncio", "", 1])
def test_an_executor_has_a_name_of_its_own(make_app, threads, name):
    with pytest.raises(UsageError, match="is no name for one"):
        make_app(executors={name: threads})


@pytest.mark.parametrize("what", [ThreadPoolExecutor, "pool", None])
def test_what_cannot_be_handed_anything_is_no_executor(make_app, what):
    with pytest.raises(UsageError, match="pool is not an executor"):
        make_app(executors={"pool": what})


@pytest.mark.parametrize("what", [["pool"], "pool", 3])
def test_executors_without_names_are_refused(make_app, what):
    with pytest.raises(UsageError, match="does not name them"):
        make_app(executors=what)


def test_a_handler_that_cannot_be_found_by_its_name_is_refused_when_the_daemon_starts(app):
    @app.task(isolation="pool")
    def local(_):
        pass

    with pytest.raises(UsageError, match="task local is made inside a function"), app.daemon():
        pass


def test_a_handler_that_is_registered_later_and_cannot_be_found_fails_its_items(app, submit):
    with app.daemon():
        assert submit([["return", 1]]).wait(SECONDS).status == "completed"

        @app.task(isolation="pool")
        def local(_):
            pass

        job = local.submit([1]).wait(SECONDS)
    ((status, error_type, error),) = told(job)
    assert (status, error_type) == ("failed", "UsageError")
    assert "is made inside a function" in error


def test_a_drain_runs_its_tasks_in_the_calling_thread(app, submit):
    job = submit([["return", 1]])
    assert app.drain().counts == {"completed": 1}
    assert [result.value for result in job.results()] == [1]


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_it_goes_on_after_the_daemon_has_left(app, submit, threads):
    with app.daemon():
        submit([["return", 1]]).wait(SECONDS)
    assert threads.submit(int, "7").result(SECONDS) == 7


def test_once_it_is_shut_down_its_items_stay_queued_and_the_daemon_says_so(app, submit, threads, until):
    threads.shutdown()

    @app.task
    def other(value):
        return value

    with app.daemon() as daemon:
        job = submit([["return", 1]])
        until(lambda: daemon.degraded)
        assert daemon.degraded == "executor pool takes no more: cannot schedule new futures after shutdown"
        # Nothing wakes it meanwhile: it stops claiming by itself.
        (pool,) = [pool for pool in daemon._dispatcher._pools._all() if pool.executor.size == 0]
        until(lambda: pool.claims.slots == 0)
        assert other.submit([1]).wait(SECONDS).status == "completed"
        until(lambda: job.refresh().counts.queued == 1 and not daemon._dispatcher.registry)
        assert daemon._dispatcher._pools.size == app.settings.workers
    assert job.item("0").status == "queued"


def test_one_that_gives_no_future_takes_nothing_and_the_daemon_says_so(make_app, until):
    class Silent:
        def submit(self, *_):
            return None

    app = make_app(executors={"pool": Silent()})
    app.task(name="act", isolation="pool")(scripts.plain)
    with app.daemon() as daemon:
        job = app.submit("act", ["a"])
        until(lambda: daemon.degraded)
        until(lambda: not daemon._dispatcher.registry)
    assert job.item("a").status == "queued"


def test_a_pool_whose_process_is_gone_fails_what_ran_there_and_takes_no_more(make_app, door, until):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        app = make_app(executors={"pool": pool})
        app.task(name="act", isolation="pool")(scripts.plain)
        with app.daemon() as daemon:
            keys = iter("ab")
            job = app.submit("act", [[["exit", 3]], [["return", 1]]], item_key=lambda _: next(keys), params=door.path)
            until(lambda: daemon.degraded)
            assert daemon.degraded.startswith("executor pool takes no more: ")
            until(lambda: job.refresh().counts.running == 0 and job.counts.failed)
        failed, queued = job.items()
    assert (failed.status, failed.error_type) == ("failed", "WorkerDied")
    assert failed.error.startswith("executor pool broke while it ran: ")
    assert (queued.status, queued.attempt) == ("queued", 0)


# -- what it cannot do ------------------------------------------------------------------------------------------------


def test_an_item_that_is_given_up_keeps_its_place_until_it_returns(app, submit, door, jobd_clock, until):
    with app.daemon() as daemon:
        job = submit([["come", "hangs"]], [["return", 1]], timeout=TIMEOUT)
        door.wait_for("hangs")
        jobd_clock.move(seconds=TIMEOUT)
        until(lambda: job.refresh().counts.failed == 1)
        until(lambda: daemon.degraded == "1 item hangs in executor pool")
        assert (job.counts.queued, daemon._dispatcher.abandoned, daemon._dispatcher.workers) == (1, 1, 0)
        door.open("hangs")
        until(lambda: job.refresh().counts.completed == 1)
        assert (daemon._dispatcher.abandoned, daemon.degraded) == (0, None)


def test_a_cancelled_item_that_waits_in_the_executor_ends_at_once(app, submit, threads, until):
    gate, begun = threading.Event(), threading.Event()

    def of_the_program():
        begun.set()
        assert gate.wait(SECONDS)

    theirs = threads.submit(of_the_program)
    assert begun.wait(SECONDS)
    with app.daemon():
        job = submit([["return", 1]])
        until(lambda: job.refresh().counts.running == 1)
        job.cancel()
        assert job.wait(SECONDS).status == "cancelled"
        gate.set()
        theirs.result(SECONDS)
    assert [item.status for item in job.items()] == ["cancelled"]


def test_a_handler_that_raises_it_in_this_process_was_not_interrupted_from_the_keyboard(app, submit):
    with app.daemon():
        job = submit([["fail_until", 2, "KeyboardInterrupt"], ["tell", "attempt"]]).wait(SECONDS)
    assert (job.item("0").status, job.item("0").error_type) == ("failed", "KeyboardInterrupt")


class AtOnce(Executor):
    """Runs what it is handed before it returns, and does not say how many workers it has."""

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def test_one_that_runs_items_while_it_is_handed_them_and_tells_nothing_of_itself_will_do(make_app, door):
    app = make_app(executors={"pool": AtOnce()})
    app.task(name="act", isolation="pool")(scripts.plain)
    numbers = iter(range(9))
    with app.daemon(workers=3) as daemon:
        job = app.submit("act", [[["return", 1]]] * 9, item_key=lambda _: next(numbers), params=door.path)
        assert job.wait(SECONDS).counts.completed == 9
        assert daemon._dispatcher.workers == 3


def test_an_item_that_is_given_up_while_it_is_handed_over_keeps_its_place(make_app, door, jobd_clock, until):
    """A pool's thread may be quicker than the one that hands it the item; here it always is."""
    app = make_app(executors={"pool": AtOnce()}, **WITHOUT_BEATS)
    app.task(name="act", isolation="pool", timeout=TIMEOUT)(scripts.plain)
    with app.daemon(workers=1) as daemon:
        job = app.submit("act", [[["come", "hangs"]]], params=door.path)
        door.wait_for("hangs")
        jobd_clock.move(seconds=TIMEOUT)
        until(lambda: job.refresh().counts.failed == 1)
        until(lambda: daemon.degraded == "1 item hangs in executor pool")
        assert daemon._dispatcher.workers == 0
        door.open("hangs")
        until(lambda: daemon.degraded is None)
        assert (daemon._dispatcher.abandoned, daemon._dispatcher.workers) == (0, 1)


class Crowded(Executor):
    """Begins nothing, and keeps who hands it an item until the door is open."""

    def __init__(self, door):
        self.door = door
        self.futures = []

    def submit(self, function, /, *arguments, **keywords):
        self.futures.append(Future())
        come(self.door.path, "submit")
        return self.futures[-1]


def test_an_item_that_is_cancelled_while_it_is_handed_over_never_begins(make_app, door, until):
    crowded = Crowded(door)
    app = make_app(executors={"pool": crowded}, **WITHOUT_BEATS)
    app.task(name="act", isolation="pool")(scripts.plain)
    with app.daemon(workers=1) as daemon:
        job = app.submit("act", [[["return", 1]]], params=door.path)
        door.wait_for("submit")
        job.cancel()
        until(lambda: [attempt.cancelled for attempt in daemon._dispatcher.registry.values()] == [True])
        door.open("submit")
        assert job.wait(SECONDS).status == "cancelled"
    assert [future.cancelled() for future in crowded.futures] == [True]


class Unreachable(Executor):
    """Takes its time, and then nothing: a cluster's client that has lost its connection."""

    def __init__(self, door):
        self.door = door

    def submit(self, function, /, *arguments, **keywords):
        come(self.door.path, "submit")
        raise ConnectionError("nobody is there")


def test_an_item_that_is_given_up_while_its_executor_refuses_it_stops_nobody(make_app, door, jobd_clock, until):
    app = make_app(executors={"far": Unreachable(door)}, **WITHOUT_BEATS)
    app.task(name="act", isolation="far", timeout=TIMEOUT)(scripts.plain)
    near = app.task(name="near")(lambda number: number)
    with app.daemon(workers=1) as daemon:
        job = app.submit("act", [[["return", 1]]], params=door.path)
        door.wait_for("submit")
        jobd_clock.move(seconds=TIMEOUT)
        until(lambda: job.refresh().counts.failed == 1)
        door.open("submit")
        until(lambda: daemon.degraded == "executor far takes no more: nobody is there")
        assert near.submit([1]).wait(SECONDS).status == "completed"
        assert daemon._dispatcher.abandoned == 0
    assert told(job) == [("failed", "TimeOut", "timed out after 5 m")]
    assert check(app.store) == []


# -- over there -------------------------------------------------------------------------------------------------------


@pytest.fixture
def order(tmp_path):
    return remote.Order(
        place=place_of(scripts.plain, "act"),
        wants_context=True,
        retry_on=(Exception,),
        db=str(tmp_path / "nowhere.db"),
        durability="normal",
        job_id=1,
        item_id=1,
        key="a",
        attempt=1,
        task="act",
        payload="[]",
        params="null",
        deadline=None,
        idempotency_key="act:0:1",
        period=None,
        refresh=False,
        polled=False,
    )


def test_orders_and_reports_are_plain_values(order):
    report = remote.run(pickle.loads(pickle.dumps({**order, "payload": '[["log","x"],["fail","ValueError","y"]]'})))
    assert pickle.loads(pickle.dumps(report)) == report
    assert report["answer"][:4] == ("failed", None, "ValueError", "y")


def test_a_handler_that_needs_the_file_where_there_is_none_fails_and_makes_none(order, tmp_path):
    report = remote.run({**order, "payload": '[["save_result", 1]]'})
    assert report["answer"][2] == NotFound.__name__
    assert list(tmp_path.iterdir()) == []


def test_a_handler_that_is_not_over_there_fails_its_item_with_the_reason(order):
    report = remote.run({**order, "place": Place("no_such_module", "act", None, None)})
    assert report["answer"][2:4] == ("ModuleNotFoundError", "No module named 'no_such_module'")


def test_the_store_is_asked_at_most_four_times_a_second_whether_the_job_is_being_cancelled(monkeypatch):
    awake, asked = 0.0, []

    def wanted(store, item_id, attempt):
        asked.append(awake)
        return len(asked) < 3

    monkeypatch.setattr(remote.clock, "awake", lambda: awake)
    monkeypatch.setattr(remote, "wanted", wanted)
    look = remote._Look(None, 1, 1)
    found = []
    for _ in range(100):
        found.append(look.cancelled())
        awake += 1 / 64
    assert asked == [0.0, 0.25, 0.5]
    assert found == [False] * 32 + [True] * 68
