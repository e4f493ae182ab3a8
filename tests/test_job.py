"""The handle of a job, over the real engine and a real file."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import get_type_hints

import pytest

import jobd.job
from jobd import Cancelled, Fail, IllegalTransition, Job, Jobd, NoDaemon, NotFound, Skip
from jobd.store.views import JobView

SECONDS = 20


@pytest.fixture
def double(app):
    @app.task
    def double(value):
        if value == 13:
            raise ValueError("not that one")
        return value * 2

    return double


def in_thread(function):
    """Call ``function`` in a thread; the answer's ``get()`` waits for what it returned or raised."""

    class Answer(threading.Thread):
        def run(self):
            try:
                self.answer = function()
            except BaseException as error:  # noqa: BLE001 - what it raised is the answer
                self.answer = error

        def get(self):
            self.join(SECONDS)
            assert not self.is_alive()
            return self.answer

    answer = Answer(daemon=True)
    answer.start()
    return answer


# -- the snapshot -----------------------------------------------------------------------------------------------------


def test_the_attributes_are_the_fields_of_a_job():
    assert [name for name in get_type_hints(JobView) if name != "id"] == list(Job.__annotations__)


JOB_JSON = """
id task key target status status_description status_message status_updated_at version health operations progress_percent
counts rate_per_second eta_seconds warnings retry_count last_error created_at started_at completed_at timeout_at
age_seconds in_status_seconds daemon after phases
"""


def test_the_json_is_that_of_the_contract(double):
    record = double.submit([1]).json()
    assert list(record) == JOB_JSON.split()
    assert record["created_at"].endswith("Z")


def test_attributes_do_no_reading_of_their_own(app, double, monkeypatch):
    job = double.submit([1, 2, 3, 4])
    assert (job.status, job.progress, job.counts.total, job.counts.queued) == ("queued", 0, 4, 4)
    reads = []
    monkeypatch.setattr(app, "view", reads.append)
    app.database.close()
    monkeypatch.setattr(app, "reading", reads.append)
    assert (job.task, job.status, job.key, job.progress_percent) == ("double", "queued", None, 0)
    assert job.json()["counts"]["queued"] == 4
    assert repr(job) == f"<Job {job.id} double queued>"
    assert reads == []
    assert app.database.is_closed()


def test_a_snapshot_stays_as_it_was_until_it_is_refreshed(app, double):
    job = double.submit([1, 2])
    assert job.status == "queued"
    with app.daemon():
        app.job(job.id).wait(SECONDS)
        assert job.status == "queued"
        assert job.refresh() is job
    assert (job.status, job.progress, job.counts.completed) == ("completed", 100, 2)


def test_the_handle_of_a_submission_says_what_it_did(double):
    first = double.submit([1, 2], key="k")
    assert (first.created, first.added, first.known) == (True, 2, 0)
    again = double.submit([2, 3, 4], key="k")
    assert (again.id, again.created, again.added, again.known) == (first.id, False, 2, 1)


def test_an_attribute_that_a_job_has_not_is_refused(double):
    with pytest.raises(AttributeError, match="'stop'"):
        double.submit([1]).stop()


def test_a_handle_shows_itself_without_reading(app, double):
    job = double.submit([1])
    app.database.execute_sql("delete from jobs")
    assert repr(job) == f"<Job {job.id}>"
    with pytest.raises(NotFound, match=f"no job {job.id}"):
        job.refresh()


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_waiting_returns_the_job_whatever_its_end(app, double, held, gate):
    with app.daemon():
        assert double.submit([1]).wait(SECONDS).status == "completed"
        assert double.submit([13]).wait(SECONDS).status == "failed"
        job = held.submit(["x", "y"])
        assert gate.entered.wait(SECONDS)
        waiter = in_thread(job.wait)
        app.job(job.id).cancel()
        gate.opened.set()
        assert waiter.get() is job
        assert job.status in {"cancelled", "completed"}


def test_waiting_ends_in_time_and_leaves_the_job(app, held, gate):
    with app.daemon():
        job = held.submit([1])
        assert gate.entered.wait(SECONDS)
        with pytest.raises(TimeoutError, match=f"job {job.id} had not ended after 0.02 s"):
            job.wait(0.02)
        gate.opened.set()
        assert job.wait(SECONDS).status == "completed"


def test_waiting_for_no_time_looks_once(app, double):
    with app.daemon():
        job = double.submit([1]).wait(SECONDS)
    assert job.wait(0) is job
    with pytest.raises(TimeoutError):
        double.submit([1]).wait(0, wait_for_daemon=True)


def test_waiting_for_what_nobody_runs_is_refused_at_once(double):
    with pytest.raises(NoDaemon, match="no daemon runs") as caught:
        double.submit([1]).wait()
    assert "jobd start" in caught.value.hint


def test_waiting_for_a_task_that_the_daemon_does_not_know_is_refused_at_once(app, tmp_path, double):
    job = double.submit([1])
    stranger = Jobd(tmp_path / "jobs.db")
    with stranger.daemon(), pytest.raises(NoDaemon, match="does not know double"):
        job.wait()
    stranger.close()


def test_a_task_that_was_registered_while_the_daemon_ran_is_known_to_it(app):
    with app.daemon():
        late = app.task(str.upper, name="late")
        assert [found.value for found in late.submit(["x"]).wait(SECONDS).results()] == ["X"]


def test_waiting_needs_nobody_once_the_job_has_ended(app, double):
    with app.daemon():
        double.submit([1], key="k").wait(SECONDS)
    assert app.job("=k").wait().status == "completed"


def test_waiting_can_be_for_the_daemon_too(app, double, monkeypatch):
    job = double.submit([1])
    looked = threading.Event()
    monkeypatch.setattr(jobd.job, "time", SimpleNamespace(sleep=lambda _: looked.set()))
    waiter = in_thread(lambda: job.wait(SECONDS, wait_for_daemon=True))
    assert looked.wait(SECONDS)
    monkeypatch.undo()
    with app.daemon():
        assert waiter.get().status == "completed"


def test_a_waiter_is_told_when_the_daemon_leaves_the_job_behind(app, held, gate, monkeypatch):
    monkeypatch.setattr(jobd.job, "_PROBE_EVERY", 0)
    with app.daemon(workers=1) as daemon:
        job = held.submit([1, 2])
        assert gate.entered.wait(SECONDS)
        waiter = in_thread(job.wait)
        daemon.stop(drain=False)
        assert isinstance(waiter.get(), NoDaemon)
        gate.opened.set()
    assert job.refresh().status in {"queued", "running"}


def test_a_holder_of_the_lock_that_has_no_row_yet_is_waited_for(app, double, tmp_path):
    from jobd.engine.lock import Lock, Owner

    job = double.submit([1])
    stranger = Jobd(tmp_path / "jobs.db")
    with stranger.daemon():
        pass
    # The newest row is that of a daemon that has left, and that did not know the task.
    lock = Lock(stranger.path)
    lock.acquire(Owner(pid=4_000_000, host="here", since=1))
    with pytest.raises(TimeoutError):
        job.wait(0.01)
    assert app.daemon_status().pid == 4_000_000
    lock.release()
    stranger.close()


def test_a_waiter_is_late_by_little_and_looks_rarely(double, monkeypatch):
    job = double.submit([1])
    awake, pauses = [1000.0], []

    def sleep(pause):
        pauses.append((awake[0] - 1000, pause))
        awake[0] += pause

    monkeypatch.setattr(jobd.job, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(jobd.job, "clock", SimpleNamespace(awake=lambda: awake[0], now=jobd.job.clock.now))
    with pytest.raises(TimeoutError):
        job.wait(3, wait_for_daemon=True)
    assert awake[0] == pytest.approx(1003)
    assert all(0 < pause <= max(0.001, waited / 20) + 1e-9 for waited, pause in pauses)
    assert max(pause for _, pause in pauses) == 0.05
    assert len(pauses) < 150


def test_waiting_for_a_job_that_goes_is_not_for_ever(app, double, monkeypatch):
    job = double.submit([1])
    looked = threading.Event()
    monkeypatch.setattr(jobd.job, "time", SimpleNamespace(sleep=lambda _: looked.set()))
    waiter = in_thread(lambda: job.wait(wait_for_daemon=True))
    assert looked.wait(SECONDS)
    app.database.execute_sql("delete from jobs")
    assert isinstance(waiter.get(), NotFound)


# -- steering ---------------------------------------------------------------------------------------------------------


def test_a_cancelled_job_starts_nothing_more_and_keeps_what_completed(app, gate):
    @app.task
    def step(value, ctx):
        if value == "first":
            return "kept"
        gate.pass_through()
        # The word takes its way through the daemon: cancel() does not wait for that.
        while True:
            ctx.raise_if_cancelled()

    with app.daemon(workers=1):
        job = step.submit(["first", "second", "third"])
        assert gate.entered.wait(SECONDS)
        assert job.cancel("enough") is job
        gate.opened.set()
        job.wait(SECONDS)
    assert job.status == "cancelled"
    assert [item.status for item in job.items()] == ["completed", "cancelled", "cancelled"]
    assert [result.value for result in job.results()] == ["kept"]
    assert [event.message for event in job.events() if event.name == "cancel" and event.message == "enough"]


def test_a_job_that_waits_for_a_daemon_can_be_cancelled_without_one(double):
    job = double.submit([1, 2])
    assert job.cancel().status == "cancelled"
    assert job.cancel().status == "cancelled"


def test_what_has_completed_cannot_be_cancelled(app, double):
    with app.daemon():
        job = double.submit([1]).wait(SECONDS)
    with pytest.raises(IllegalTransition, match="is completed: it cannot cancel"):
        job.cancel()


def test_retry_runs_only_what_failed_again(app):
    runs = []

    @app.task
    def flaky(value):
        runs.append(value)
        if value == 2 and runs.count(2) == 1:
            raise Fail("not yet")

    with app.daemon(workers=1):
        job = flaky.submit([1, 2, 3]).wait(SECONDS)
        assert (job.status, job.last_error) == ("failed", "Fail: not yet")
        assert job.retry().status in {"queued", "running", "completed"}
        assert job.wait(SECONDS).status == "completed"
        with pytest.raises(IllegalTransition):
            job.retry()
    assert runs == [1, 2, 3, 2]
    assert [item.attempt for item in job.items()] == [1, 2, 1]
    assert job.last_error is None


def test_resume_runs_what_failed_or_was_cancelled_again(app, double):
    job = double.submit([1, 2])
    job.cancel()
    assert job.resume().status == "queued"
    with app.daemon():
        assert job.wait(SECONDS).status == "completed"
        with pytest.raises(IllegalTransition):
            job.resume()


def test_resume_of_an_open_job_with_nothing_to_queue_again_is_no_error(double):
    assert double.submit([1]).resume().status == "queued"


CRASH = """
app = Jobd(path)

@app.task
def double(value):
    if value == "die":
        os._exit(9)
    return value

with app.daemon(workers=1):
    double.submit(["live", "die", "later"], key="crash").wait()
"""


def test_resume_recovers_what_nobody_runs(app, program, double):
    assert program(CRASH).leaves() == 9
    job = app.job("=crash")
    # An item that was claimed ahead is running in the store, too.
    assert job.status == "running"
    assert job.counts.running in {1, 2}
    assert job.daemon.alive is False
    job.resume()
    assert (job.counts.running, job.counts.queued) == (0, 2)
    assert job.item("die").interruptions == 1


# -- looking ----------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items(app, double):
    with app.daemon(workers=4):
        job = double.submit(range(1, 30)).wait(SECONDS)
    found = job.results()
    assert [result.value for result in found] == [2 * value for value in range(1, 30) if value != 13]
    assert [result.value for result in job.results(key="7")] == [14]
    assert [result.value for result in job.results(key="13")] == []


def test_results_of_a_key_are_those_of_this_job_alone(app, double):
    with app.daemon():
        first, second = double.submit([7]).wait(SECONDS), double.submit([7]).wait(SECONDS)
    assert [result.job_id for result in first.results(key="7")] == [first.id]
    assert [result.job_id for result in second.results(key="7")] == [second.id]


def test_a_result_of_none_is_stored(app):
    nothing = app.task(lambda _: None, name="nothing")
    with app.daemon():
        job = nothing.submit().wait(SECONDS)
    assert [(result.key, result.value) for result in job.results()] == [("nothing", None)]


def test_items_are_filtered_and_paged(app, double):
    with app.daemon():
        job = double.submit([1, 13, 2, 3]).wait(SECONDS)
    assert [item.key for item in job.items()] == ["1", "13", "2", "3"]
    assert [item.key for item in job.items(status="failed")] == ["13"]
    assert [item.key for item in job.items("completed", limit=2)] == ["1", "2"]
    assert [item.key for item in job.items(after=job.item("13").id)] == ["2", "3"]
    assert [item.payload for item in job.items(key="2")] == [2]


def test_an_item_is_found_by_its_key_or_its_number(double):
    job = double.submit([5])
    item = job.item("5")
    assert (item.status, item.payload, item.attempt) == ("queued", 5, 0)
    assert job.item(f"#{item.id}") == item
    with pytest.raises(NotFound):
        job.item("6")


def test_events_are_the_jobs_own_and_on_demand_those_of_its_items(app, double):
    with app.daemon():
        job = double.submit([13]).wait(SECONDS)
    assert [event.name for event in job.events()] == ["submit", "start", "fail"]
    assert ("fail", "13") in [(event.name, event.item_key) for event in job.events(items=True)]
    assert [event.actor for event in job.events()] == ["python", "daemon 1", "daemon 1"]


def test_errors_are_grouped(app):
    @app.task(tolerance="100%")
    def wrong(value):
        raise (KeyError if value % 3 == 0 else ValueError)("no")

    with app.daemon():
        job = wrong.submit(range(9)).wait(SECONDS)
    assert [(group.error_type, group.count) for group in job.errors(keys=2)] == [("ValueError", 6), ("KeyError", 3)]
    assert job.errors(keys=2)[1].keys == ("0", "3")
    assert job.warnings == ("9 of 9 items failed",)


def test_what_an_attempt_logged_is_kept_with_its_item(app):
    @app.task
    def talk(value, ctx):
        if value == "loud":
            ctx.log.info("hello %s", ctx.key)

    with app.daemon():
        job = talk.submit(["loud", "quiet"]).wait(SECONDS)
    assert "hello loud" in job.output("loud").text
    assert job.output("quiet") is None
    with pytest.raises(NotFound):
        job.output("nobody")


def test_durations_are_a_median_and_a_percentile(app, double):
    job = double.submit([1])
    assert job.durations() is None
    with app.daemon():
        median, most = job.wait(SECONDS).durations()
    assert 0 <= median <= most < SECONDS * 1000


def test_a_handler_can_submit(app, double):
    @app.task
    def parent(value, ctx):
        return double.submit([value], params={"parent": ctx.job_id}).id

    with app.daemon(workers=2):
        (result,) = parent.submit([21]).wait(SECONDS).results()
        child = app.job(result.value).wait(SECONDS)
    assert [found.value for found in child.results()] == [42]
    assert child.params == {"parent": result.job_id}


def test_a_handler_ends_its_item_by_what_it_raises(app):
    @app.task(tolerance=2)
    def ends(value, ctx):
        raise {"fail": Fail("bad"), "skip": Skip("nothing to do"), "cancel": Cancelled("stop"), "exit": SystemExit(3)}[
            value
        ]

    with app.daemon():
        job = ends.submit(["fail", "skip", "exit"]).wait(SECONDS)
    assert [(item.status, item.error_type) for item in job.items()] == [
        ("failed", "Fail"),
        ("skipped", "Skip"),
        ("failed", "SystemExit"),
    ]
    assert job.status == "completed"
    assert job.warnings == ("2 of 3 items failed",)
