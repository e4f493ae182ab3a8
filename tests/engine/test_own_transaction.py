"""Handlers with a transaction of their own: what their context does beside it, and what becomes of it."""

from __future__ import annotations

import peewee
import pytest

from jobd.store.invariants import check


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
