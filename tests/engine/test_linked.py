"""Linked jobs as a program sees them: beside a daemon with threads, and without one."""

from __future__ import annotations

import threading

import pytest

from jobd import Conflict, Jobd, UsageError, clock
from jobd.maintenance.evidence import Holder
from jobd.maintenance.time_out import Limits, time_out
from jobd.store.invariants import check

SECONDS = 20


class Pipeline:
    """Three tasks, of which ``broken`` fail."""

    def __init__(self, app):
        self.app, self.broken, self.ran = app, set(), []
        for name in ("documents", "embeddings", "index"):
            app.task(name=name)(self._phase(name))

    def _phase(self, name):
        def phase(value):
            self.ran.append(name)
            if name in self.broken:
                raise ValueError(value)
            return value

        return phase

    def submit(self, **options):
        first = self.app.submit("documents", ["a", "b"])
        second = self.app.submit("embeddings", ["a", "b"], after=first, **options)
        return first, second, self.app.submit("index", after=[second.id], **options)

    def statuses(self, jobs):
        assert check(self.app.store) == []
        return [job.refresh().status for job in jobs]


@pytest.fixture
def pipeline(app):
    return Pipeline(app)


def test_the_phases_end_one_after_the_other_and_what_is_retried_takes_the_rest_with_it(app, pipeline):
    jobs = pipeline.submit()
    pipeline.broken.add("embeddings")
    assert app.drain().counts == {"completed": 2, "failed": 2}
    assert pipeline.statuses(jobs) == ["completed", "failed", "cancelled"]
    assert jobs[2].status_description == f"cancelled: job {jobs[1].id} failed"
    pipeline.broken.clear()
    jobs[1].retry()
    assert pipeline.statuses(jobs) == ["completed", "queued", "queued"]
    app.drain()
    assert pipeline.statuses(jobs) == ["completed"] * 3
    assert pipeline.ran == ["documents"] * 2 + ["embeddings"] * 4 + ["index"]


def test_the_same_beside_a_daemon(app, pipeline):
    """Nobody rings in between: what frees a child, fells it or brings it back wakes the daemon by itself."""
    pipeline.broken.add("embeddings")
    with app.daemon(workers=2):
        jobs = pipeline.submit()
        assert jobs[2].wait(SECONDS).status == "cancelled"
        assert pipeline.statuses(jobs) == ["completed", "failed", "cancelled"]
        pipeline.broken.clear()
        jobs[1].retry()
        assert jobs[2].wait(SECONDS).status == "completed"
    assert pipeline.statuses(jobs) == ["completed"] * 3


def test_a_daemon_does_not_leave_before_the_rest_has_fallen(app, pipeline, monkeypatch):
    monkeypatch.setattr("jobd.engine.upkeep.Upkeep.finish_soon", lambda self: None)
    pipeline.broken.add("documents")
    with app.daemon(workers=1):
        jobs = pipeline.submit()
        jobs[0].wait(SECONDS)
    assert pipeline.statuses(jobs) == ["failed", "cancelled", "cancelled"]


def test_a_child_in_another_pool_begins_when_its_parent_ends(app):
    ran = threading.Event()

    @app.task
    def first(value):
        return value

    @app.task
    async def second(value):
        ran.set()

    with app.daemon(workers=1):
        parent = first.submit([1])
        second.submit([1], after=parent)
        assert ran.wait(SECONDS)


def test_the_handlers_of_a_child_that_falls_are_told(app):
    begun = threading.Event()

    @app.task
    def parent(value):
        if value == "bad":
            assert begun.wait(SECONDS)
            raise ValueError(value)

    @app.task
    def child(value, ctx):
        begun.set()
        while True:
            ctx.raise_if_cancelled()

    with app.daemon(workers=2):
        first = parent.submit(["good"], key="k")
        first.wait(SECONDS)
        second = child.submit([1], after=first)
        assert begun.wait(SECONDS)
        parent.submit(["good", "bad"], key="k")
        assert second.wait(SECONDS).status == "cancelled"
        assert second.status_description == f"cancelled: job {first.id} failed"


def test_a_crash_before_the_fall_leaves_a_child_that_waits_and_the_next_daemon_cancels_it(
    app, path, pipeline, jobd_crash
):
    jobs = pipeline.submit()
    pipeline.broken.add("documents")
    with jobd_crash("settle.after_commit", at=2):
        app.drain()
    assert pipeline.statuses(jobs) == ["failed", "queued", "queued"]
    assert jobs[1].status_description.startswith(f"queued, after job {jobs[0].id}")
    other = Jobd(path)
    other.drain()
    other.close()
    assert pipeline.statuses(jobs) == ["failed", "cancelled", "cancelled"]


def test_a_crash_before_the_commit_that_ends_a_parent_frees_nobody(app, pipeline, jobd_crash):
    jobs = pipeline.submit()
    with jobd_crash("settle.before_commit", at=2):
        app.drain()
    assert pipeline.statuses(jobs) == ["running", "queued", "queued"]
    app.drain()
    assert pipeline.statuses(jobs) == ["completed"] * 3


def test_a_client_without_a_daemon_carries_a_cancel_through_to_the_last(pipeline):
    jobs = pipeline.submit()
    jobs[0].cancel("not today")
    assert pipeline.statuses(jobs) == ["cancelled"] * 3
    jobs[0].resume()
    assert pipeline.statuses(jobs) == ["queued"] * 3


def test_with_on_ended_a_failure_goes_on_to_the_next(app, pipeline):
    pipeline.broken.add("documents")
    jobs = pipeline.submit(on="ended")
    app.drain()
    assert pipeline.statuses(jobs) == ["failed", "completed", "completed"]


def test_a_child_does_not_time_out_for_the_time_that_it_waited(app, jobd_clock):
    """Beside a daemon that had a free slot all the while: until its parent ended nobody could run the child."""

    @app.task
    def work(value):
        return value

    first = work.submit([1])
    second = work.submit([1], after=first, job_timeout="1h")
    limits = Limits(timeout_ms=7 * 86_400_000, tasks=["work"], free_since=0)

    def timed_out():
        found = time_out(app.store, holder=Holder(1), limits=limits, now=clock.now(), actor="test", check_only=True)
        return [change.job_id for change in found.changes]

    jobd_clock.move(days=1)
    assert timed_out() == []
    first.deliver("1", "x")
    assert second.refresh().blocked_by == ()
    assert timed_out() == []
    jobd_clock.move(hours=2)
    assert timed_out() == [second.id]


# -- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["7", {"a": 1}, 1.5, True, [None], object()])
def test_what_is_no_job_cannot_be_waited_for(app, pipeline, after):
    with pytest.raises(UsageError, match="after: not a job"):
        app.submit("index", after=after)


def test_a_job_of_another_database_cannot_be_waited_for(app, pipeline, tmp_path):
    other = Jobd(tmp_path / "other.db")
    job = other.submit("x", [1])
    with pytest.raises(UsageError, match="is in another database"):
        app.submit("index", after=job)
    other.close()


def test_another_end_than_the_two_is_refused(app, pipeline):
    with pytest.raises(UsageError, match="on: not 'failed'"):
        app.submit("index", after=1, on="failed")


def test_a_parent_is_deleted_with_what_waits_for_it_where_that_is_asked_for(app, pipeline):
    jobs = pipeline.submit()
    with pytest.raises(Conflict, match="waits for it"):
        jobs[0].delete()
    assert jobs[0].delete(cascade=True) == 5
    assert app.jobs() == []


def test_health_says_what_waits_for_what(app, pipeline):
    jobs = pipeline.submit()
    (found,) = [check for check in app.health().checks if check.name == "waiting"]
    first, second, third = (job.id for job in jobs)
    assert found.text == f"job {second} for job {first}; job {third} for job {second}"
    assert found.level == "ok"
