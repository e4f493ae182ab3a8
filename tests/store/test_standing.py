"""What a reader is told of a job: never that it runs where nobody runs it."""

from __future__ import annotations

import json

import pytest
from kit.rows import NOW
from kit.standing import ALIVE, GONE, HOUR, MINUTE, OTHER, RUN

from jobd.process import Process, myself
from jobd.store import reads
from jobd.store.views import NOBODY, Runner
from jobd.store.wording import span

HEALTH = [
    ("ok", "running", ["running"], ALIVE, RUN),
    ("ok", "queued", ["queued"], ALIVE, {}),
    ("ok", "completed", ["completed"], NOBODY, {"status": "completed"}),
    ("submitting", "submitting: 2 items so far", ["queued"] * 2, ALIVE, {"sealed_at": None}),
    ("orphaned", "running, but nobody runs it: daemon 1 (pid 101) is gone", ["running"], GONE, RUN),
    ("orphaned", "running, but nobody runs it: daemon 1 (pid 101) is gone", ["queued"], GONE, RUN),
    ("orphaned", "running, but nobody runs it", ["queued"], NOBODY, RUN),
    ("orphaned", "running, but nobody runs 1 of its items: daemon 1 (pid 101) is gone", ["running"], OTHER, RUN),
    (
        "orphaned",
        "paused: 1 item still running, but nobody runs it: daemon 1 (pid 101) is gone",
        ["running", "queued"],
        GONE,
        {**RUN, "paused_at": NOW},
    ),
    ("paused", "paused", ["queued"], ALIVE, {**RUN, "paused_at": NOW}),
    ("paused", "paused, but no daemon is running", ["queued"], GONE, {**RUN, "paused_at": NOW}),
    (
        "unknown_task",
        "queued, but daemon 1 (pid 101) does not know the task other",
        ["queued"],
        ALIVE,
        {"task": "other"},
    ),
    ("idle", "queued, but no daemon is running", ["queued"], NOBODY, {}),
    ("idle", "queued, next item in 4 m", ["queued"], ALIVE, {"not_before": NOW + 5 * MINUTE}),
    (
        "idle",
        "queued, next item in 4 m, but no daemon is running",
        ["queued"],
        NOBODY,
        {"not_before": NOW + 5 * MINUTE},
    ),
    ("ok", "running: 2 items waiting for the outside world", ["waiting"] * 2, ALIVE, RUN),
    ("ok", "cancelling: 1 item running", ["running"], ALIVE, {**RUN, "cancel_requested_at": NOW}),
    ("ok", "failing by request", ["queued"], ALIVE, {**RUN, "fail_requested_at": NOW}),
    ("ok", "being deleted", ["completed"], ALIVE, {"status": "completed", "deleted_at": NOW}),
    (
        "ok",
        "completed with warnings: 1 of 3 items failed",
        ["failed", "completed", "completed"],
        NOBODY,
        {"status": "completed", "tolerance": "1"},
    ),
    ("ok", "completed: no items", [], NOBODY, {"status": "completed"}),
    ("ok", "failed: 1 of 2 items failed", ["failed", "completed"], NOBODY, {"status": "failed"}),
    ("ok", "failed: by request", ["cancelled"], NOBODY, {"status": "failed", "fail_requested_at": NOW}),
    ("ok", "failed: no more money", ["failed"], NOBODY, {"status": "failed", "status_message": "no more money"}),
    ("ok", "cancelled: 1 of 2 items", ["completed", "cancelled"], NOBODY, {"status": "cancelled"}),
]


@pytest.mark.parametrize(("health", "words", "items", "runner", "columns"), HEALTH, ids=[case[1] for case in HEALTH])
def test_health_and_sentence(told, health, words, items, runner, columns):
    job = told(items, runner, **columns)
    assert (job.health, job.status_description) == (health, words)


@pytest.mark.parametrize("columns", [case[4] for case in HEALTH if case[4].get("status") == "running"])
@pytest.mark.parametrize("item", ["queued", "running", "waiting"])
def test_without_a_live_daemon_no_running_job_reads_running_alone(told, item, columns):
    job = told([item], GONE, **columns)
    assert "nobody runs it" in job.status_description or job.status_description == "paused, but no daemon is running"
    assert job.health == "orphaned" or (job.health == "paused" and item != "running")
    assert job.daemon is not None
    assert not job.daemon.alive
    assert any("daemon 1 (pid 101) is gone" in warning for warning in job.warnings)


def test_a_job_is_stalled_after_an_hour_without_progress(told):
    before, after = (told(["running"], after=after, **RUN) for after in (HOUR - 1, HOUR))
    assert before.health == "ok"
    assert (after.health, after.status_description) == ("stalled", "running, but without progress for 1 h")
    assert after.warnings == (f"no progress for 1 h: jobd items {after.id} --status running",)


def test_the_jobs_own_stall_after_goes_before_the_setting(told):
    policy = json.dumps({"stall_after": 30})
    assert told(["running"], policy=policy, **RUN).health == "stalled"


def test_a_job_whose_items_are_all_due_later_is_idle_and_not_stalled(told, rows, store):
    job_id = told(["queued"], **RUN).id
    rows.change("update job_items set available_at=? where job_id=?", NOW + 3 * HOUR, job_id)
    job = reads.job(store, job_id, now=NOW + 2 * HOUR, runner=ALIVE)
    assert (job.health, job.status_description) == ("idle", "running, next item in 1 h")
    assert job.warnings == ()


@pytest.mark.parametrize(("on", "parent", "waits"), [
    ("completed", "running", True), ("completed", "failed", True), ("completed", "completed", False),
    ("ended", "failed", False), ("ended", "queued", True),
])  # fmt: skip
def test_a_job_after_another_names_it_and_waits_for_its_end(told, rows, store, on, parent, waits):
    first, second = told(["completed"], status=parent).id, told(["queued"]).id
    rows.change("insert into job_dependencies (job_id, after_id, on_status) values (?, ?, ?)", second, first, on)
    job = reads.job(store, second, now=NOW, runner=ALIVE)
    assert job.after == (first,)
    assert (job.health, job.status_description) == (
        ("idle", f"queued, after job {first}") if waits else ("ok", "queued")
    )


@pytest.mark.parametrize(("submitter", "gone"), [
    (myself(), False), (myself()._replace(pid=2**22 + 1), True), (myself()._replace(boot="an earlier one"), True),
    (myself()._replace(host="elsewhere"), False),
])  # fmt: skip
def test_the_reader_is_told_that_a_submitter_died(told, submitter, gone):
    job = told(["queued"], sealed_at=None, submitter=submitter.dumps())
    assert job.health == "submitting"
    assert ("but its submitter is gone" in job.status_description) == gone
    assert job.warnings == (("its submitter is gone: jobd recover removes the job",) if gone else ())


def test_a_submitter_that_cannot_be_read_is_not_called_dead(told):
    assert Process.loads("[]") is None
    assert told(["queued"], sealed_at=None, submitter="[]").warnings == ()


def test_no_age_is_negative_when_the_clock_was_set_back(told):
    job = told(["running"], after=-2 * HOUR, **RUN)
    assert (job.age_seconds, job.in_status_seconds) == (0, 0)
    assert job.rate_per_second is None


@pytest.mark.parametrize(("items", "columns", "verbs"), [
    (["queued"], {}, ("cancel", "pause", "fail", "delete")),
    (["running", "failed"], RUN, ("cancel", "pause", "retry", "resume", "fail")),
    (["running", "failed"], {**RUN, "paused_at": NOW}, ("cancel", "unpause", "retry", "resume", "fail")),
    (["failed", "completed"], {"status": "failed"}, ("retry", "resume", "delete")),
    (["cancelled"], {"status": "cancelled"}, ("resume", "delete")),
    (["completed"], {"status": "completed"}, ("delete",)),
    (["queued"], {**RUN, "cancel_requested_at": NOW}, ("fail",)),
    (["queued"], {**RUN, "fail_requested_at": NOW}, ()),
    (["queued"], {"sealed_at": None}, ()),
    (["failed"], {"status": "failed", "deleted_at": NOW}, ()),
])  # fmt: skip
def test_operations_are_the_verbs_that_the_job_takes_now(told, items, columns, verbs):
    assert told(items, **columns).operations == verbs


# -- pace -------------------------------------------------------------------------------------------------------------


def test_rate_and_eta_come_from_what_was_settled_so_far(told):
    job = told(["completed"] * 30 + ["running"] + ["queued"] * 14, **RUN)
    assert (job.rate_per_second, job.eta_seconds) == (0.5, 30)


def test_an_eta_is_rounded_up_so_that_nothing_open_is_never_due_at_once(told):
    job = told(["completed"] * 120 + ["running"], **RUN)
    assert (job.rate_per_second, job.eta_seconds) == (2.0, 1)


def test_the_rate_of_an_ended_job_is_that_of_its_life(told):
    job = told(["completed"] * 30, status="completed", progress_at=NOW + MINUTE, after=HOUR)
    assert (job.rate_per_second, job.eta_seconds) == (0.5, None)


@pytest.mark.parametrize(("items", "columns"), [(["queued"], {}), (["running"], RUN), ([], {"status": "completed"})])
def test_where_nothing_was_settled_no_rate_is_made_up(told, items, columns):
    job = told(items, **columns)
    assert (job.rate_per_second, job.eta_seconds) == (None, None)


def test_a_job_that_nobody_runs_has_no_eta(told):
    job = told(["completed", "queued"], GONE, progress_at=NOW + 1_000, **RUN)
    assert job.rate_per_second is not None
    assert job.eta_seconds is None


def test_after_a_restart_the_pace_is_that_of_this_run(told, rows, store):
    """Ten items yesterday, then eleven within ten seconds of today's daemon: one a second, not eleven a day."""
    job_id = told(["completed"] * 21 + ["queued"] * 30, **RUN).id
    today = NOW + 24 * HOUR
    runner = ALIVE._replace(id=2, started_at=today)
    for number, item_id in enumerate(rows.ids(job_id)[10:21]):
        rows.change("update job_items set completed_at=? where id=?", today + 1_000 * number, item_id)
    job = reads.job(store, job_id, now=today + 10_000, runner=runner)
    assert (job.rate_per_second, job.eta_seconds) == (1.0, 30)


@pytest.mark.parametrize(("after", "rate"), [(999, None), (1_000, 2.0)])
def test_a_run_of_less_than_a_second_has_no_rate_yet(told, after, rate):
    assert told(["completed"] * 2 + ["queued"] * 9, after=after, **RUN).rate_per_second == rate


def test_a_job_that_ended_within_a_second_has_the_rate_of_its_whole_life(told):
    assert told(["completed"] * 2, status="completed", progress_at=NOW + 20).rate_per_second == 100.0


@pytest.mark.parametrize(("later", "rate"), [(999, None), (1_000, 1.0), (4_000, 0.25)])
def test_after_a_restart_two_items_close_together_are_no_pace_until_a_second_has_passed(told, rows, store, later, rate):
    job_id = told(["completed"] * 2 + ["queued"] * 30, **RUN).id
    today = NOW + 24 * HOUR
    for number, item_id in enumerate(rows.ids(job_id)[:2]):
        rows.change("update job_items set completed_at=? where id=?", today + 2 * number, item_id)
    runner = ALIVE._replace(id=2, started_at=today)
    assert reads.job(store, job_id, now=today + later, runner=runner).rate_per_second == rate


def ended_every(rows, job_id, *moments):
    """Give a job's items these ends, in their order."""
    for at, item_id in zip(moments, rows.ids(job_id), strict=False):
        rows.change("update job_items set completed_at=? where id=?", at, item_id)


@pytest.mark.parametrize("front", ["running", "queued"])
def test_the_rate_is_that_of_the_last_minute_and_not_of_the_whole_job(told, rows, store, front):
    """A hundred items in the first nine minutes, and then one each two seconds."""
    job_id = told(["completed"] * 130 + [front] + ["queued"] * 29, **RUN).id
    slow = [NOW + 9 * MINUTE + 2_000 * number for number in range(30)]
    ended_every(rows, job_id, *(NOW + 5_000 * number for number in range(100)), *slow)
    job = reads.job(store, job_id, now=NOW + 10 * MINUTE, runner=ALIVE)
    assert (job.rate_per_second, job.eta_seconds) == (pytest.approx(0.483, abs=0.001), 63)


def test_of_a_job_slower_than_the_minute_its_last_items_are_the_pace(told, rows, store):
    """An item each minute: eight of them are nine minutes ago, and longer."""
    job_id = told(["completed"] * 20 + ["running"] + ["queued"] * 5, **RUN).id
    ended_every(rows, job_id, *(NOW + MINUTE * number for number in range(20)))
    job = reads.job(store, job_id, now=NOW + 20 * MINUTE, runner=ALIVE)
    assert job.rate_per_second == pytest.approx(8 / (9 * 60), abs=0.001)


def test_a_job_that_hangs_slows_down_to_the_eye(told, rows, store):
    job_id = told(["completed"] * 120 + ["running"] + ["queued"] * 5, **RUN).id
    ended_every(rows, job_id, *(NOW + 1_000 * number for number in range(120)))
    rates = [
        reads.job(store, job_id, now=NOW + after, runner=ALIVE).rate_per_second
        for after in (2 * MINUTE, 3 * MINUTE, 10 * MINUTE)
    ]
    assert rates[0] > 0.9
    assert rates == sorted(rates, reverse=True)
    assert rates[2] < 0.02


def test_what_is_claimed_ahead_does_not_hide_the_pace(told, rows, store):
    """More items are under way than the first look takes."""
    job_id = told(["completed"] * 50 + ["running"] * 400 + ["queued"], **RUN).id
    ended_every(rows, job_id, *(NOW + 5 * MINUTE + 1_000 * number for number in range(50)))
    job = reads.job(store, job_id, now=NOW + 5 * MINUTE + 50_000, runner=ALIVE)
    assert job.rate_per_second == pytest.approx(49 / 50)


def test_the_items_of_other_jobs_between_do_not_hide_the_pace(told, rows, store):
    job_id = told(["completed"] * 20 + ["queued"], **RUN).id
    other = told(["completed"] * 40, status="completed").id
    for item_id in rows.ids(other):
        rows.change("update job_items set completed_at=? where id=?", NOW + 5 * MINUTE, item_id)
    rows.change("update job_items set id = id * 2 + 1000 where job_id = ?", job_id)
    rows.change("update job_items set id = id * 2 + 959 where job_id = ?", other)
    ended_every(rows, job_id, *(NOW + 5 * MINUTE + 1_000 * number for number in range(20)))
    job = reads.job(store, job_id, now=NOW + 5 * MINUTE + 20_000, runner=ALIVE)
    assert job.rate_per_second == pytest.approx(19 / 20)


def test_the_pace_of_quick_items_is_taken_over_as_many_as_fill_a_second(told, rows, store):
    """256 of them, the sample of a slow job, take a quarter of it."""
    job_id = told(["completed"] * 3_000 + ["queued"], **RUN).id
    today = NOW + 24 * HOUR
    first = rows.ids(job_id)[0]
    rows.change("update job_items set completed_at = ? + id - ? where job_id=?", today, first, job_id)
    runner = ALIVE._replace(id=2, started_at=today)
    assert reads.job(store, job_id, now=today + 3_000, runner=runner).rate_per_second == pytest.approx(1_000, rel=0.01)


def test_after_a_restart_nothing_is_said_of_the_pace_until_it_shows(told, rows, store):
    job_id = told(["completed"] * 21 + ["queued"] * 30, **RUN).id
    runner = ALIVE._replace(id=2, started_at=NOW + 24 * HOUR)
    assert reads.job(store, job_id, now=NOW + 24 * HOUR + 5, runner=runner).rate_per_second is None


# -- who runs it ----------------------------------------------------------------------------------------------------


def test_an_open_job_names_the_daemon_that_runs_it(told):
    daemon = told(["running"], **RUN).daemon
    assert (daemon.id, daemon.pid, daemon.host, daemon.alive) == (1, 101, "here", True)


def test_an_orphaned_job_names_the_daemon_that_did(told):
    daemon = told(["running"], OTHER._replace(alive=False), **RUN).daemon
    assert (daemon.id, daemon.pid, daemon.alive) == (1, 101, False)


def test_an_ended_job_and_one_that_no_daemon_ever_saw_name_none(told):
    assert told(["completed"], status="completed").daemon is None
    assert told(["queued"], NOBODY).daemon is None


def test_a_daemon_that_is_only_starting_is_not_said_to_know_no_task(told):
    starting = Runner(alive=True, pid=55)
    job = told(["queued"], starting)
    assert (job.health, job.warnings) == ("ok", ())


@pytest.mark.parametrize(("ms", "words"), [
    (-5, "0 s"), (999, "0 s"), (59_999, "59 s"), (60_000, "1 m"), (252_000, "4 m 12 s"),
    (7_500_000, "2 h 5 m"), (7_200_000, "2 h"), (90_000_000, "1 d 1 h"),
])  # fmt: skip
def test_a_length_of_time_is_said_in_its_two_largest_units(ms, words):
    assert span(ms) == words
