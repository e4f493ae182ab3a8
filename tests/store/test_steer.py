"""Cancel, retry and resume of a whole job, killed midway or not."""

from __future__ import annotations

import pytest

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.store import retry as again
from jobd.store import steer
from jobd.store.ending import end_jobs
from jobd.store.retry import resume, retry
from jobd.store.steer import open_requests, request_cancel, request_fail, work_off
from jobd.store.transitions import Answer

NOW = 1_795_305_600_000
LATER = NOW + 60_000


class Killed(BaseException):
    """Stands for a SIGKILL between two commits."""


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of three, so that ten items are four of them."""
    monkeypatch.setattr(steer, "BATCH", 3)
    monkeypatch.setattr(again, "BATCH", 3)


@pytest.fixture
def wakes(store):
    heard = []
    store.wake = lambda: heard.append(store.connection().in_transaction)
    return heard


def cancel(store, job_id, **kwargs):
    return request_cancel(store, job_id, now=LATER, actor="cli", **kwargs)


def killed_after(store, commits):
    """Let this many more writes of the store commit, then end the caller."""
    write, left = store.write, [commits]

    def counted(work, **kwargs):
        if not left[0]:
            store.write = write
            raise Killed
        left[0] -= 1
        return write(work, **kwargs)

    store.write = counted


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_a_cancel_request_is_a_fact_in_the_row_and_a_note_in_the_history(store, rows, wakes):
    job_id = rows.job(["queued", "running"], status="running")
    assert cancel(store, job_id, reason="wrong folder") is Answer.APPLIED
    assert rows.one("select status, cancel_requested_at from jobs where id=?", job_id) == ("running", LATER)
    assert rows.events(job_id) == [("cancel", "running", "running", None)]
    assert rows.one("select message, actor from job_events where name='cancel'") == ("wrong folder", "cli")
    assert wakes == [False], "after the commit"
    rows.assert_sound(job_id)


def test_a_second_cancel_request_is_replayed_and_changes_nothing(store, rows):
    job_id = rows.job(["queued"])
    cancel(store, job_id)
    before = rows.all("select * from jobs"), rows.all("select * from job_events")
    assert request_cancel(store, job_id, now=LATER + 1, actor="else") is Answer.REPLAYED
    assert (rows.all("select * from jobs"), rows.all("select * from job_events")) == before


def test_cancelling_a_cancelled_job_is_replayed(store, rows):
    job_id = rows.job(["cancelled"], status="cancelled")
    assert cancel(store, job_id) is Answer.REPLAYED


@pytest.mark.parametrize(
    ("status", "items", "verbs"),
    [("completed", ["completed"], ("delete",)), ("failed", ["failed", "completed"], ("retry", "resume", "delete"))],
)
def test_an_ended_job_cannot_be_cancelled_and_the_refusal_names_what_can_be_done(store, rows, status, items, verbs):
    job_id = rows.job(items, status=status)
    with pytest.raises(IllegalTransition, match=rf"job {job_id} is {status}: it cannot cancel") as refusal:
        cancel(store, job_id)
    assert refusal.value.legal == verbs
    rows.assert_sound(job_id)


def test_a_job_that_is_submitted_or_deleted_at_this_moment_cannot_be_steered(store, rows):
    submitting = rows.job(["queued"], sealed_at=None)
    deleting = rows.job(["failed"], status="failed", deleted_at=NOW)
    open_but_deleting = rows.job(["queued"], deleted_at=NOW)
    for verb, job_id in [
        (request_cancel, submitting),
        (request_cancel, open_but_deleting),
        (retry, submitting),
        (retry, deleting),
        (resume, deleting),
    ]:
        with pytest.raises(Conflict, match=f"job {job_id} is "):
            verb(store, job_id, now=LATER, actor="cli")
    assert work_off(store, submitting, now=LATER, actor="cli") == 0


@pytest.mark.parametrize("verb", [request_cancel, retry, resume, work_off])
def test_a_job_that_does_not_exist_is_not_found(store, verb):
    with pytest.raises(NotFound, match="no job 404"):
        verb(store, 404, now=LATER, actor="cli")


def test_working_off_a_cancel_ends_a_job_without_running_items_and_without_a_daemon(store, rows, wakes, small_batches):
    job_id = rows.job(["queued"] * 7 + ["waiting"] * 4 + ["completed"], status="running")
    cancel(store, job_id)
    heard = []
    assert work_off(store, job_id, now=LATER, actor="cli", progress=heard.append) == 11
    assert heard == [3, 6, 7, 10, 11]
    assert rows.items(job_id) == ["cancelled"] * 11 + ["completed"]
    assert rows.events(job_id) == [
        ("cancel", "running", "running", None),
        ("cancel", "queued", "cancelled", 3),
        ("cancel", "queued", "cancelled", 3),
        ("cancel", "queued", "cancelled", 1),
        ("cancel", "waiting", "cancelled", 3),
        ("cancel", "waiting", "cancelled", 1),
        ("cancel", "running", "cancelled", None),
    ]
    assert rows.one("select status, completed_at, progress_at from jobs where id=?", job_id) == (
        "cancelled", LATER, LATER,
    )  # fmt: skip
    assert rows.one("select count(*) from job_items where completed_at=?", LATER) == 11
    assert open_requests(store) == []
    assert wakes == [False, False]
    rows.assert_sound(job_id)


def test_running_items_are_left_to_their_daemon_and_keep_the_job_open(store, rows):
    job_id = rows.job(["running", "queued"], status="running")
    cancel(store, job_id)
    assert work_off(store, job_id, now=LATER, actor="cli") == 1
    assert rows.items(job_id) == ["running", "cancelled"]
    assert rows.one("select status from jobs where id=?", job_id) == "running"
    assert open_requests(store) == [job_id], "the daemon goes on with it"
    rows.assert_sound(job_id)


def test_a_fail_request_cancels_what_is_open_and_ends_as_failed(store, rows):
    job_id = rows.job(["queued", "completed"], status="running", fail_requested_at=NOW)
    assert open_requests(store) == [job_id]
    assert work_off(store, job_id, now=LATER, actor="cli") == 1
    assert rows.one("select status from jobs where id=?", job_id) == "failed"
    rows.assert_sound(job_id)


def test_without_a_request_nothing_is_worked_off(store, rows):
    job_id = rows.job(["queued", "waiting"], status="running")
    assert work_off(store, job_id, now=LATER, actor="cli") == 0
    assert rows.items(job_id) == ["queued", "waiting"]


def test_other_jobs_keep_their_items(store, rows):
    other = rows.job(["queued", "waiting"], status="running")
    job_id = rows.job(["queued", "waiting"], status="running")
    cancel(store, job_id)
    assert work_off(store, job_id, now=LATER, actor="cli") == 2
    assert rows.items(other) == ["queued", "waiting"]
    rows.assert_sound(other)


@pytest.mark.parametrize("commits", range(1, 6))
def test_a_cancel_killed_between_two_batches_is_finished_by_the_same_call(store, rows, small_batches, commits):
    job_id = rows.job(["queued"] * 7 + ["waiting"] * 4, status="running")

    def cancel_whole():
        cancel(store, job_id)
        work_off(store, job_id, now=LATER, actor="cli")

    killed_after(store, commits)
    with pytest.raises(Killed):
        cancel_whole()
    rows.assert_sound(job_id)
    assert rows.items(job_id).count("cancelled") == [0, 0, 3, 6, 7, 10][commits]
    assert open_requests(store) == [job_id]
    cancel_whole()
    assert rows.one("select status from jobs where id=?", job_id) == "cancelled"
    assert sum(count or 0 for *_, count in rows.events(job_id)) == 11
    rows.assert_sound(job_id)


def test_the_daemon_finds_open_requests_through_their_index(store, rows):
    seen = []
    connection = store.connection()
    connection.set_trace_callback(seen.append)
    open_requests(store)
    connection.set_trace_callback(None)
    plan = rows.all(f"explain query plan {next(text for text in seen if text.startswith('select'))}")
    assert "jobs_requested" in plan[0][3]


# -- fail -------------------------------------------------------------------------------------------------------------


def fail(store, job_id, **kwargs):
    return request_fail(store, job_id, **{"now": LATER, "actor": "cli", "reason": "no use", **kwargs})


def test_a_fail_request_is_a_fact_in_the_row_and_a_note_in_the_history_with_the_reason(store, rows, wakes):
    job_id = rows.job(["queued", "running"], status="running")
    assert fail(store, job_id, reason="the source is gone") is Answer.APPLIED
    assert rows.one("select status, fail_requested_at, status_message from jobs where id=?", job_id) == (
        "running", LATER, "the source is gone",
    )  # fmt: skip
    assert rows.events(job_id) == [("fail", "running", "running", None)]
    assert rows.one("select message, actor from job_events where name='fail'") == ("the source is gone", "cli")
    assert open_requests(store) == [job_id], "the daemon goes on with it"
    assert wakes == [False], "after the commit"
    rows.assert_sound(job_id)


def test_a_second_fail_request_is_replayed_and_the_first_reason_stays(store, rows):
    job_id = rows.job(["queued"])
    fail(store, job_id)
    before = rows.all("select * from jobs"), rows.all("select * from job_events")
    assert fail(store, job_id, now=LATER + 1, reason="another") is Answer.REPLAYED
    assert (rows.all("select * from jobs"), rows.all("select * from job_events")) == before


def test_failing_a_failed_job_is_replayed(store, rows):
    job_id = rows.job(["failed"], status="failed")
    assert fail(store, job_id) is Answer.REPLAYED
    assert rows.one("select fail_requested_at, status_message from jobs") == (None, None)


@pytest.mark.parametrize(
    ("status", "items", "verbs"),
    [("completed", ["completed"], ("delete",)), ("cancelled", ["cancelled"], ("resume", "delete"))],
)
def test_an_ended_job_cannot_be_failed_and_the_refusal_names_what_can_be_done(store, rows, status, items, verbs):
    job_id = rows.job(items, status=status)
    with pytest.raises(IllegalTransition, match=rf"job {job_id} is {status}: it cannot fail") as refusal:
        fail(store, job_id)
    assert refusal.value.legal == verbs
    assert rows.one("select fail_requested_at from jobs") is None
    rows.assert_sound(job_id)


def test_a_job_that_is_submitted_or_deleted_at_this_moment_cannot_be_failed(store, rows):
    for columns in ({"sealed_at": None}, {"deleted_at": NOW}):
        job_id = rows.job(["queued"], **columns)
        with pytest.raises(Conflict, match=f"job {job_id} is "):
            fail(store, job_id)
    with pytest.raises(NotFound, match="no job 404"):
        fail(store, 404)


def test_working_off_a_fail_cancels_what_is_open_in_batches_and_ends_the_job_as_failed(store, rows, small_batches):
    job_id = rows.job(["queued"] * 4 + ["waiting", "completed"], status="running", last_error="of an item")
    fail(store, job_id)
    heard = []
    assert work_off(store, job_id, now=LATER, actor="cli", progress=heard.append) == 5
    assert heard == [3, 4, 5]
    assert rows.items(job_id) == ["cancelled"] * 5 + ["completed"]
    assert rows.events(job_id)[-1] == ("fail", "running", "failed", None)
    assert rows.one("select status, status_message, last_error from jobs") == ("failed", "no use", "of an item")
    rows.assert_sound(job_id)


def test_a_job_that_is_being_cancelled_can_be_failed_and_ends_as_failed(store, rows):
    job_id = rows.job(["queued", "completed"], status="running")
    cancel(store, job_id)
    assert fail(store, job_id) is Answer.APPLIED
    work_off(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status from jobs") == "failed"
    rows.assert_sound(job_id)


def test_what_a_cancel_asks_for_is_under_way_where_a_job_is_being_failed(store, rows):
    job_id = rows.job(["queued"], status="running")
    fail(store, job_id)
    assert cancel(store, job_id) is Answer.REPLAYED
    work_off(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status, cancel_requested_at from jobs") == ("failed", None)
    rows.assert_sound(job_id)


def test_a_fail_that_found_nothing_to_cancel_leaves_the_end_to_the_items_and_no_reason_behind(store, rows):
    """Rule 8: failed only if an item was failed or cancelled; everything completed after all."""
    job_id = rows.job(["completed", "running"], status="running")
    fail(store, job_id)
    assert work_off(store, job_id, now=LATER, actor="cli") == 0
    rows.change("update job_items set status='completed', completed_at=? where status='running'", LATER)
    rows.change("update jobs set items_running=0, items_completed=2")
    work_off(store, job_id, now=LATER, actor="daemon 1")
    store.write(lambda connection: end_jobs(store, connection, [job_id], now=LATER, actor="daemon 1"))
    assert rows.one("select status, status_message from jobs") == ("completed", None)
    rows.assert_sound(job_id)


@pytest.mark.parametrize("commits", range(1, 4))
def test_a_fail_killed_between_two_batches_is_finished_by_the_same_call(store, rows, small_batches, commits):
    job_id = rows.job(["queued"] * 7, status="running")

    def fail_whole():
        fail(store, job_id)
        work_off(store, job_id, now=LATER, actor="cli")

    killed_after(store, commits)
    with pytest.raises(Killed):
        fail_whole()
    rows.assert_sound(job_id)
    assert open_requests(store) == [job_id]
    fail_whole()
    assert rows.one("select status from jobs where id=?", job_id) == "failed"
    assert [event[:3] for event in rows.events(job_id)].count(("fail", "running", "running")) == 1
    rows.assert_sound(job_id)


# -- retry and resume -------------------------------------------------------------------------------------------------


def test_a_retry_queues_failed_items_again_and_keeps_their_attempt(store, rows, wakes):
    job_id = rows.job(
        ["failed", "completed", "cancelled"], status="failed", started_at=NOW - 5, last_error="no",
        status_message="2 of 3", timeout_at=NOW, cancel_requested_at=NOW, retry_count=2,
    )  # fmt: skip
    rows.change(
        "update job_items set attempt=4, failures=4, interruptions=2, lone_deaths=1, error_type='E', progress='[1,2]',"
        " available_at=9, deadline_at=9 where status='failed'"
    )
    assert retry(store, job_id, now=LATER, actor="cli") == 1
    assert rows.items(job_id) == ["queued", "completed", "cancelled"]
    assert rows.one(
        "select attempt, failures, interruptions, lone_deaths, available_at, error, error_type, completed_at, progress,"
        " deadline_at from job_items where status='queued'"
    ) == (4, 0, 0, 0, 0, None, None, None, None, None)
    assert rows.one(
        "select status, started_at, completed_at, cancel_requested_at, fail_requested_at, last_error, status_message,"
        " timeout_at, retry_count, progress_at from jobs"
    ) == ("queued", NOW - 5, None, None, None, None, None, None, 0, LATER)
    assert rows.events(job_id) == [("reopen", "failed", "queued", None), ("requeue", "failed", "queued", 1)]
    assert wakes == [False]
    rows.assert_sound(job_id)


def test_a_resume_queues_failed_and_cancelled_items_again(store, rows):
    job_id = rows.job(["failed", "completed", "cancelled", "skipped"], status="cancelled", cancel_requested_at=NOW)
    assert resume(store, job_id, now=LATER, actor="cli") == 2
    assert rows.items(job_id) == ["queued", "completed", "queued", "skipped"]
    assert rows.events(job_id) == [
        ("reopen", "cancelled", "queued", None),
        ("requeue", "failed", "queued", 1),
        ("requeue", "cancelled", "queued", 1),
    ]
    rows.assert_sound(job_id)


def test_a_running_job_is_retried_without_being_reopened(store, rows):
    job_id = rows.job(["failed", "running"], status="running", last_error="no")
    assert retry(store, job_id, now=LATER, actor="cli") == 1
    assert rows.one("select status, last_error from jobs") == ("running", None)
    assert rows.events(job_id) == [("requeue", "failed", "queued", 1)]
    rows.assert_sound(job_id)


def test_what_a_failed_attempt_left_goes_and_the_history_keeps_its_value(store, rows):
    job_id = rows.job(["failed", "failed", "completed"], status="failed")
    first, _, completed = rows.ids(job_id)
    for item_id in (first, completed):
        rows.change(
            "insert into results (item_id, attempt, task, key, status, value, created_at)"
            " values (?, 1, 'work', 'key', 'failed', '[1]', 0)",
            item_id,
        )
        rows.change("insert into result_data values (?, 1, x'00')", item_id)
        rows.change("insert into item_output values (?, 1, 'text', 0)", item_id)
    retry(store, job_id, now=LATER, actor="cli")
    for table in ("results", "result_data", "item_output"):
        assert rows.all(f"select item_id from {table}") == [(completed,)]
    assert rows.all(
        "select item_id, name, from_status, to_status, attempt, message from job_events where item_id > 0"
    ) == [(first, "requeue", "failed", "queued", 1, "[1]")]
    rows.assert_sound(job_id)


@pytest.mark.parametrize(
    ("verb", "status", "items", "verbs"),
    [
        (retry, "completed", ["completed"], ("delete",)),
        (resume, "completed", ["completed", "skipped"], ("delete",)),
        (retry, "cancelled", ["cancelled"], ("resume", "delete")),
        (retry, "running", ["running"], ("cancel", "pause", "fail")),
        (resume, "queued", ["queued"], ("cancel", "pause", "fail", "delete")),
    ],
)
def test_where_nothing_failed_the_refusal_says_so_and_names_the_legal_verbs(store, rows, verb, status, items, verbs):
    job_id = rows.job(items, status=status)
    with pytest.raises(IllegalTransition, match=f"job {job_id} with no failed .*is {status}: it cannot") as refusal:
        verb(store, job_id, now=LATER, actor="cli")
    assert refusal.value.legal == verbs
    assert rows.items(job_id) == items
    rows.assert_sound(job_id)


@pytest.mark.parametrize(("column", "word"), [("cancel_requested_at", "cancelled"), ("fail_requested_at", "failed")])
@pytest.mark.parametrize("verb", [retry, resume])
def test_a_job_that_is_still_being_cancelled_or_failed_cannot_be_retried(store, rows, verb, column, word):
    job_id = rows.job(["failed", "running"], status="running", **{column: NOW})
    with pytest.raises(Conflict, match=f"job {job_id} is still being {word}"):
        verb(store, job_id, now=LATER, actor="cli")
    assert rows.items(job_id) == ["failed", "running"]


@pytest.mark.parametrize("commits", range(1, 5))
def test_a_resume_killed_between_two_batches_is_finished_by_the_same_call(store, rows, small_batches, commits):
    job_id = rows.job(["failed"] * 7 + ["cancelled"] * 4, status="cancelled", cancel_requested_at=NOW)
    killed_after(store, commits)
    with pytest.raises(Killed):
        resume(store, job_id, now=LATER, actor="cli")
    rows.assert_sound(job_id)
    requeued = rows.items(job_id).count("queued")
    assert requeued == [0, 3, 6, 7, 10][commits]
    assert resume(store, job_id, now=LATER, actor="cli") == 11 - requeued
    assert rows.items(job_id) == ["queued"] * 11
    assert [event[0] for event in rows.events(job_id)].count("reopen") == 1
    rows.assert_sound(job_id)


def between_batches(store, happening):
    """Run ``happening`` once, after the next write of the store."""
    write, left = store.write, [happening]

    def interrupted(work, **kwargs):
        answer = write(work, **kwargs)
        store.write = write
        left.pop()()
        return answer

    store.write = interrupted


def test_an_item_that_fails_again_meanwhile_is_not_taken_a_second_time(store, rows, small_batches):
    job_id = rows.job(["failed"] * 4, status="failed")

    def fail_again():
        rows.change(
            "update job_items set status='failed', completed_at=1, error='again' where id=?", rows.ids(job_id)[0]
        )
        rows.change("update jobs set items_failed=items_failed+1")

    between_batches(store, fail_again)
    assert retry(store, job_id, now=LATER, actor="cli") == 4
    assert rows.items(job_id) == ["failed", "queued", "queued", "queued"]
    rows.assert_sound(job_id)


def test_a_job_that_ended_again_between_two_batches_is_reopened_again(store, rows, small_batches):
    job_id = rows.job(["failed"] * 4, status="failed")

    def end():
        rows.change("update job_items set status='skipped', completed_at=1 where status='queued'")
        rows.change("update jobs set status='failed', completed_at=1, items_skipped=3, version=version+1")
        rows.change(
            "insert into job_events (job_id, name, from_status, to_status, at, actor)"
            " values (?, 'fail', 'queued', 'failed', 0, 'd')",
            job_id,
        )

    between_batches(store, end)
    assert retry(store, job_id, now=LATER, actor="cli") == 4
    assert rows.items(job_id) == ["skipped"] * 3 + ["queued"]
    assert rows.one("select status from jobs") == "queued"
    rows.assert_sound(job_id)


def test_a_cancel_between_two_batches_of_a_resume_is_not_undone(store, rows, small_batches):
    job_id = rows.job(["failed"] * 4, status="failed")

    def cancel_all():
        cancel(store, job_id)
        work_off(store, job_id, now=LATER, actor="else")

    between_batches(store, cancel_all)
    with pytest.raises(Conflict, match=f"job {job_id} was cancelled meanwhile"):
        resume(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status from jobs") == "cancelled"
    rows.assert_sound(job_id)


def test_a_fail_between_two_batches_of_a_retry_is_not_undone(store, rows, small_batches):
    job_id = rows.job(["failed"] * 4, status="failed")

    def fail_all():
        fail(store, job_id)
        work_off(store, job_id, now=LATER, actor="else")

    between_batches(store, fail_all)
    with pytest.raises(Conflict, match=f"job {job_id} was failed meanwhile"):
        retry(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status from jobs") == "failed"
    rows.assert_sound(job_id)


def test_a_reopened_job_says_no_more_that_its_values_were_pruned(store, rows):
    job_id = rows.job(["failed", "completed"], status="failed", values_pruned_at=NOW)
    retry(store, job_id, now=LATER, actor="cli")
    assert rows.one("select values_pruned_at from jobs") is None


def test_a_retry_tells_its_progress_after_each_batch(store, rows, small_batches):
    job_id = rows.job(["failed"] * 4 + ["cancelled"] * 4, status="cancelled")
    heard = []
    resume(store, job_id, now=LATER, actor="cli", progress=heard.append)
    assert heard == [3, 4, 7, 8]
