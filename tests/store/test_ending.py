"""How a job ends: every branch of the rule, and who does not end."""

from __future__ import annotations

import pytest

from jobd.states import JOB_ENDS
from jobd.store.ending import end_jobs, exceeds

NOW = 1_795_305_600_000
LATER = NOW + 1_000


def statuses(**counts):
    return [status for status, count in counts.items() for _ in range(count)]


@pytest.fixture
def end(shared):
    """Add a job with these items, end it if its time has come, and return what ended."""
    store, rows = shared

    def end(items, **columns):
        job_id = rows.job(items, **columns)
        ended = store.write(lambda connection: end_jobs(store, connection, [job_id], now=LATER, actor="test"))
        rows.assert_sound(job_id)
        assert [row.job_id for row in ended] in ([], [job_id])
        return job_id, ended

    return end


ASKED = {"cancel_requested_at": NOW}
TO_FAIL = {"fail_requested_at": NOW}


@pytest.mark.parametrize(
    ("items", "columns", "status", "message"),
    [
        # a fail was requested, and an item was failed or cancelled
        (statuses(completed=2, failed=1), TO_FAIL, "failed", "by request"),
        (statuses(completed=2, cancelled=1), TO_FAIL, "failed", "by request"),
        (statuses(completed=2, failed=1), {**TO_FAIL, "tolerance": "100%"}, "failed", "by request"),
        (statuses(completed=1, cancelled=1), {**TO_FAIL, **ASKED}, "failed", "by request"),
        (statuses(completed=3), TO_FAIL, "completed", None),
        (statuses(completed=1, skipped=1), TO_FAIL, "completed", None),
        # else a cancel was requested, and an item was cancelled
        (statuses(completed=2, cancelled=1), ASKED, "cancelled", "1 of 3 items cancelled"),
        (statuses(cancelled=2), ASKED, "cancelled", "2 of 2 items cancelled"),
        (statuses(failed=1, cancelled=1), ASKED, "cancelled", "1 of 2 items cancelled"),
        (statuses(completed=3), ASKED, "completed", None),
        (statuses(completed=2, failed=1), ASKED, "failed", "1 of 3 items failed"),
        # else more items failed than the tolerance
        (statuses(completed=2, failed=1), {}, "failed", "1 of 3 items failed"),
        (statuses(completed=1, failed=2), {"tolerance": "1"}, "failed", "2 of 3 items failed"),
        (statuses(completed=94, failed=6), {"tolerance": "5%"}, "failed", "6 of 100 items failed"),
        (statuses(completed=1, failed=1), {"tolerance": "49.9%"}, "failed", "1 of 2 items failed"),
        # else it completed, with warnings or without
        (statuses(completed=1), {}, "completed", None),
        (statuses(skipped=2), {}, "completed", None),
        (statuses(completed=2, failed=1), {"tolerance": "1"}, "completed", "with warnings: 1 of 3 items failed"),
        (statuses(completed=95, failed=5), {"tolerance": "5%"}, "completed", "with warnings: 5 of 100 items failed"),
        (statuses(completed=1, failed=1), {"tolerance": "50%"}, "completed", "with warnings: 1 of 2 items failed"),
        (statuses(failed=1), {"tolerance": "100%"}, "completed", "with warnings: 1 of 1 items failed"),
        # nobody asked: what was cancelled before (a retry of some of its items) does not decide
        (statuses(completed=1, cancelled=1), {}, "completed", None),
        ([], {}, "completed", "no items"),
        ([], ASKED, "completed", "no items"),
    ],
)
@pytest.mark.parametrize("before", ["queued", "running"])
def test_a_job_with_nothing_open_ends_by_the_rule(shared, end, items, columns, status, message, before):
    _, rows = shared
    job_id, ended = end(items, status=before, **columns)
    assert [(row.status, row.message) for row in ended] == [(status, message)]
    assert rows.one("select status, completed_at, version from jobs where id=?", job_id) == (status, LATER, 2)
    edge = {"completed": "complete", "failed": "fail", "cancelled": "cancel"}[status]
    assert rows.events(job_id) == [(edge, before, status, None)]
    assert rows.one("select message from job_events where job_id=? order by id desc limit 1", job_id) == message


@pytest.mark.parametrize("still", ["queued", "running", "waiting"])
@pytest.mark.parametrize("columns", [{}, ASKED, TO_FAIL], ids=["unasked", "cancel", "fail"])
def test_a_job_with_an_open_item_does_not_end(shared, end, still, columns):
    _, rows = shared
    job_id, ended = end(["completed", still], status="running", **columns)
    assert ended == []
    assert rows.one("select status, version, completed_at from jobs where id=?", job_id) == ("running", 1, None)


@pytest.mark.parametrize("items", [[], ["completed"]])
@pytest.mark.parametrize("columns", [{"sealed_at": None}, {"deleted_at": NOW}], ids=["submitting", "deleting"])
def test_a_job_that_is_being_submitted_or_deleted_does_not_end(end, items, columns):
    _, ended = end(items, **columns)
    assert ended == []


@pytest.mark.parametrize("status", JOB_ENDS)
def test_a_job_that_has_ended_does_not_end_again(end, status):
    _, ended = end(["completed"], status=status)
    assert ended == []


@pytest.mark.parametrize(
    ("items", "columns", "last_error"),
    [
        (["completed"], {}, None),
        (["completed", "failed"], {"tolerance": "1"}, "ValueError: no"),
        (["completed", "failed"], {}, "ValueError: no"),
        (["failed", "cancelled"], ASKED, "ValueError: no"),
        (["cancelled"], TO_FAIL, "ValueError: no"),
    ],
)
def test_only_a_completion_without_warnings_clears_the_last_error(shared, end, items, columns, last_error):
    _, rows = shared
    job_id, _ = end(items, status="running", last_error="ValueError: no", **columns)
    assert rows.one("select last_error from jobs where id=?", job_id) == last_error


def test_an_ended_job_has_no_deadline_any_more(shared, end):
    _, rows = shared
    for items in (["completed"], ["failed"]):
        job_id, _ = end(items, status="running", timeout_at=NOW)
        assert rows.one("select timeout_at from jobs where id=?", job_id) is None


def test_of_many_jobs_those_that_have_nothing_open_end_at_once(shared):
    store, rows = shared
    jobs = [rows.job(["completed"]), rows.job(["queued"]), rows.job(["failed"]), rows.job(["completed"])]
    ended = store.write(lambda connection: end_jobs(store, connection, jobs, now=LATER, actor="test"))
    assert {(row.job_id, row.status) for row in ended} == {
        (jobs[0], "completed"), (jobs[2], "failed"), (jobs[3], "completed"),
    }  # fmt: skip
    for job_id in jobs:
        rows.assert_sound(job_id)


@pytest.mark.parametrize(
    ("tolerance", "failed", "total", "expected"),
    [
        ("0", 0, 10, False),
        ("0", 1, 10, True),
        ("3", 3, 3, False),
        ("3", 4, 10, True),
        ("0%", 0, 10, False),
        ("0%", 1, 10, True),
        ("5%", 5, 100, False),
        ("5%", 6, 100, True),
        ("5%", 1, 19, True),
        ("5%", 1, 20, False),
        ("33.4%", 1, 3, False),
        ("33.3%", 1, 3, True),
        ("100%", 7, 7, False),
        ("0.57%", 57, 10_000, False),
        ("0.57%", 58, 10_000, True),
        ("5%", 0, 0, False),
    ],
)
def test_a_tolerance_is_a_count_or_a_share_of_all_items(tolerance, failed, total, expected):
    assert exceeds(tolerance, failed, total) is expected


# -- failures that were none ------------------------------------------------------------------------------------------


def test_a_job_does_not_fail_by_an_item_whose_result_is_stored(store, rows):
    """Its item failed before it, as somebody thought; the last item that ends has the job looked at whole."""
    job_id = rows.job(["failed", "completed"], status="running", last_error="ValueError: no")
    for item in rows.ids(job_id):
        rows.result(item)
    (ended,) = store.write(lambda connection: end_jobs(store, connection, [job_id], now=LATER, actor="test"))
    assert (ended.status, ended.message) == ("completed", None)
    assert rows.items(job_id) == ["completed", "completed"]
    assert rows.one("select last_error from jobs") is None
    events = "select item_id is null, name, from_status, to_status from job_events where id > 1 order by id"
    assert rows.all(events) == [(0, "reconcile", "failed", "completed"), (1, "complete", "running", "completed")]
    rows.assert_sound(job_id)


def test_one_that_failed_in_truth_fails_its_job_beside_one_that_did_not(store, rows):
    job_id = rows.job(["failed", "failed"], status="running", last_error="ValueError: no")
    rows.result(rows.ids(job_id)[0])
    (ended,) = store.write(lambda connection: end_jobs(store, connection, [job_id], now=LATER, actor="test"))
    assert (ended.status, ended.message) == ("failed", "1 of 2 items failed")
    assert rows.items(job_id) == ["completed", "failed"]
    rows.assert_sound(job_id)


def test_a_failed_result_and_that_of_another_attempt_change_nothing(store, rows):
    job_id = rows.job(["failed", "failed"], status="running")
    first, second = rows.ids(job_id)
    rows.result(first, "failed", '"no"')
    rows.result(second, attempt=7)
    (ended,) = store.write(lambda connection: end_jobs(store, connection, [job_id], now=LATER, actor="test"))
    assert ended.message == "2 of 2 items failed"
    assert rows.item_events() == []


def test_how_a_job_would_end_is_said_with_its_results_and_nothing_is_written(store, rows):
    job_id = rows.job(["failed"], status="running")
    rows.result(rows.ids(job_id)[0])

    def look(connection):
        return end_jobs(store, connection, [job_id], now=LATER, actor="test", check_only=True)

    (would,) = store.read(look)
    assert would.status == "completed"
    assert rows.items(job_id) == ["failed"]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_look_at_a_jobs_end_costs_the_same_however_many_items_it_has(store, rows, status):
    steps = []
    counts = []
    for number in (4_000, 16_000):
        job_id = rows.job([status] * number, status="running")
        steps.clear()
        store.connection().set_progress_handler(lambda: steps.append(1), 100)
        store.write(lambda connection, job_id=job_id: end_jobs(store, connection, [job_id], now=LATER, actor="test"))
        store.connection().set_progress_handler(None, 0)
        counts.append(len(steps) * 100)
    assert counts[1] <= counts[0] + 1_000
    assert counts[1] < (3_000 if status == "completed" else 50_000)
