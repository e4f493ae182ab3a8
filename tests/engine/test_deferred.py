"""Deferred work under a live daemon: asked about when due, beside everything else, and found after a crash."""

from __future__ import annotations

import contextlib
import threading

import pytest
from kit.beats import NEVER, WITHOUT_BEATS

from jobd import Retry
from jobd.engine import line, upkeep
from jobd.engine.points import Crash
from jobd.store.failures import Transient
from jobd.store.invariants import check

SECONDS = 20


@pytest.fixture
def app(make_app):
    """Without the beats that write: nothing but what is under test moves anything."""
    return make_app(poll_every=NEVER, **WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def order(app):
    @app.task
    def order(payload, ctx):
        ctx.defer(f"snap-{payload}", poll_after="10ms")

    return order


def test_a_daemon_asks_when_it_is_due_until_there_is_an_answer(app, order):
    asked = []

    @order.poll
    def ask(external_id):
        asked.append(external_id)
        if len(asked) < 3:
            raise Retry(after="10ms")
        return {"id": external_id}

    with app.daemon(workers=1):
        job = order.submit(["a"]).wait(SECONDS)
    assert (job.status, asked) == ("completed", ["snap-a"] * 3)
    assert [(result.value, result.source) for result in job.results()] == [({"id": "snap-a"}, "outside")]


def test_what_a_hook_takes_holds_nobody_up(app, order, gate):
    @order.poll
    def ask(external_id):
        gate.pass_through()
        return 1

    @app.task
    def other(payload):
        return payload

    with app.daemon(workers=1):
        slow = order.submit(["a"])
        assert gate.entered.wait(SECONDS)
        assert other.submit(["b"]).wait(SECONDS).status == "completed"
        assert app.recover() is not None, "the other passes go on beside it"
        gate.opened.set()
        assert slow.wait(SECONDS).status == "completed"


def test_a_daemon_leaves_though_a_hook_never_answers(app, order, gate, until, monkeypatch):
    monkeypatch.setattr(upkeep, "PATIENCE", 0.05)
    order.poll(lambda external_id: gate.pass_through() or "late")
    daemon = app.daemon(workers=1)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(daemon)
        job = order.submit(["a"])
        assert gate.entered.wait(SECONDS)
        running.stop(drain=False)
        assert running.join(timeout=SECONDS)
    gate.opened.set()
    until(lambda: "jobd-polls" not in {thread.name for thread in threading.enumerate()})
    assert job.item("a").status == "waiting", "what it answers when nobody holds the lock any more is not written"


def test_a_daemon_drains_though_something_waits_and_the_next_goes_on_asking(app, order):
    order.poll(lambda external_id: None)
    with app.daemon(workers=1) as running:
        job = order.submit(["a"])
        while job.item("a").status != "waiting":
            pass
        running.stop()
        assert running.join(timeout=SECONDS)
    order.poll(lambda external_id: 1)
    with app.daemon(workers=1):
        assert job.wait(SECONDS).status == "completed"


@pytest.mark.parametrize("point", ["settle.before_commit", "settle.after_commit"])
def test_what_was_committed_survives_a_crash_at_any_later_point(jobd_app, jobd_clock, jobd_crash, point):
    calls = []

    @jobd_app.task
    def order(payload, ctx):
        calls.append(payload)
        ctx.defer("snap-1")

    job = order.submit(["a"])
    with jobd_crash(point):
        jobd_app.drain()
    jobd_app.drain()
    (item,) = job.items()
    assert (item.status, item.external_id, item.attempt, item.interruptions) == ("waiting", "snap-1", 1, 0)
    assert calls == ["a"]


def test_a_crash_between_the_vendors_answer_and_our_record_is_found_by_verify(
    jobd_app, jobd_clock, jobd_crash, monkeypatch
):
    snapshots = {}

    @jobd_app.task
    def order(payload, ctx):
        ctx.intend(f"snapshot {payload}")
        snapshots.setdefault(ctx.idempotency_key, []).append("v-1")
        ctx.defer("v-1")

    @order.verify
    def made(payload, ctx):
        assert ctx.intent == f"snapshot {payload}"
        return snapshots.get(ctx.idempotency_key)

    def crash(*_, **__):
        raise Crash("defer")

    job = order.submit(["a"])
    with monkeypatch.context() as broken, contextlib.suppress(Crash):
        broken.setattr(line, "defer", crash)
        jobd_app.drain()
    assert job.item("a").status == "running"
    jobd_app.drain()
    (result,) = job.results()
    assert (job.status, result.value, result.source) == ("completed", ["v-1"], "verify")
    assert list(snapshots.values()) == [["v-1"]], "the vendor was called once"


def test_an_async_handler_that_finds_the_store_busy_loses_no_id(app, monkeypatch):
    refused = []

    def busy(*_, **__):
        refused.append(True)
        raise Transient("locked", reason="busy", waited=0.0)

    @app.task
    async def order(payload, ctx):
        ctx.defer("snap-1", deadline="1h")

    order.poll(lambda external_id: 1)
    monkeypatch.setattr(line, "defer", busy)
    job = order.submit(["a"])
    app.drain()
    (item,) = job.items()
    assert (refused, item.status, item.external_id) == ([True], "waiting", "snap-1")
    text = "select poll_at is not null, deadline_at is not null from job_items"
    assert tuple(app.store.read(lambda c: c.execute(text).fetchone())) == (1, 1)
