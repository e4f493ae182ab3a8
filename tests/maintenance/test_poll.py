"""The outside is asked about what waits for it, when it is due; what it says is written where it still counts."""

from __future__ import annotations

import datetime as dt

import pytest

from jobd import Fail, Retry, UsageError
from jobd.store import polling
from jobd.store.invariants import check

HOUR = 3_600


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def order(app, jobd_clock):
    """A task that defers each item under its payload, asked about after 10 s."""

    @app.task
    def order(payload, ctx):
        ctx.defer(payload, poll_after=10, deadline="7d")

    return order


@pytest.fixture
def vendor(order):
    """What the vendor says of each id, and the ids that it was asked about."""

    class Vendor:
        def __init__(self):
            self.says, self.asked = {}, []

        def answer(self, external_id):
            self.asked.append(external_id)
            said = self.says.get(external_id, Retry())
            said = said() if callable(said) and not isinstance(said, BaseException) else said
            if isinstance(said, BaseException):
                raise said
            return said

    vendor = Vendor()
    order.poll(vendor.answer)
    return vendor


def submitted(app, order, *ids):
    job = order.submit(list(ids))
    app.drain()
    return job


def asked_at(app, vendor, jobd_clock, seconds):
    """Return after how many seconds the vendor was asked, by a drain at each of them."""
    times = []
    for second in range(1, seconds + 1):
        jobd_clock.move(seconds=1)
        before = len(vendor.asked)
        app.drain()
        times += [second] * (len(vendor.asked) - before)
    return times


def test_it_is_asked_when_it_is_due_and_less_and_less_often(app, order, vendor, jobd_clock):
    submitted(app, order, "s-1")
    assert asked_at(app, vendor, jobd_clock, 80) == [10, 30, 70]


def test_the_gap_grows_up_to_an_hour(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    gaps = []
    for _ in range(12):
        due = app.drain().next_due
        jobd_clock.move_to(dt.datetime.fromtimestamp(due / 1000, dt.UTC))
        app.drain()
        gaps.append(gap(app, job))
    assert gaps[:3] == [20, 40, 80]
    assert gaps[-2:] == [HOUR, HOUR]


def gap(app, job):
    text = "select poll_gap_ms from job_items where job_id = ?"
    return app.store.read(lambda connection: connection.execute(text, (job.id,)).fetchone()[0]) / 1000


def test_a_gap_that_was_asked_for_beyond_an_hour_stays(app, vendor, jobd_clock):
    @app.task(name="slow")
    def slow(payload, ctx):
        ctx.defer(payload, poll_after="3h")

    slow.poll(lambda external_id: None)
    job = submitted(app, slow, "s-1")
    jobd_clock.move(hours=3)
    app.drain()
    assert gap(app, job) == 3 * HOUR


def test_retry_says_itself_when_to_ask_again(app, order, vendor, jobd_clock):
    vendor.says["s-1"] = Retry(after=3)
    submitted(app, order, "s-1")
    assert asked_at(app, vendor, jobd_clock, 17) == [10, 13, 16]


def test_retry_at_once_is_asked_once_by_one_drain(app, order, vendor, jobd_clock):
    vendor.says["s-1"] = Retry(after=0)
    submitted(app, order, "s-1")
    jobd_clock.move(seconds=10)
    app.drain()
    assert vendor.asked == ["s-1"]


def test_a_value_completes_the_item_from_outside(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    vendor.says["s-1"] = {"url": "u"}
    jobd_clock.move(seconds=10)
    assert app.drain().counts == {"completed": 1}
    (result,) = job.results()
    assert (job.refresh().status, result.value, result.source) == ("completed", {"url": "u"}, "outside")
    told = [
        (e.name, e.from_status, e.to_status, e.external_id, e.message) for e in job.events(items=True) if e.item_key
    ]
    assert told[1:] == [("complete", "waiting", "completed", "s-1", "its poll has answered")]


def test_fail_fails_the_item_with_the_reason(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    vendor.says["s-1"] = Fail("no such data")
    jobd_clock.move(seconds=10)
    assert app.drain().counts == {"failed": 1}
    (item,) = job.items()
    assert (job.refresh().status, item.status, item.error, item.failures) == ("failed", "failed", "no such data", 1)
    assert job.last_error == "no such data"


WRONG = {"raises": lambda: 1 / 0, "exit": lambda: SystemExit(3), "no JSON": lambda: {1, 2}, "nothing": lambda: None}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_hook_that_cannot_say_counts_as_not_yet(app, order, vendor, jobd_clock, wrong, caplog):
    job = submitted(app, order, "s-1")
    vendor.says["s-1"] = wrong
    assert asked_at(app, vendor, jobd_clock, 30) == [10, 30]
    assert job.item("s-1").status == "waiting"
    assert ("could not say" in caplog.text) == (wrong is not WRONG["nothing"])


def test_it_is_told_whose_answer_it_asks_for(app, order, jobd_clock):
    seen = []

    @order.poll
    def ask(external_id, ctx):
        seen.append((external_id, ctx.job_id, ctx.key, ctx.attempt, ctx.params, ctx.intent))
        return 1

    job = order.submit(["s-1"], params={"a": 1})
    app.drain()
    jobd_clock.move(seconds=10)
    app.drain()
    assert seen == [("s-1", job.id, "s-1", 1, {"a": 1}, None)]


def test_what_is_paused_or_about_to_end_is_not_asked_about(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    job.pause()
    jobd_clock.move(minutes=1)
    app.drain()
    assert vendor.asked == []
    job.unpause()
    app.drain()
    assert vendor.asked == ["s-1"]


def test_an_answer_for_what_has_ended_meanwhile_changes_nothing(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")

    def cancelled():
        job.cancel()
        return "too late"

    vendor.says["s-1"] = cancelled
    jobd_clock.move(seconds=10)
    app.drain()
    assert (job.refresh().status, list(job.results())) == ("cancelled", [])


def test_an_answer_for_another_attempt_changes_nothing(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    (first,) = app.store.read(lambda c: polling.due(app.store, c, ["order"], 2**60, 9))
    job.deliver_failure("s-1", "lost")
    job.retry()
    app.drain()
    said = polling.Said(first, polling.Word.VALUE, 5, '"that of the first"')
    assert app.store.write(lambda c: polling.settle(app.store, c, said, actor="t")) is None
    assert (job.item("s-1").status, job.item("s-1").attempt) == ("waiting", 2)


def test_not_yet_of_what_was_asked_before_puts_off_nothing_else(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    found = app.store.read(lambda c: polling.due(app.store, c, ["order"], 2**60, 9))
    (waiting,) = found
    said = polling.Said(waiting, polling.Word.NOT_YET, waiting.poll_at)
    assert app.store.write(lambda c: polling.settle(app.store, c, said, actor="t")) == "waiting"
    assert app.store.write(lambda c: polling.settle(app.store, c, said, actor="t")) is None
    job.cancel()


def test_an_answer_that_comes_with_the_deadline_completes_it_all_the_same(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    jobd_clock.move(days=6)
    app.drain()

    def late():
        jobd_clock.move(days=2)
        time_out(app)
        assert job.refresh().status == "failed"
        return "in the end"

    vendor.says["s-1"] = late
    jobd_clock.move(hours=2)
    app.drain()
    assert (job.refresh().status, [result.value for result in job.results()]) == ("completed", ["in the end"])
    assert [e.name for e in job.events(items=True) if e.item_key] == ["defer", "time_out", "reconcile"]


def time_out(app):
    from jobd.maintenance.evidence import Holder
    from jobd.maintenance.time_out import Limits
    from jobd.maintenance.time_out import time_out as run

    now = app.store.read(lambda c: c.execute("select max(deadline_at) from job_items").fetchone()[0]) + 1
    run(app.store, holder=Holder(1), limits=Limits(timeout_ms=10**12), now=now, actor="t")


def test_who_never_answers_fails_at_the_deadline_and_a_delivery_comes_after(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    jobd_clock.move(days=7, minutes=1)
    app.tick()
    (item,) = job.items()
    assert (job.refresh().status, item.error_type, item.error) == (
        "failed",
        "TimeOut",
        "no answer from outside by its deadline",
    )
    count = len(vendor.asked)
    jobd_clock.move(days=1)
    app.drain()
    assert len(vendor.asked) == count
    job.deliver("s-1", "after all")
    assert (job.refresh().status, [result.value for result in job.results()]) == ("completed", ["after all"])


def test_what_has_answered_by_its_deadline_is_asked_before_it_is_given_up(app, order, vendor, jobd_clock):
    job = submitted(app, order, "s-1")
    vendor.says["s-1"] = "just so"
    jobd_clock.move(days=8)
    app.tick()
    assert job.refresh().status == "completed"


# -- many at once -----------------------------------------------------------------------------------------------------


def test_many_are_asked_about_in_one_call(app, order, jobd_clock, caplog):
    calls = []

    @order.poll(many=True)
    def ask(ids):
        calls.append(ids)
        return {"a": 1, "b": Retry(after=5), "c": Fail("no"), "d": ValueError("x")}

    job = submitted(app, order, "a", "b", "c", "d", "e")
    jobd_clock.move(seconds=10)
    app.drain()
    assert calls == [["a", "b", "c", "d", "e"]]
    assert [item.status for item in job.items()] == ["completed", "waiting", "failed", "waiting", "waiting"]
    jobd_clock.move(seconds=5)
    app.drain()
    assert calls[1:] == [["b"]]


def test_an_id_that_is_a_number_is_its_decimal_text(app, jobd_clock):
    """Vendors number their work, and JSON keeps that a number."""
    order = app.task(name="order")(lambda payload, ctx: ctx.defer(payload, poll_after=10))
    asked = []
    order.poll(many=True)(lambda ids: asked.append(ids) or {int(one): "yes" for one in ids})
    job = submitted(app, order, 7, 8)
    jobd_clock.move(seconds=10)
    app.drain()
    assert asked == [["7", "8"]]
    assert [result.value for result in job.refresh().results()] == ["yes", "yes"]


def test_items_that_wait_for_the_same_work_end_together(app, jobd_clock):
    @app.task
    def order(payload, ctx):
        ctx.defer("batch", poll_after=10)

    calls = []
    order.poll(many=True)(lambda ids: calls.append(ids) or {"batch": "all"})
    job = submitted(app, order, "a", "b")
    jobd_clock.move(seconds=10)
    app.drain()
    assert calls == [["batch"]]
    assert [result.value for result in job.results()] == ["all", "all"]


@pytest.mark.parametrize("how", ["drain", "daemon"])
def test_what_waited_before_its_task_had_a_poll_is_asked_about(app, how):
    sent = app.task(name="sent")(lambda payload, ctx: ctx.defer(payload))
    job = submitted(app, sent, "snap-1", "snap-2")
    sent.poll(lambda external_id: external_id.upper())
    if how == "drain":
        app.drain()
    else:
        with app.daemon():
            job.wait(20)
    assert [result.value for result in job.refresh().results()] == ["SNAP-1", "SNAP-2"]


def test_an_answer_about_what_was_not_asked_is_said_in_the_log(app, order, jobd_clock, caplog):
    order.poll(many=True)(lambda ids: {one.upper(): "yes" for one in ids})
    job = submitted(app, order, "a", "b")
    jobd_clock.move(seconds=10)
    app.drain()
    assert job.refresh().counts.waiting == 2
    assert "poll of order answered about 2 ids that it was not asked about" in caplog.messages


@pytest.mark.parametrize("look", ["next", "due"])
def test_to_see_what_is_due_nothing_else_is_passed_over(app, store, rows, look):
    """Neither what the task did before, nor what waits for a later time: there may be millions of each."""
    columns = "select i.poll_at" if look == "next" else polling._COLUMNS
    text = columns + polling._OF_TASKS.format(tasks=store.rows("name"))
    plan = [row[3] for row in rows.all(f"explain query plan {text}", 0, '["order"]', 1)]
    assert "SEARCH i USING INDEX job_items_polled (poll_at<?)" in plan
    assert not [line for line in plan if "TEMP B-TREE" in line or "task=" in line]


@pytest.mark.parametrize("wrong", [lambda ids: 1 / 0, lambda ids: ["a"], lambda ids: None])
def test_one_that_cannot_say_leaves_all_waiting(app, order, jobd_clock, wrong, caplog):
    order.poll(many=True)(wrong)
    job = submitted(app, order, "a", "b")
    jobd_clock.move(seconds=10)
    app.drain()
    assert [item.status for item in job.items()] == ["waiting", "waiting"]
    assert "could not say how 2 items are" in caplog.text


def test_more_than_one_pass_asks_about_are_asked_about_by_one_drain(app, order, jobd_clock, monkeypatch):
    monkeypatch.setattr("jobd.maintenance.poll.MOST", 3)
    calls = []
    order.poll(many=True)(lambda ids: calls.append(len(ids)) or dict.fromkeys(ids, 1))
    job = submitted(app, order, *map(str, range(7)))
    jobd_clock.move(seconds=10)
    assert app.drain().counts == {"completed": 7}
    assert (calls, job.refresh().status) == ([3, 3, 1], "completed")


def test_a_hook_that_nobody_can_call_is_refused(app, order):
    with pytest.raises(UsageError, match="no ctx of one"):
        order.poll(many=True)(lambda ids, ctx: {})
    with pytest.raises(UsageError, match="cannot be called"):
        order.poll(lambda: None)


def test_check_only_asks_nobody(app, order, vendor, jobd_clock):
    from jobd import mending

    submitted(app, order, "s-1", "s-2")
    jobd_clock.move(seconds=10)
    now = int(jobd_clock.now.timestamp() * 1000)
    report = mending.run_pass(app.store, "poll", app.tasks, app.settings, now=now, actor="t", check_only=True)
    assert (report.counts, vendor.asked) == ({"due": 2}, [])
