"""Two who settle the same item at once, and a clock that is wrong: one wins, the other is told, nothing is negative."""

from __future__ import annotations

import threading

import pytest
from kit.beats import WITHOUT_BEATS

from jobd import clock
from jobd.errors import IllegalTransition
from jobd.store import steer
from jobd.store.claim import Turns, claim
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle

SECONDS = 20
HOUR = 3_600


@pytest.fixture
def app(make_app):
    """Without beats: a test runs the passes itself."""
    return make_app(**WITHOUT_BEATS)


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


@pytest.fixture
def at_once(app):
    """Call several functions in threads that set off together, and return what each answered."""

    def run(*functions):
        barrier, answers = threading.Barrier(len(functions)), [None] * len(functions)

        def go(place, function):
            barrier.wait(SECONDS)
            answers[place] = function()
            app.store.close()

        threads = [threading.Thread(target=go, args=given) for given in enumerate(functions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        return answers

    return run


@pytest.fixture
def running(app):
    """An item that daemon 1 runs, and how its attempt is settled."""
    app.task(lambda value: value, name="work")
    job = app.submit("work", ["a"])
    options = {"limit": 1, "tasks": ["work"], "daemon_id": 1, "now": clock.now(), "actor": "test"}
    (item,) = app.store.write(lambda connection: claim(app.store, connection, Turns(), **options))

    def outcome(kind="completed"):
        now = clock.now()
        given = Outcome(item.item_id, job.id, 1, "work", "a", kind, now, now, "1", "ValueError", "no")
        return app.store.write(lambda connection: settle(app.store, connection, [given], now=now, actor="test"))

    return job, outcome


@pytest.mark.parametrize("attempt", range(10))
def test_of_two_equal_answers_at_once_one_counts_and_the_other_is_replayed(app, running, at_once, attempt):
    del attempt
    job, outcome = running
    answers = at_once(outcome, outcome)
    assert sorted((len(one.applied), len(one.replayed), len(one.late)) for one in answers) == [(0, 1, 0), (1, 0, 0)]
    assert job.refresh().counts.completed == 1
    assert len(list(job.results())) == 1


@pytest.mark.parametrize("attempt", range(10))
def test_of_a_completion_and_a_failure_at_once_the_first_counts_and_the_other_is_told(app, running, at_once, attempt):
    del attempt
    job, outcome = running
    completed, failed = at_once(outcome, lambda: outcome("failed"))
    assert [(len(one.applied), len(one.late)) for one in (completed, failed)] in ([(1, 0), (0, 1)], [(0, 1), (1, 0)])
    ended = "completed" if completed.applied else "failed"
    assert job.refresh().status == ended
    assert [event.name for event in job.events(items=True) if event.item_key][-1:] == ["late"]


@pytest.mark.parametrize("attempt", range(10))
def test_a_cancel_at_once_with_a_completion_undoes_nothing(app, running, at_once, attempt):
    del attempt
    job, outcome = running

    def cancel():
        try:
            return steer.request_cancel(app.store, job.id, now=clock.now(), actor="rival")
        except IllegalTransition:
            return None

    _, settled = at_once(cancel, outcome)
    assert len(settled.applied) == 1
    # All that ran has completed, and nothing was left to cancel.
    assert job.refresh().status == "completed"


# -- a clock that is wrong --------------------------------------------------------------------------------------------


@pytest.fixture
def forgotten(app, jobd_clock, rows):
    """A daemon that does not know of an item which runs in its name; it began a minute ago."""
    app.task(lambda value: value, name="work")
    with app.daemon() as daemon:
        job = app.submit("work", ["a"]).wait(SECONDS)
        rows.change("delete from results")
        rows.change("update job_items set status='running', completed_at=null")
        rows.change(
            "update jobs set status='running', completed_at=null, items_running=1, items_completed=0, version=2"
        )
        rows.change("delete from job_events where name='complete'")
        jobd_clock.move(minutes=1)
        yield daemon, job


@pytest.mark.parametrize("hours", [-2, -8, -56 * 365 * 24])
def test_a_clock_that_is_put_back_makes_no_orphan_and_no_negative_age(app, forgotten, jobd_clock, hours):
    daemon, job = forgotten
    jobd_clock.suspend(hours=hours)
    for name in ("recover", "time_out", "reconcile"):
        assert daemon._upkeep.run_pass(name).changes == []
    seen = job.refresh()
    assert min(seen.age_seconds, seen.in_status_seconds) >= 0
    assert app.stats() is not None


def test_what_nobody_knows_of_is_an_orphan_after_the_grace_by_a_clock_that_runs(forgotten, jobd_clock):
    daemon, _ = forgotten
    jobd_clock.move(minutes=8, seconds=59)
    assert daemon._upkeep.run_pass("recover").changes == []
    jobd_clock.move(seconds=2)
    assert [change.evidence for change in daemon._upkeep.run_pass("recover").changes] == ["silent for over 600 s"]


@pytest.mark.parametrize("hours", [2, 8, 24 * 365])
def test_a_suspend_and_a_clock_that_is_put_forward_make_no_orphan_of_what_nobody_knows_of(forgotten, jobd_clock, hours):
    """The whole grace has to pass while somebody is awake to hear."""
    daemon, _ = forgotten
    jobd_clock.suspend(hours=hours)
    for _ in range(2):
        for name in ("recover", "time_out", "reconcile"):
            assert daemon._upkeep.run_pass(name).changes == []
    jobd_clock.move(minutes=9, seconds=59)
    assert daemon._upkeep.run_pass("recover").changes == []
    jobd_clock.move(seconds=2)
    assert len(daemon._upkeep.run_pass("recover").changes) == 1
