"""A task's own ``verify`` says whether the work of an orphan was done; what it cannot say leaves the item as it is."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest
from kit.rows import Rows

from jobd import Lost, UsageError
from jobd.engine import upkeep

DONE = "its daemon is gone; verify: it is done"


@pytest.fixture
def rows(app):
    return Rows(app.writing())


@pytest.fixture
def orphan(rows):
    """An item that a dead daemon was running, with a note of what it was about to do."""
    job_id = rows.job(["running"], task="send", status="running", params='{"to": 1}')
    rows.change("update job_items set intent='order 7', payload='{\"a\": 1}' where job_id=?", job_id)
    return job_id


def sent(app, answer=None):
    """Return the task ``send`` and what its verify was asked."""
    asked = []

    @app.task
    def send(payload):
        return "sent again"

    @send.verify
    def was_sent(payload, ctx):
        asked.append((payload, ctx))
        return answer() if callable(answer) else answer

    return asked


def test_it_is_asked_with_the_payload_and_what_the_attempt_noted(app, rows, orphan):
    asked = sent(app, {"id": "v-1"})
    report = app.recover()
    assert [(change.to_status, change.evidence) for change in report.changes if change.item_id] == [("completed", DONE)]
    ((payload, ctx),) = asked
    assert payload == {"a": 1}
    assert (ctx.job_id, ctx.key, ctx.attempt, ctx.params, ctx.intent) == (orphan, "key-00000", 1, {"to": 1}, "order 7")
    job = app.job(orphan)
    assert (job.status, next(job.results()).value, next(job.results()).source) == ("completed", {"id": "v-1"}, "verify")
    rows.assert_sound(orphan)


def test_the_key_for_the_outside_is_that_of_the_attempt(app, rows, orphan):
    asked, keys = sent(app, 1), []
    app.recover()

    @app.task(name="other")
    def other(payload, ctx):
        keys.append(ctx.idempotency_key)

    with app.daemon(workers=1):
        job = app.submit("other").wait(timeout=10)
    created, item = rows.one(
        "select j.created_at, i.id from jobs as j join job_items as i on i.job_id = j.id where j.id = ?", job.id
    )
    assert keys == [f"other:{created}:{item}"]
    created, item = rows.one(
        "select j.created_at, i.id from jobs as j join job_items as i on i.job_id = j.id where j.id = ?", orphan
    )
    assert asked[0][1].idempotency_key == f"send:{created}:{item}"


def test_none_says_that_it_was_not_done_and_the_item_runs_again(app, rows, orphan):
    asked = sent(app, None)
    with app.daemon(workers=1):
        job = app.job(orphan).wait(timeout=10)
    assert (len(asked), next(job.results()).value, next(job.results()).source) == (1, "sent again", "handler")


WRONG = {"raises": lambda: 1 / 0, "no JSON": lambda: {1, 2}, "exit": lambda: sys.exit(3)}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_hook_that_cannot_say_leaves_the_item_and_is_asked_again(app, rows, orphan, caplog, wrong):
    answers = iter([wrong, lambda: "found"])

    def answer():
        return next(answers)()

    asked = sent(app, answer)
    assert [change for change in app.recover().changes if change.item_id] == []
    assert rows.items(orphan) == ["running"]
    assert "could not say" in caplog.text
    app.recover()
    assert (rows.items(orphan), len(asked)) == (["completed"], 2)


def test_a_start_does_not_wait_for_it_and_claims_other_work_meanwhile(app, rows, orphan, gate):
    asked = sent(app, lambda: gate.pass_through() or "found")

    @app.task(name="other")
    def other(payload):
        return payload

    with app.daemon(workers=1):
        assert app.submit("other", ["a"]).wait(timeout=10).status == "completed"
        assert gate.entered.wait(10)
        assert rows.items(orphan) == ["running"]
        gate.opened.set()
        assert app.job(orphan).wait(timeout=10).status == "completed"
    assert len(asked) == 1


def test_a_daemon_leaves_though_a_hook_never_answers(app, rows, orphan, gate, until, monkeypatch):
    monkeypatch.setattr(upkeep, "PATIENCE", 0.05)
    sent(app, gate.pass_through)
    daemon = app.daemon(workers=1)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(daemon)
        assert gate.entered.wait(10)
        running.stop(drain=False)
        assert running.join(timeout=10)
    assert rows.items(orphan) == ["running"]
    gate.opened.set()
    until(lambda: "jobd-maintenance" not in {thread.name for thread in threading.enumerate()})
    assert rows.items(orphan) == ["running"], "what it answers when nobody holds the lock any more is not written"


def test_the_note_is_stored_before_the_handler_goes_on_and_a_lost_attempt_cannot_leave_one(app, rows):
    seen, refused = [], []

    @app.task
    def send(payload, ctx):
        ctx.intend("order 7")
        seen.append(rows.one("select intent from job_items"))
        rows.change("update job_items set attempt=attempt+1")
        with pytest.raises(Lost):
            ctx.intend("order 8")
        refused.append(rows.one("select intent from job_items"))
        rows.change("update job_items set attempt=attempt-1")

    with app.daemon(workers=1):
        send.submit(["a"]).wait(timeout=10)
    assert (seen, refused) == (["order 7"], ["order 7"])


def test_a_note_that_is_no_text_or_too_long_is_refused(app):
    errors = []

    @app.task
    def send(payload, ctx):
        for note in (None, "x" * 5_000):
            try:
                ctx.intend(note)
            except UsageError as error:
                errors.append(str(error))

    with app.daemon(workers=1):
        send.submit(["a"]).wait(timeout=10)
    assert errors == ["intend: not text: None", "intend: the note is 5,000 characters, the limit is 4,096"]


def test_a_verify_that_cannot_be_called_with_a_payload_is_refused_where_it_is_registered(app):
    @app.task
    def send(payload):
        pass

    with pytest.raises(UsageError, match="send: its verify cannot be called"):
        send.verify(lambda: None)


def test_what_it_cannot_say_is_told_once_of_each_item_and_reason_and_then_once_an_hour(
    app, rows, orphan, caplog, jobd_clock
):
    why = ["no route"]

    def fails():
        raise OSError(why[0])

    sent(app, fails)
    rows.job(["running"], task="send", status="running", params="null")

    def lines():
        caplog.clear()
        app.recover()
        return [(record.getMessage().partition(" is done")[2], bool(record.exc_info)) for record in caplog.records]

    # One traceback, and one line for who has the same trouble.
    assert lines() == [("", True), (": OSError: no route", False)]
    for _ in range(3):
        jobd_clock.move(minutes=1)
        assert lines() == []
    why[0] = "refused"
    assert lines() == [(": OSError: refused", False)] * 2
    jobd_clock.move(minutes=59)
    assert lines() == []
    jobd_clock.move(minutes=2)
    assert lines() == [(": OSError: refused", False)] * 2
    assert len(app.job(orphan).items(status="running")) == 1
