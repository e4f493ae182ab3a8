"""What a program asks of a whole job: fail and delete, before it runs, while it does, and after."""

from __future__ import annotations

import threading

import pytest

from jobd import Conflict, IllegalTransition, NotFound, UsageError
from jobd.store import removal, steer

SECONDS = 20


@pytest.fixture
def double(app):
    @app.task
    def double(value):
        return value * 2

    return double


# -- fail -------------------------------------------------------------------------------------------------------------


def test_a_job_that_nobody_runs_fails_at_once_for_the_reason_given(double):
    job = double.submit([1, 2, 3]).fail("the source is gone")
    assert (job.status, job.status_message) == ("failed", "the source is gone")
    assert (job.counts.cancelled, job.counts.queued) == (3, 0)
    assert job.operations == ("resume", "delete")
    assert job.fail("again").status_message == "the source is gone"


def test_failing_tells_the_handlers_and_starts_nothing_more(app):
    entered, starts = threading.Event(), []

    @app.task
    def loops(value, ctx):
        starts.append(value)
        entered.set()
        while True:
            ctx.raise_if_cancelled()

    with app.daemon(workers=1):
        job = loops.submit([1, 2, 3])
        assert entered.wait(SECONDS)
        job.fail("no use")
        job.wait(SECONDS)
    assert starts == [1]
    assert (job.status, job.counts.cancelled) == ("failed", 3)
    assert [event.name for event in job.events()][-1] == "fail"


def test_a_job_of_which_everything_completed_after_all_has_completed(app, held, gate):
    """What was asked for found nothing to cancel: the items that ran have ended well."""
    with app.daemon(workers=1):
        job = held.submit([1])
        assert gate.entered.wait(SECONDS)
        assert job.fail("too slow").status == "running"
        assert job.operations == ()
        gate.opened.set()
        assert job.wait(SECONDS).status == "completed"
    assert (job.status_message, job.last_error) == (None, None)


def test_a_failed_job_runs_again_when_it_is_resumed(app, double):
    job = double.submit([1, 2]).fail("not now")
    assert job.resume().status == "queued"
    with app.daemon():
        job.wait(SECONDS)
    assert (job.status, job.status_message) == ("completed", None)


@pytest.mark.parametrize("reason", ["", "  \n", 7, None])
def test_a_reason_is_text_that_says_something(double, reason):
    job = double.submit([1])
    with pytest.raises(UsageError, match="reason"):
        job.fail(reason)
    assert job.refresh().status == "queued"


def test_a_reason_that_no_database_holds_is_kept_escaped(double):
    assert double.submit([1]).fail("gone: \0 \ud800").status_message == r"gone: \x00 \ud800"


# -- delete -----------------------------------------------------------------------------------------------------------


def test_a_job_is_deleted_with_all_that_it_left(app, double, rows):
    with app.daemon():
        job = double.submit([1, 2], key="k").wait(SECONDS)
        assert job.delete() == 2
    for table in ("jobs", "job_items", "results", "job_events"):
        assert rows.one(f"select count(*) from {table}") == 0
    with pytest.raises(NotFound, match=f"no job {job.id}"):
        job.refresh()
    with pytest.raises(NotFound):
        job.delete()
    assert double.submit([1], key="k").created


def test_a_queued_job_is_deleted_without_being_cancelled(double):
    job = double.submit([1, 2, 3])
    assert "delete" in job.operations
    assert job.delete() == 3


def test_a_running_job_is_not_and_goes_on(app, held, gate):
    with app.daemon(workers=1):
        job = held.submit([1])
        assert gate.entered.wait(SECONDS)
        with pytest.raises(IllegalTransition, match="is running: it cannot delete") as refusal:
            job.delete()
        assert "delete" not in job.refresh().operations
        assert refusal.value.legal == job.operations
        gate.opened.set()
        assert job.wait(SECONDS).status == "completed"
    assert job.delete() == 1


def test_a_job_that_another_waits_for_is_not_deleted_and_says_so_before(double, rows):
    parent, child = double.submit([1]), double.submit([2])
    rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", child.id, parent.id)
    assert "delete" not in parent.refresh().operations
    with pytest.raises(Conflict, match=f"job {child.id} waits for it"):
        parent.delete()
    child.cancel()
    assert "delete" in parent.refresh().operations
    parent.delete()


def test_what_was_deleted_is_claimed_by_nobody_though_a_daemon_runs(app, double, rows, monkeypatch):
    """The request is a commit of its own: from then on nothing of the job starts."""
    job = double.submit([1, 2, 3])
    monkeypatch.setattr(removal, "remove_job", lambda *_: 0)
    job.delete()
    assert rows.one("select key, deleted_at is not null from jobs") == (None, 1)
    with app.daemon():
        double.submit([4]).wait(SECONDS)
        assert rows.one("select count(*) from job_items where job_id = ? and attempt > 0", job.id) == 0


def test_a_daemon_finishes_what_a_deletion_left(app, double, until, rows):
    left = double.submit([1, 2, 3])
    removal.request_delete(app.store, left.id, now=1, actor="somebody who was killed")
    with app.daemon():
        until(lambda: not rows.all("select 1 from jobs"))
    assert rows.all("select 1 from job_items") == []


# -- how far it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "fail", "delete"])
def test_each_verb_tells_how_many_items_it_was_so_far(double, monkeypatch, verb):
    for module in (steer, removal):
        monkeypatch.setattr(module, "BATCH", 2)
    job, told = double.submit(range(5)), []
    getattr(job, verb)(*(["why"] if verb == "fail" else []), progress=told.append)
    assert told == [2, 4, 5]
