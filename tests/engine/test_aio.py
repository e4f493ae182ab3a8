"""Async handlers: many at once in one thread, really cancelled, and none that holds up the others for long."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from kit.beats import WITHOUT_BEATS

from jobd import StoreBusy, UsageError
from jobd.engine import aio
from jobd.engine.points import Crash
from jobd.store import sqlite as driver
from jobd.store.invariants import check

SECONDS = 20
TIMEOUT = 300


@pytest.fixture
def app(make_app):
    """Without the beats that write: nothing but what is under test wakes the dispatcher."""
    return make_app(**WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


class Swallower:
    """A task whose handlers note that they are cancelled, and go on until they are let go."""

    def __init__(self, app, **policy):
        self.began = threading.Semaphore(0)
        self.swallowed = threading.Semaphore(0)
        self.gates = {}

        @app.task(timeout=TIMEOUT, **policy)
        async def swallows(value):
            gate = self.gates[value] = asyncio.Event(), asyncio.get_running_loop()
            self.began.release()
            while not gate[0].is_set():
                try:
                    await gate[0].wait()
                except asyncio.CancelledError:
                    self.swallowed.release()
            return value

        self.task = swallows

    def let_go(self, value):
        event, loop = self.gates[value]
        loop.call_soon_threadsafe(event.set)


def events(job, name):
    return [event for event in job.events(items=True) if event.item_key and event.name == name]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_a_thousand_sleeping_handlers_run_at_once_in_one_thread(app):
    begun, threads = set(), set()
    everybody = None

    @app.task(concurrency=1_000)
    async def sleeps(number):
        nonlocal everybody
        everybody = everybody or asyncio.Event()
        begun.add(number)
        threads.add(threading.current_thread())
        if len(begun) == 1_000:
            everybody.set()
        await everybody.wait()

    with app.daemon(workers=1):
        job = sleeps.submit(range(1_000)).wait(SECONDS)
    assert job.counts.completed == 1_000
    assert [thread.name for thread in threads] == ["jobd-asyncio"]


def test_tasks_that_are_registered_later_have_places_of_their_own(app, gate):
    @app.task(concurrency=1)
    async def first(_):
        await asyncio.to_thread(gate.pass_through)

    with app.daemon(workers=1) as daemon:
        one = first.submit()
        assert gate.entered.wait(SECONDS)
        assert daemon._dispatcher.workers == 1
        together = threading.Barrier(2)

        @app.task(concurrency=2)
        async def second(_):
            await asyncio.to_thread(together.wait, SECONDS)

        two = second.submit(range(2)).wait(SECONDS)
        assert daemon._dispatcher.workers == 3
        gate.opened.set()
        one.wait(SECONDS)
    assert (one.status, two.status) == ("completed", "completed")


def test_what_waits_behind_a_handler_that_holds_the_loop_is_given_back(app, gate, until):
    @app.task
    async def holds(value):
        gate.pass_through()
        return value

    with app.daemon(workers=1) as daemon:
        job = holds.submit(range(3))
        assert gate.entered.wait(SECONDS)
        until(lambda: daemon._dispatcher._pools.waiting() or job.refresh().counts.queued == 2)
        gate.opened.set()
        assert job.wait(SECONDS).counts.completed == 3


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_handler_that_goes_on_after_its_time_counts_as_abandoned_until_it_answers_late(app, jobd_clock, until):
    swallower = Swallower(app, concurrency=2)
    with app.daemon(workers=1) as daemon:
        job = swallower.task.submit(["hangs"])
        assert swallower.began.acquire(timeout=SECONDS)
        jobd_clock.move(seconds=TIMEOUT)
        assert swallower.swallowed.acquire(timeout=SECONDS)
        until(lambda: job.refresh().status == "failed")
        assert (daemon._dispatcher.abandoned, daemon.degraded) == (1, None)
        swallower.let_go("hangs")
        until(lambda: events(job, "late"))
        assert daemon._dispatcher.abandoned == 0
    assert job.item("hangs").status == "failed"


def test_a_handler_that_is_cancelled_at_its_time_is_not_heard_of_again(app, jobd_clock, until):
    began, left = threading.Event(), threading.Event()

    @app.task(timeout=TIMEOUT)
    async def sleeps(_, ctx):
        ctx.log.info("it sleeps")
        began.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            left.set()

    with app.daemon(workers=1) as daemon:
        job = sleeps.submit()
        assert began.wait(SECONDS)
        jobd_clock.move(seconds=TIMEOUT)
        assert left.wait(SECONDS)
        until(lambda: job.refresh().status == "failed" and daemon._dispatcher.abandoned == 0)
        # Whoever is delivered after it would have been settled with this one.
        sleeps.submit().cancel()
    assert events(job, "late") == []
    assert job.output("sleeps").text.endswith("INFO it sleeps")


def test_beyond_twice_its_places_the_daemon_says_that_handlers_hang(app, jobd_clock, until):
    swallower = Swallower(app, concurrency=1)
    with app.daemon(workers=1) as daemon:
        job = swallower.task.submit(range(3))
        for _ in range(2):
            assert swallower.began.acquire(timeout=SECONDS)
            jobd_clock.move(seconds=TIMEOUT)
            assert swallower.swallowed.acquire(timeout=SECONDS)
        until(lambda: daemon.degraded == "2 async handlers hang")
        assert (daemon._dispatcher.workers, job.refresh().counts.queued) == (0, 1)
        swallower.let_go(0)
        assert swallower.began.acquire(timeout=SECONDS)
        assert daemon.degraded is None
        swallower.let_go(1)
        swallower.let_go(2)
        job.wait(SECONDS)
    assert (job.counts.failed, job.counts.completed) == (2, 1)


def test_a_place_comes_back_also_where_its_handler_ends_as_cancelled_in_the_end(app, jobd_clock, until):
    began, swallowed = threading.Semaphore(0), threading.Semaphore(0)
    loop, tasks = [], []

    @app.task(timeout=TIMEOUT, concurrency=1)
    async def swallows_once(_):
        loop.append(asyncio.get_running_loop())
        tasks.append(asyncio.current_task())
        began.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.release()
            await asyncio.Event().wait()

    with app.daemon(workers=1) as daemon:
        swallows_once.submit(range(3))
        for _ in range(2):
            assert began.acquire(timeout=SECONDS)
            jobd_clock.move(seconds=TIMEOUT)
            assert swallowed.acquire(timeout=SECONDS)
        (pool,) = daemon._dispatcher._pools._all()
        until(lambda: daemon._dispatcher.workers == 0 and pool.claims.busy == 0)
        loop[0].call_soon_threadsafe(tasks[0].cancel)
        assert began.acquire(timeout=SECONDS)
        loop[0].call_soon_threadsafe(tasks[2].cancel)
        assert swallowed.acquire(timeout=SECONDS)
        daemon.stop(drain=False)


def test_a_cancelled_error_that_no_job_asked_for_fails_its_item(app):
    @app.task
    async def awaits_what_was_cancelled(_):
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    with app.daemon(workers=1):
        job = awaits_what_was_cancelled.submit().wait(SECONDS)
    (item,) = job.items()
    assert (item.status, item.error_type) == ("failed", "CancelledError")


def test_what_a_handler_returns_although_it_was_cancelled_counts(app):
    began = threading.Event()

    @app.task
    async def finishes(_):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "after all"

    with app.daemon(workers=1):
        job = finishes.submit()
        assert began.wait(SECONDS)
        job.cancel()
        job.wait(SECONDS)
    assert [result.value for result in job.results()] == ["after all"]


# -- one thread for all -----------------------------------------------------------------------------------------------


def test_a_transaction_that_is_open_across_an_await_is_rolled_back_and_its_handler_told(app, rows):
    rows.change("create table mine (value)")

    @app.task
    async def leaves_it_open(_, ctx):
        app.database.execute_sql("begin immediate")
        app.database.execute_sql("insert into mine values (1)")
        try:
            await asyncio.sleep(0)
        except UsageError as error:
            ctx.log.info(error)
        # What is said after it is stored.
        ctx.save_result("saved")
        await asyncio.sleep(0)

    with app.daemon(workers=1):
        job = leaves_it_open.submit().wait(SECONDS)
    assert (job.status, rows.all("select * from mine")) == ("completed", [])
    (item,) = job.items()
    assert "a transaction was open while the handler awaited" in job.output(item.key).text


def test_a_transaction_between_two_awaits_is_the_handlers_own(app, rows):
    rows.change("create table mine (value)")

    @app.task
    async def commits(_):
        await asyncio.sleep(0)
        with app.database.atomic():
            app.database.execute_sql("insert into mine values (1)")
        await asyncio.sleep(0)

    with app.daemon(workers=1):
        assert commits.submit().wait(SECONDS).status == "completed"
    assert rows.all("select * from mine") == [(1,)]


def test_while_the_store_is_busy_a_handler_is_told_and_its_result_is_kept(app, path, monkeypatch):
    monkeypatch.setattr(driver, "BUSY_TIMEOUT_MS", 1)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    told, begun, locked = [], threading.Event(), threading.Event()

    @app.task
    async def saves(_, ctx):
        begun.set()
        await asyncio.to_thread(locked.wait, SECONDS)
        try:
            ctx.save_result("saved")
        except StoreBusy as error:
            told.append(error)
            raise
        finally:
            other.execute("rollback")

    with app.daemon(workers=1):
        job = saves.submit()
        assert begun.wait(SECONDS)
        other.execute("begin immediate")
        locked.set()
        job.wait(SECONDS)
    other.close()
    assert len(told) == 1
    assert (job.status, [result.value for result in job.results()]) == ("completed", ["saved"])


def test_a_task_that_a_handler_began_may_leave_the_loop_and_the_others_go_on(app, caplog):
    @app.task
    async def begins(value):
        async def leaves():
            raise SystemExit(3)

        if value == "leaves":
            await asyncio.create_task(leaves())
        return value

    with app.daemon(workers=1):
        job = begins.submit(["leaves", "stays"]).wait(SECONDS)
        assert begins.submit(["later"]).wait(SECONDS).status == "completed"
    assert [(item.status, item.error_type) for item in job.items()] == [("failed", "SystemExit"), ("completed", None)]
    assert "left the event loop" in caplog.text


def test_a_crash_in_a_handler_ends_the_daemon(app, jobd_crash):
    @app.task
    async def returns(value):
        return value

    job = returns.submit([1])
    with jobd_crash("handler.after"), app.daemon(workers=1) as daemon:
        daemon.join(SECONDS)
    assert isinstance(daemon.failure, Crash)
    assert job.refresh().counts.running == 1
    with app.daemon(workers=1):
        assert job.wait(SECONDS).status == "completed"


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_a_handler_that_is_not_waited_for_leaves_in_order_and_so_does_its_loop(app):
    began, left, threads = threading.Event(), [], []

    async def numbers():
        try:
            yield 1
        finally:
            left.append("generator")

    @app.task
    async def sleeps(_):
        iterator = numbers()
        await anext(iterator)
        threads.append(threading.current_thread())
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append("handler")

    with app.daemon(workers=1) as daemon:
        job = sleeps.submit()
        assert began.wait(SECONDS)
        daemon.stop(drain=False)
    threads[0].join(SECONDS)
    assert not threads[0].is_alive()
    assert left == ["handler", "generator"]
    assert job.refresh().counts.queued == 1


def test_who_begins_another_whenever_it_is_cancelled_is_let_be(app, until, monkeypatch):
    """Cancelled for ever, it would keep a processor busy after the daemon has left."""
    monkeypatch.setattr(aio, "ROUNDS", 5)
    begun, threads, over = [], [], threading.Event()

    async def again():
        begun.append(asyncio.current_task())
        try:
            await asyncio.Event().wait()
        finally:
            if not over.is_set():
                begun.append(asyncio.create_task(again()))

    @app.task
    async def spawns(_):
        threads.append((threading.current_thread(), asyncio.get_running_loop()))
        await again()

    with app.daemon(workers=1) as daemon:
        job = spawns.submit()
        until(lambda: threads)
        daemon.stop(drain=False)
    ((thread, loop),) = threads
    until(lambda: len(set(begun)) == 6)
    rounds = []
    # Were it cancelled again and again, there would be more of them each time that the loop is asked.
    for _ in range(20):
        loop.call_soon_threadsafe(lambda: rounds.append(len(set(begun))))
    until(lambda: len(rounds) == 20)
    assert set(rounds) == {6}
    over.set()
    loop.call_soon_threadsafe(begun[-1].cancel)
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert job.refresh().counts.queued == 1


def test_nothing_is_said_on_stderr_about_handlers_that_never_end(program):
    going = program(
        """
        import asyncio

        logging.disable()
        app = Jobd(path)

        @app.task
        async def never(value):
            say("began")
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if value == "leaves":
                        raise

        with app.daemon(workers=1) as daemon:
            never.submit(["leaves", "stays"])
            told()
            daemon.stop(drain=False)
        say("left")
        """
    )
    going.hears("began")
    going.hears("began")
    going.tell("go")
    going.hears("left")
    assert going.leaves() == 0
    assert going.log() == ""


# -- in the calling thread --------------------------------------------------------------------------------------------


def test_a_drain_runs_async_handlers_in_the_calling_thread(app):
    threads = []

    @app.task
    async def works(value, ctx):
        threads.append(threading.current_thread())
        ctx.log.info("at it")
        await asyncio.sleep(0)
        return value

    job = works.submit([1, 2])
    assert app.drain().counts == {"completed": 2}
    assert set(threads) == {threading.main_thread()}
    assert [result.value for result in job.results()] == [1, 2]


def test_a_drain_refuses_where_a_loop_runs_and_there_are_async_handlers(app):
    @app.task
    async def works(_):
        pass

    async def drains():
        return app.drain()

    works.submit()
    with pytest.raises(UsageError, match="an event loop runs in this thread"):
        asyncio.run(drains())
    assert app.drain().counts == {"completed": 1}


def test_a_drain_that_runs_plain_handlers_may_be_called_in_a_loop(app):
    @app.task
    def works(_):
        pass

    async def drains():
        return app.drain()

    works.submit()
    assert asyncio.run(drains()).counts == {"completed": 1}


def test_a_handler_that_is_interrupted_from_the_keyboard_is_given_back(app):
    left = []

    async def beside():
        try:
            await asyncio.Event().wait()
        finally:
            left.append("beside")

    @app.task
    async def works(_):
        task = asyncio.create_task(beside())
        await asyncio.sleep(0)
        if not left:
            raise KeyboardInterrupt
        task.cancel()

    job = works.submit()
    with pytest.raises(KeyboardInterrupt):
        app.drain()
    assert left == ["beside"]
    assert job.refresh().counts.queued == 1
    assert app.drain().counts == {"completed": 1}


def test_a_handler_cannot_drain_its_own_queue_and_who_called_it_can(app):
    refused = []

    @app.task
    async def works(_):
        try:
            await asyncio.to_thread(app.drain)
        except UsageError as error:
            refused.append(str(error))

    works.submit()
    app.drain()
    assert refused == ["a handler cannot run its own queue"]
    assert app.drain().counts == {}


def test_the_timers_of_a_loop_run_under_a_clock_that_stands_still(app, jobd_clock):
    @app.task
    async def sleeps(value):
        await asyncio.sleep(0.001)
        return value

    with app.daemon(workers=1):
        assert sleeps.submit([1]).wait(SECONDS).status == "completed"
    sleeps.submit([2])
    assert app.drain().counts == {"completed": 1}
