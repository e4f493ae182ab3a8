"""Nine ways in which the status of work done by hand comes to be false, each from its rows, mended at the terminal."""

from __future__ import annotations

import json

import pytest
from kit.commands import PROGRAM, QUICK
from kit.rows import NOW

from jobd import clock
from jobd.states import JOB_ENDS
from jobd.store.invariants import check

MINUTE = 60_000
DEAD = 1


@pytest.fixture(autouse=True)
def true_in_the_end(store, rows):
    """Afterwards every rule holds; jobs that began as rows have no history before that."""
    yield
    assert [broken for broken in check(store) if broken.name != "job_events"] == []
    for (job_id,) in rows.all("select id from jobs"):
        rows.assert_sound(job_id)


@pytest.fixture
def story(ask):
    """Return a job's history from now on, its items' too, as (whose, name, from, to)."""

    def tell(job_id):
        events = [event for event in ask("history", job_id, "--items") if event["name"] != "submit"]
        return [
            (event["item_key"] or "job", event["name"], event["from_status"], event["to_status"]) for event in events
        ]

    return tell


@pytest.fixture
def show(ask):
    """Return a job's status, its counts that are not zero, and its last error."""

    def read(job_id):
        job = ask("show", job_id)
        counts = {name: count for name, count in job["counts"].items() if count}
        return job["status"], counts, job["last_error"]

    return read


def running(rows, items, **columns):
    """Add a job whose items were begun by a daemon that is gone."""
    return rows.job(items, status="running", **{"started_at": NOW, "progress_at": NOW, **columns})


A, B, C = "key-00000", "key-00001", "key-00002"


def test_1_a_result_is_stored_but_its_item_is_running(rows, jobd, story, show):
    """The collector stored what it had found and died before it wrote that it was through: "running" for ever."""
    job_id = running(rows, ["running"])
    rows.result(rows.ids(job_id)[0])
    assert jobd("recover", "--check-only").code == 10
    assert jobd("recover").code == 0
    assert story(job_id) == [(A, "reconcile", "running", "completed"), ("job", "complete", "running", "completed")]
    assert show(job_id) == ("completed", {"total": 1, "completed": 1}, None)
    assert jobd("wait", job_id).code == 0
    assert jobd("recover", "--check-only").code == jobd("reconcile", "--check-only").code == 0


def test_2_a_job_failed_though_its_pages_were_saved(rows, jobd, ask, story, show):
    """A sweep that looked after thirty seconds called a crawl an orphan while its pages were being stored."""
    error = "process terminated unexpectedly (orphaned)"
    job_id = rows.job(["failed", "failed"], status="failed", last_error=error, status_message="orphaned")
    rows.change("update job_items set error=?, error_type=null", error)
    for item in rows.ids(job_id):
        rows.result(item, value='{"pages": 40}')
    assert jobd("reconcile", "--all", "--check-only").code == 10
    assert jobd("reconcile", "--all").code == 0
    assert story(job_id) == [
        (A, "reconcile", "failed", "completed"),
        (B, "reconcile", "failed", "completed"),
        ("job", "reconcile", "failed", "completed"),
    ]
    assert show(job_id) == ("completed", {"total": 2, "completed": 2}, None)
    assert [result["value"] for result in ask("results", job_id)] == [{"pages": 40}] * 2
    assert jobd("wait", job_id).code == 0


@pytest.mark.parametrize("verb", ["recover", "reconcile"])
def test_3_the_result_says_failed_but_the_execution_is_running(rows, jobd, story, show, verb):
    """The collector's own answer was an error, stored as its result; nobody told the execution."""
    job_id = running(rows, ["running", "completed"])
    first, second = rows.ids(job_id)
    rows.result(first, "failed", '"the cluster said no"')
    rows.result(second)
    assert jobd(verb).code == 0
    assert story(job_id) == [(A, "reconcile", "running", "failed"), ("job", "fail", "running", "failed")]
    assert show(job_id) == ("failed", {"total": 2, "completed": 1, "failed": 1}, "the cluster said no")
    assert jobd("wait", job_id).code == 1


@pytest.mark.parametrize("status", ["waiting", "failed", "queued"])
def test_4_the_outside_service_came_back_late(rows, jobd, story, show, status):
    """A vendor took the work, returned an id at once and the answer hours later: after a time-out, or a restart."""
    job = "failed" if status == "failed" else "running"
    job_id = rows.job([status], status=job, last_error="TimeOut: no answer" if status == "failed" else None)
    rows.change("update job_items set attempt=1, external_id='snapshot-42'")
    answer = '{"snapshot": "42"}'
    assert jobd("deliver", f"{job_id}:{A}", answer).code == 0
    edge = "reconcile" if status == "failed" else "complete"
    end = (
        ("job", "reconcile", "failed", "completed")
        if status == "failed"
        else ("job", "complete", "running", "completed")
    )
    assert story(job_id) == [(A, edge, status, "completed"), end]
    assert show(job_id) == ("completed", {"total": 1, "completed": 1}, None)
    assert jobd("deliver", f"{job_id}:{A}", answer).code == 0
    assert jobd("deliver", f"{job_id}:{A}", '{"snapshot": "43"}').code == 4
    assert len(story(job_id)) == 2


@pytest.mark.parametrize(("minutes", "orphan"), [(9, False), (11, True)])
def test_5_it_was_removed_from_memory_before_the_store_knew(rows, app, jobd, show, story, until, minutes, orphan):
    """The table of what runs forgot a job five seconds before the database heard of its end, and a sweep between the
    two failed what had completed. Here the daemon's own claim counts for the whole grace, and then the item runs again.
    """

    @app.task
    def work(value):
        return value

    with app.daemon() as daemon:
        job_id = running(rows, ["running"])
        began = clock.now() - minutes * MINUTE
        rows.change("update job_items set daemon_id=?, started_at=?", daemon.id, began)
        assert jobd("recover").code == 0
        if orphan:
            until(lambda: rows.one("select status from jobs") in JOB_ENDS)
        assert story(job_id)[:1] == ([(A, "recover", "running", "queued")] if orphan else [])
        status = "completed" if orphan else "running"
        assert show(job_id) == (status, {"total": 1, status: 1}, None)
        assert jobd("wait", job_id, "--timeout", "0.01s").code == (0 if orphan else 124)


def test_6_the_callback_that_would_have_ended_the_job_never_ran(rows, jobd, story, show):
    """Every part was done; the one task that was to say so for the whole died with its worker."""
    job_id = running(rows, ["completed", "completed"])
    for item in rows.ids(job_id):
        rows.result(item)
    assert jobd("recover").code == 0
    assert story(job_id) == [("job", "complete", "running", "completed")]
    assert show(job_id) == ("completed", {"total": 2, "completed": 2}, None)
    assert jobd("wait", job_id).code == 0


def test_6_the_callback_from_outside_never_came(rows, jobd, story, show):
    """The same for an item that waits for somebody's answer: its deadline is how long."""
    job_id = running(rows, ["waiting"])
    rows.change("update job_items set deadline_at=?, external_id='task-7'", NOW)
    rows.change(
        "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
        " values (?, 'here', 'boot', 1, 1, 1, ?, '1')",
        DEAD, NOW + MINUTE,
    )  # fmt: skip
    assert jobd("time-out").code == 0
    assert story(job_id) == [(A, "time_out", "waiting", "failed"), ("job", "fail", "running", "failed")]
    assert show(job_id) == ("failed", {"total": 1, "failed": 1}, "TimeOut: no answer from outside by its deadline")
    assert jobd("wait", job_id).code == 1


def test_7_two_tasks_race_to_say_failed_and_completed_of_a_whole(rows, start, jobd, story, show):
    """Each wrote the status of the collection; the last one won, and hid a failure. Here each says its own part, and
    whoever comes last ends the job by what all of them said.
    """
    job_id = running(rows, ["running", "running"])
    rivals = [
        start("deliver", f"{job_id}:{A}", "--failed", "no such document"),
        start("deliver", f"{job_id}:{B}", "1"),
    ]
    assert [rival.end()[0] for rival in rivals] == [0, 0]
    told = story(job_id)
    assert set(told[:2]) == {(A, "fail", "running", "failed"), (B, "complete", "running", "completed")}
    assert told[2:] == [("job", "fail", "running", "failed")]
    assert show(job_id) == ("failed", {"total": 2, "completed": 1, "failed": 1}, "no such document")
    assert jobd("wait", job_id).code == 1


def test_7_two_tasks_race_to_say_failed_and_completed_of_one_part(rows, start, jobd, story, show):
    """The same of one item: work that is done is not undone, whichever came first."""
    job_id = running(rows, ["running"])
    failed, completed = (
        start("deliver", f"{job_id}:{A}", "--failed", "no such document"),
        start("deliver", f"{job_id}:{A}", "1"),
    )
    codes = (failed.end()[0], completed.end()[0])
    first_failed = codes == (0, 0)
    assert first_failed or codes == (4, 0)
    assert story(job_id)[-1] == (
        "job",
        *(("reconcile", "failed") if first_failed else ("complete", "running")),
        "completed",
    )
    assert show(job_id) == ("completed", {"total": 1, "completed": 1}, None)
    assert rows.all("select status, source from results") == [("completed", "outside")]
    assert jobd("wait", job_id).code == 0


def test_8_a_job_was_created_and_never_started(rows, jobd, place, story, show):
    """Its thread was started and said nothing more: "queued", at 0 %, half an hour later. Here a waiter is told at once
    that nobody will run it, and the line that runs it does.
    """
    (place / "program.py").write_text(PROGRAM)
    job_id = rows.job(["queued"], task="quick")
    refusal = jobd("wait", job_id)
    assert refusal.code == 7
    assert "nobody" in refusal.err
    assert show(job_id)[0] == "queued"
    assert jobd("run", QUICK, "--job", job_id).code == 0
    assert story(job_id) == [("job", "start", "queued", "running"), ("job", "complete", "running", "completed")]
    assert show(job_id) == ("completed", {"total": 1, "completed": 1}, None)


@pytest.mark.parametrize(
    ("tolerance", "status", "code"), [("0", "failed", 1), ("1", "completed", 0)], ids=["not tolerated", "tolerated"]
)
def test_9_the_last_part_failed_after_the_others_had_completed(rows, jobd, ask, story, show, tolerance, status, code):
    """The whole was failed for its last part, and what the others had left was lost with it; or nobody ended it."""
    error = "ValueError: no"
    job_id = running(rows, ["completed", "completed", "failed"], tolerance=tolerance, last_error=error)
    for item in rows.ids(job_id)[:2]:
        rows.result(item)
    assert jobd("recover").code == 0
    end = ("job", "fail" if code else "complete", "running", status)
    assert story(job_id) == [end]
    counts = {"total": 3, "completed": 2, "failed": 1}
    assert show(job_id) == (status, counts, error)
    assert ask("show", job_id)["warnings"] == (["1 of 3 items failed"] if status == "completed" else [])
    assert jobd("wait", job_id).code == code
    assert jobd("retry", job_id).code == 0
    assert rows.items(job_id) == ["completed", "completed", "queued"]
    assert [result["value"] for result in ask("results", job_id)] == ["kept", "kept"]
    assert json.loads(jobd("show", job_id, "--json").out)["status"] == "queued"
