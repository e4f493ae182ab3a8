"""Handlers with a transaction of their own: what their context does beside it, and what becomes of it."""

from __future__ import annotations

import asyncio
import sqlite3

import peewee
import pytest
from kit import handlers

from jobd import Jobd, UsageError
from jobd.store.invariants import check

SECONDS = 20


@pytest.fixture
def order(app):
    class Order(peewee.Model):
        name = peewee.TextField()

        class Meta:
            database = app.database

    app.database.create_tables([Order])
    return Order


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


def names(order):
    return [row.name for row in order.select().order_by(order.id)]


def _no():
    raise ValueError("no")


def drained(app, work, **policy):
    job = app.task(name="work", **policy)(work).submit(["a"])
    app.drain()
    return job.refresh()


def test_a_result_that_was_saved_and_rolled_back_is_no_result(app, order):
    def work(_, ctx):
        with app.atomic():
            order.create(name="one")
            ctx.save_result("saved")
            _no()

    job = drained(app, work)
    assert (job.status, job.item("a").error, list(job.results()), names(order)) == ("failed", "no", [], [])


def test_what_is_returned_after_such_a_block_is_the_result(app):
    def work(_, ctx):
        try:
            with app.atomic():
                ctx.save_result("saved")
                _no()
        except ValueError:
            return "returned"

    assert [result.value for result in drained(app, work).results()] == ["returned"]


def test_a_result_is_saved_with_the_rows_beside_it(app, order):
    def work(_, ctx):
        with app.atomic():
            order.create(name="one")
            ctx.save_result("saved")
        raise ValueError("too late")

    job = drained(app, work)
    assert ([result.value for result in job.results()], names(order)) == (["saved"], ["one"])


@pytest.mark.parametrize("inner", [False, True])
def test_a_deferral_keeps_the_rows_of_the_block_that_it_leaves(app, order, inner):
    def work(_, ctx):
        with app.atomic():
            order.create(name="one")
            if inner:
                with app.atomic():
                    order.create(name="two")
                    ctx.defer("snap-1")
            ctx.defer("snap-1")

    job = drained(app, work)
    assert names(order) == ["one", "two"][: 1 + inner]
    assert (job.item("a").status, job.item("a").external_id) == ("waiting", "snap-1")


def test_where_such_a_block_cannot_be_committed_the_id_is_kept(app, caplog):
    def work(_, ctx):
        with app.atomic():
            app.database.execute_sql("pragma defer_foreign_keys=on")
            app.database.execute_sql("insert into watchlist (task, key, last_job_id) values ('t', 'k', 99)")
            ctx.defer("snap-1")

    job = drained(app, work)
    assert (job.item("a").status, job.item("a").external_id) == ("waiting", "snap-1")
    assert "what was written beside a deferral to 'snap-1' is lost: FOREIGN KEY constraint failed" in caplog.messages
    assert app.watchlist.entries() == []


def test_an_intent_that_could_be_rolled_back_is_refused(app):
    def work(_, ctx):
        with app.atomic():
            ctx.intend("to order")

    assert "ctx.intend" in drained(app, work).item("a").error


# -- where the context has another connection -------------------------------------------------------------------------

CALLS = {
    "save_result": lambda ctx: ctx.save_result(1),
    "save_data": lambda ctx: ctx.save_data(b"1"),
    "add_items": lambda ctx: ctx.add_items(["b"]),
    "intend": lambda ctx: ctx.intend("to order"),
}


@pytest.mark.parametrize("call", CALLS)
def test_beside_another_app_on_the_same_file_what_would_wait_for_ever_is_refused(app, path, call):
    other = Jobd(path)

    def work(_, ctx):
        with other.atomic():
            CALLS[call](ctx)

    job = drained(app, work)
    other.close()
    assert (job.item("a").error_type, job.counts.total) == ("UsageError", 1)
    assert f"ctx.{call}" in job.item("a").error


def test_beside_it_progress_is_left_out_and_a_deferral_goes_with_the_outcome(app, path, order):
    other = Jobd(path)

    def work(_, ctx):
        with other.atomic():
            other.database.execute_sql("insert into 'order' (name) values ('one')")
            ctx.progress(1, 2)
            ctx.defer("snap-1")

    job = drained(app, work)
    other.close()
    assert (job.item("a").status, job.item("a").external_id, names(order)) == ("waiting", "snap-1", ["one"])


def test_in_a_process_it_is_refused_and_what_it_leaves_open_is_rolled_back(app, path, until):
    task = app.task(isolation="process", concurrency=1)(handlers.opens_its_own)
    job = task.submit(["save_result", "left open", "defer"], params=str(path))
    with app.daemon(workers=1):
        until(lambda: not job.refresh().counts.queued + job.counts.running)
        refused, left, deferred = job.items()
    assert "ctx.save_result" in refused.error
    assert (left.status, "left a transaction open" in job.output("left open").text) == ("completed", True)
    assert (deferred.status, deferred.external_id) == ("waiting", "snap-1")
    connection = sqlite3.connect(path, timeout=0)
    connection.execute("begin immediate")
    connection.close()


# -- event loops ------------------------------------------------------------------------------------------------------


def test_what_another_asyncio_task_submits_is_never_taken_back_with_a_block_that_awaits(app, order):
    task = app.task(name="work")(lambda payload: payload)
    found = []

    async def awaits():
        with app.atomic():
            order.create(name="one")
            await asyncio.sleep(0)

    async def comes_by():
        for write in (lambda: task.submit(["b"]), app.atomic().__enter__):
            with pytest.raises(UsageError, match="another asyncio task"):
                write()
        found.append("refused")

    async def both():
        return await asyncio.gather(awaits(), comes_by(), return_exceptions=True)

    error, none = asyncio.run(both())
    assert (found, none) == (["refused"], None)
    assert isinstance(error, UsageError)
    assert "awaited" in str(error)
    assert (names(order), app.jobs()) == ([], [])


def test_within_a_loop_a_block_that_does_not_await_is_as_anywhere(app, order):
    task = app.task(name="work")(lambda payload: payload)

    async def stores():
        with app.atomic():
            order.create(name="one")
            with app.atomic():
                task.submit(["a"])
        await asyncio.sleep(0)
        with app.atomic():
            order.create(name="two")

    asyncio.run(stores())
    assert (names(order), len(app.jobs())) == (["one", "two"], 1)
