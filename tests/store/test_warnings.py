"""Every inconsistency that can be seen without writing is a warning, and says what mends it."""

from __future__ import annotations

import pytest
from kit.rows import NOW
from kit.standing import ALIVE, GONE, HOUR, MINUTE, RUN

from jobd.store import reads
from jobd.store.closeup import LOOKED_FOR, MOST
from jobd.store.views import NOBODY

DONE = {"status": "completed"}
LATE = 3 * MINUTE
TIMED = {"job_timeout_ms": 30_000, "timeout_at": NOW + 30_000}

WARNINGS = [
    ("1 of 3 items failed", ["failed", "completed", "completed"], NOBODY, DONE),
    ("no items", [], NOBODY, DONE),
    ("daemon 1 (pid 101) is gone for 3 m; 2 items in flight: jobd recover", ["running"] * 2, GONE, RUN),
    ("no daemon is running: jobd start", ["queued"], NOBODY, {}),
    ("no daemon is running (daemon 1 (pid 101) is gone): jobd start", ["queued"], GONE, RUN),
    (
        "daemon 1 (pid 101) does not know the task other: start the program that registers it",
        ["queued"],
        ALIVE,
        {"task": "other"},
    ),
    (
        "daemon 1 (pid 101) is degraded (disk full): jobd health",
        ["running"],
        ALIVE._replace(state={"degraded": "disk full"}),
        RUN,
    ),
    ("its timeout passed 2 m 30 s ago: jobd time-out", ["running"], ALIVE, {**RUN, **TIMED}),
    (
        "cancel was requested 3 m ago, 1 item open still: jobd cancel {id}",
        ["queued", "running"],
        ALIVE,
        {**RUN, "cancel_requested_at": NOW},
    ),
    (
        "fail was requested 3 m ago, 1 item open still: jobd fail {id}",
        ["waiting", "running"],
        ALIVE,
        {**RUN, "fail_requested_at": NOW},
    ),
    ("its removal was requested 3 m ago: jobd recover", ["failed"], ALIVE, {**DONE, "deleted_at": NOW}),
    (
        "the counter says 2 running, the items say 1: jobd doctor",
        ["running", "queued"],
        ALIVE,
        {**RUN, "items_running": 2},
    ),
    (
        "the counter says 0 waiting, the items say 1: jobd doctor",
        ["running", "waiting"],
        ALIVE,
        {**RUN, "items_waiting": 0},
    ),
    (
        "the counter says 2 failed, the items say 1: jobd doctor",
        ["failed", "queued", "queued"],
        ALIVE,
        {**RUN, "items_failed": 2},
    ),
    (
        "the counter says 2 queued, the items say 1: jobd doctor",
        ["queued", "running"],
        ALIVE,
        {**RUN, "items_total": 3},
    ),
    ("completed, but 1 item open: jobd doctor", ["queued"], NOBODY, DONE),
    ("running, but nothing of it is open: jobd recover", ["completed"], ALIVE, RUN),
    ("queued, but 1 item running: jobd doctor", ["running"], ALIVE, {}),
    (
        "failed, but without a time of its end: jobd doctor",
        ["failed"],
        NOBODY,
        {"status": "failed", "completed_at": None},
    ),
    ("queued, but with a time of its end: jobd doctor", ["queued"], ALIVE, {"completed_at": NOW}),
    ("running, but without a time of its start: jobd doctor", ["running"], ALIVE, {**RUN, "started_at": None}),
    ("created 1 h in the future: the clock was set back", ["queued"], ALIVE, {"created_at": NOW + HOUR + LATE}),
]


@pytest.mark.parametrize(("warning", "items", "runner", "columns"), WARNINGS, ids=[case[0] for case in WARNINGS])
def test_every_visible_inconsistency_is_a_warning(told, warning, items, runner, columns):
    job = told(items, runner, after=LATE, **columns)
    assert job.warnings == (warning.format(id=job.id),)


SOUND = [
    (["running", "queued", "completed", "failed", "waiting"], RUN),
    (["queued"], {}),
    (["completed"] * 3, DONE),
    (["failed"], {"status": "failed"}),
    (["cancelled"], {"status": "cancelled"}),
    (["queued"] * 2, {"sealed_at": None, "items_total": 5}),
    (["running", "queued"], {**RUN, **TIMED, "paused_at": NOW}),
    (["queued"], {**RUN, **TIMED}),
    (["running"], {**RUN, **TIMED, "progress_at": NOW + 60_000}),
]


@pytest.mark.parametrize(("items", "columns"), SOUND, ids=[f"{columns}" for _, columns in SOUND])
def test_of_a_sound_job_there_is_nothing_to_warn_of(told, items, columns):
    assert told(items, after=LATE, **columns).warnings == ()


@pytest.mark.parametrize(("column", "columns"), [
    ("cancel_requested_at", RUN), ("fail_requested_at", RUN), ("deleted_at", DONE),
])  # fmt: skip
def test_what_was_asked_a_moment_ago_of_a_live_daemon_is_on_its_way(told, column, columns):
    items = ["failed"] if columns is DONE else ["queued", "running"]
    assert told(items, after=2 * MINUTE, **columns, **{column: NOW}).warnings == ()


@pytest.mark.parametrize(("column", "items", "columns"), [
    ("cancel_requested_at", ["queued"], {}), ("fail_requested_at", ["queued"], {}), ("deleted_at", ["failed"], DONE),
])  # fmt: skip
def test_what_was_asked_while_no_daemon_runs_nobody_carries_out(told, column, items, columns):
    warnings = told(items, NOBODY, after=1_000, **columns, **{column: NOW}).warnings
    assert any("was requested 1 s ago" in warning for warning in warnings)


def test_a_running_item_without_a_daemon_is_told(told, rows, store):
    job_id = told(["running"], **RUN).id
    rows.change("update job_items set daemon_id = null")
    job = reads.job(store, job_id, now=NOW, runner=ALIVE)
    assert (job.health, job.warnings) == ("orphaned", ("1 item running, and no daemon named: jobd recover",))


# -- from close -------------------------------------------------------------------------------------------------------


def store_result(rows, item_id, *, status="completed", attempt=1, at=NOW):
    rows.change(
        "insert into results (item_id, attempt, task, key, status, value, created_at)"
        " values (?, ?, 'work', 'k', ?, '1', ?)",
        item_id, attempt, status, at,
    )  # fmt: skip


STORED = [
    ("running", "completed", RUN, True),
    ("running", "failed", RUN, True),
    ("waiting", "completed", RUN, True),
    ("queued", "completed", {}, True),
    ("failed", "completed", {"status": "failed"}, True),
    ("failed", "failed", {"status": "failed"}, False),
    ("completed", "completed", DONE, False),
]


@pytest.mark.parametrize(("item", "result", "columns", "told_of"), STORED)
def test_an_item_that_a_stored_result_says_is_done_is_told(told, rows, store, item, result, columns, told_of):
    job_id = told([item], **columns).id
    store_result(rows, rows.ids(job_id)[0], status=result)
    warning = f"a result is stored of 1 item {item}: jobd reconcile"
    job = reads.job(store, job_id, now=NOW + MINUTE, runner=ALIVE)
    assert job.warnings == ((warning,) if told_of else ())


def test_a_handler_that_has_just_saved_its_result_is_about_to_end(told, rows, store):
    """Its daemon lives, and settles it when it returns; of one that is gone it is told at once."""
    job_id = told(["running"], **RUN).id
    store_result(rows, rows.ids(job_id)[0], at=NOW)
    warning = "a result is stored of 1 item running: jobd reconcile"
    assert reads.job(store, job_id, now=NOW + 59_999, runner=ALIVE).warnings == ()
    assert warning in reads.job(store, job_id, now=NOW + 60_000, runner=ALIVE).warnings
    assert warning in reads.job(store, job_id, now=NOW, runner=GONE).warnings


def test_a_result_of_an_attempt_before_says_nothing_of_a_running_one(told, rows, store):
    job_id = told(["running"], **RUN).id
    rows.change("update job_items set attempt = 2")
    store_result(rows, rows.ids(job_id)[0], attempt=1)
    assert reads.job(store, job_id, now=NOW + MINUTE, runner=ALIVE).warnings == ()


@pytest.mark.parametrize("change", ["started_at = null", "attempt = 0"])
def test_an_item_that_runs_without_a_start_is_told(told, rows, store, change):
    job_id = told(["running"] * 2, **RUN).id
    rows.change(f"update job_items set {change} where id = ?", rows.ids(job_id)[0])
    job = reads.job(store, job_id, now=NOW + MINUTE, runner=ALIVE)
    assert job.warnings == ("1 item running without a start or an attempt: jobd doctor",)


@pytest.mark.parametrize(("runner", "after", "warned"), [(ALIVE, 2, False), (ALIVE, 4, True), (GONE, 4, False)])
def test_a_deadline_that_has_passed_is_told_where_somebody_should_have_acted(told, rows, store, runner, after, warned):
    job_id = told(["waiting"] * 2, **RUN).id
    rows.change("update job_items set deadline_at = ? + id where job_id = ?", NOW, job_id)
    job = reads.job(store, job_id, now=NOW + after * MINUTE, runner=runner)
    found = [warning for warning in job.warnings if "deadline" in warning]
    assert found == (["the deadline of 2 items waiting passed 3 m 59 s ago: jobd time-out"] if warned else [])


def test_a_list_does_not_pay_for_a_look_from_close(told, rows, store):
    job_id = told(["failed"], status="failed").id
    store_result(rows, rows.ids(job_id)[0])
    (job,) = reads.jobs(store, now=NOW, runner=ALIVE)
    assert job.warnings == ()


@pytest.mark.parametrize("status", ["queued", "running", "waiting", "failed"])
def test_a_look_from_close_costs_the_same_whatever_the_size(told, rows, store, status):
    """Counted in steps of SQLite's machine: of twice as many items it takes no more."""
    job_id = told([status] * (MOST + 10), **RUN).id
    rows.change("update jobs set items_total = items_total + 1")
    rows.change("insert into job_items (job_id, key, payload) values (?, 'open', 'null')", job_id)

    def steps():
        taken = 0

        def step():
            nonlocal taken
            taken += 1

        store.connection().set_progress_handler(step, 100)
        try:
            assert reads.job(store, job_id, now=NOW, runner=ALIVE).warnings == ()
        finally:
            store.connection().set_progress_handler(None, 0)
        return taken

    once = steps()
    rows.change(
        "insert into job_items (job_id, key, payload, status, attempt, started_at, daemon_id, completed_at)"
        " select job_id, key || '-', payload, status, attempt, started_at, daemon_id, completed_at from job_items"
        " where key <> 'open'"
    )
    counter = "" if status == "queued" else f", items_{status} = items_{status} * 2"
    rows.change(f"update jobs set items_total = items_total * 2 - 1{counter}")
    # Who holds what runs is counted whole: by what in a daemon's hands there never is much of.
    assert steps() <= once * (2.1 if status == "running" else 1.1)
    assert LOOKED_FOR < MOST
