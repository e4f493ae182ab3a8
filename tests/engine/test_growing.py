"""Jobs that grow while they run: what an attempt adds, and that the job ends when nothing of it is open."""

from __future__ import annotations

import threading

import pytest

from jobd import Cancelled, InvalidItem, Lost
from jobd.store import chunks
from jobd.store.invariants import check

SECONDS = 20


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def added():
    return []


@pytest.fixture
def grow(app, added):
    """A task that adds the numbers below twice its own, once each."""

    @app.task
    def grow(number, ctx):
        added.append(ctx.add_items(n for n in (2 * number, 2 * number + 1) if n < ctx.params))

    return grow


def test_a_job_grows_from_within_and_ends_when_nothing_is_open(app, grow, added):
    with app.daemon(workers=4):
        job = grow.submit([1], params=500).wait(SECONDS)
    assert (job.status, job.counts.total, job.counts.completed) == ("completed", 499, 499)
    assert {item.key for item in job.items(limit=600)} == {str(number) for number in range(1, 500)}
    assert sum(added) == 498


def test_no_item_is_due_before_it_is_there_and_none_is_left_behind_by_a_crash(app, grow, jobd_crash):
    job = grow.submit([1], params=60)
    for point in ("settle.before_commit", "settle.after_commit", "claim.after_commit", "handler.after"):
        with jobd_crash(point, at=5):
            app.drain()
    app.drain()
    assert (job.refresh().status, job.counts.completed) == ("completed", 59)


def test_a_known_key_is_left_as_it_is_and_another_payload_is_told_in_its_history(app):
    @app.task
    def work(value, ctx):
        if value["key"] == "first":
            same = {"key": "second", "size": 1}
            assert ctx.add_items([same, {"key": "third"}, same], item_key="key") == 1
            assert ctx.add_items([{"key": "second", "size": 2}], item_key="key") == 0

    job = work.submit([{"key": "first"}, {"size": 1, "key": "second"}], item_key="key")
    app.drain()
    assert (job.refresh().status, job.counts.total) == ("completed", 3)
    assert job.item("second").payload == {"size": 1, "key": "second"}
    told = [(event.item_key, event.name, event.from_status == event.to_status) for event in job.events(items=True)]
    assert told.count(("second", "changed", True)) == 1


def test_nothing_is_added_for_an_attempt_that_is_not_the_items_any_more(app, gate, jobd_clock):
    said, spoken = [], threading.Event()

    @app.task(timeout=60)
    def work(value, ctx):
        gate.pass_through()
        try:
            ctx.add_items(["late"])
        except Lost as error:
            said.append(str(error))
        spoken.set()

    with app.daemon(workers=1):
        job = work.submit(["a"])
        assert gate.entered.wait(SECONDS)
        jobd_clock.move(seconds=61)
        assert job.wait(SECONDS).status == "failed"
        gate.opened.set()
        # Nobody waits for a thread that was given up.
        assert spoken.wait(SECONDS)
    assert said == ["attempt 1 is no longer that of item 1"]
    assert job.refresh().counts.total == 1


@pytest.mark.parametrize("ask", ["cancel", "fail"])
def test_nothing_is_added_to_a_job_that_is_asked_to_end(app, gate, ask):
    said = []

    @app.task
    def work(value, ctx):
        gate.pass_through()
        try:
            ctx.add_items(["late"])
        except Cancelled as error:
            said.append(str(error))
            raise

    with app.daemon(workers=1):
        job = work.submit(["a"])
        assert gate.entered.wait(SECONDS)
        job.cancel() if ask == "cancel" else job.fail("enough")
        gate.opened.set()
        job.wait(SECONDS)
    assert said == ["the job is being cancelled: nothing can be added"]
    assert (job.refresh().counts.total, job.counts.cancelled) == (1, 1)


def test_what_cannot_be_an_item_is_refused_with_its_place_and_what_came_before_is_there(app, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 20)

    @app.task
    def work(value, ctx):
        if value == "a":
            ctx.add_items([*(f"n{number}" for number in range(41)), None])

    job = work.submit(["a"])
    app.drain()
    assert job.refresh().item("a").error_type == InvalidItem.__name__
    assert "item 41" in job.item("a").error
    assert (job.counts.total, job.counts.failed) == (41, 1)


def test_adding_is_progress_of_the_job_and_wakes_who_waits(app, gate):
    @app.task
    def work(value, ctx):
        if value == "a":
            ctx.add_items(["b"])
            gate.pass_through()

    with app.daemon(workers=2):
        job = work.submit(["a"])
        assert gate.entered.wait(SECONDS)
        # Long before the dispatcher would look by itself the added item has run beside the one that added it.
        for _ in range(SECONDS * 500):
            if job.refresh().counts.completed == 1:
                break
            gate.opened.wait(0.002)
        assert (job.item("b").status, job.item("a").status) == ("completed", "running")
        gate.opened.set()
        assert job.wait(SECONDS).counts.completed == 2
