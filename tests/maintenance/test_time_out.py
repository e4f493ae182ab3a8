"""time_out: the clock of a job runs only while something of it does, and nothing times out for want of a daemon."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.maintenance import report as reporting
from jobd.maintenance.evidence import Holder
from jobd.maintenance.finish import finish
from jobd.maintenance.time_out import Limits, time_out
from jobd.store import deadlines
from jobd.store.batches import Pace

MINUTE, HOUR = 60_000, 3_600_000
TIMEOUT = 30 * MINUTE
MINE, OTHER = 1, 9
RUN = {"status": "running", "started_at": NOW, "progress_at": NOW}
TIMED = {**RUN, "job_timeout_ms": TIMEOUT, "timeout_at": NOW + TIMEOUT}
LATE = NOW + TIMEOUT


class World:
    """A file whose daemon 1 lives, and what its registry knows."""

    def __init__(self, store, rows):
        self.store, self.rows = store, rows
        self.interrupted = []
        rows.change(
            "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
            " values (1, 'here', 'boot', 1, 1, ?, ?, '1')",
            NOW, NOW,
        )  # fmt: skip

    def time_out(self, *, now=LATE, daemon=MINE, known=None, free_since=None, check_only=False, **limits):
        running = [row[0] for row in self.rows.all("select id from job_items where status='running'")]
        limits = {"timeout_ms": TIMEOUT, "tasks": ["work"], **limits}
        return time_out(
            self.store,
            holder=Holder(daemon, frozenset(running if known is None else known)),
            limits=Limits(**limits, free_since=free_since, interrupt=self.interrupted.extend),
            now=now,
            actor="test",
            check_only=check_only,
        )

    def job(self, items, **columns):
        return self.rows.job(items, **{**TIMED, **columns})

    def deadline(self, job_id):
        return self.rows.one("select timeout_at from jobs where id=?", job_id)

    def state(self, job_id):
        return self.rows.one("select status, retry_count, timeout_at, last_error from jobs where id=?", job_id)

    def messages(self, job_id):
        sql = "select name, message from job_events where job_id=? and name <> 'submit' order by id"
        return [tuple(row) for row in self.rows.all(sql, job_id)]

    def everything(self):
        return [[tuple(row) for row in self.rows.all(f"select * from {table}")] for table in TABLES]


TABLES = ("jobs", "job_items", "job_events", "results")


@pytest.fixture
def world(store, rows):
    return World(store, rows)


def found(report):
    return [(change.item_id, change.from_status, change.to_status, change.evidence) for change in report.changes]


# -- jobs without progress --------------------------------------------------------------------------------------------


def test_a_job_without_progress_times_out_and_its_items_are_given_to_the_daemon_to_interrupt(world, rows):
    job_id = world.job(["running", "queued", "completed", "running"])
    first, *_, last = rows.ids(job_id)
    assert found(world.time_out(now=LATE - 1)) == []
    report = world.time_out()
    assert found(report) == [
        (None, "running", "running", "no progress for 30 m; time-out 1 of 2"),
        (first, "running", "queued", "its job made no progress for 30 m"),
        (last, "running", "queued", "its job made no progress for 30 m"),
    ]
    assert report.counts == {"timed_out": 1, "interrupted": 2}
    assert [hung.item_id for hung in world.interrupted] == [first, last]
    assert [(hung.attempt, hung.why) for hung in world.interrupted] == [(1, "its job made no progress for 30 m")] * 2
    assert world.state(job_id) == ("running", 1, LATE + TIMEOUT, None)
    assert world.messages(job_id) == [("time_out", "no progress for 30 m")]
    rows.assert_sound(job_id)


def test_what_it_runs_in_the_daemons_name_and_the_registry_does_not_know_is_queued_again_at_once(world, rows):
    job_id = world.job(["running", "running"])
    first, second = rows.ids(job_id)
    world.time_out(known=[second])
    assert rows.items(job_id) == ["queued", "running"]
    assert [hung.item_id for hung in world.interrupted] == [second]
    assert rows.one("select interruptions, attempt, daemon_id from job_items where id=?", first) == (0, 1, None)
    assert world.messages(job_id)[1] == ("time_out", "its job made no progress for 30 m")
    assert rows.one("select progress_at from jobs") == NOW


def test_another_daemons_items_are_no_question_of_time(world, rows):
    job_id = world.job(["running"])
    rows.change("update job_items set daemon_id=?", OTHER)
    assert found(world.time_out()) == []
    assert (rows.items(job_id), world.deadline(job_id)) == (["running"], LATE + TIMEOUT)


def test_after_two_time_outs_the_next_fails_the_job_with_its_own_last_error_or_the_time_outs(world, rows):
    silent = world.job(["running", "queued"], retry_count=2)
    told = world.job(["running", "failed"], retry_count=2, last_error="ValueError: no")
    report = world.time_out()
    running = rows.ids(silent)[0]
    assert found(report)[:2] == [
        (None, "running", "failed", "no progress for 30 m; it has timed out too often"),
        (running, "running", "cancelled", "its job made no progress for 30 m"),
    ]
    assert rows.one("select fail_requested_at, status_message from jobs where id=?", silent) == (
        LATE, "timed out: no progress for 30 m",
    )  # fmt: skip
    assert len(world.interrupted) == 2
    # The daemon has given them up meanwhile.
    world.time_out(now=LATE + TIMEOUT, known=[])
    finish(world.store, now=LATE, actor="test")
    assert rows.items(silent) == ["cancelled", "cancelled"]
    assert world.state(silent) == ("failed", 2, None, "timed out: no progress for 30 m")
    assert world.state(told) == ("failed", 2, None, "ValueError: no")
    for job_id in (silent, told):
        rows.assert_sound(job_id)


def test_how_often_a_job_may_time_out_is_a_setting(world):
    job_id = world.job(["running"])
    assert found(world.time_out(retries=0))[0][2] == "failed"
    assert world.state(job_id)[1] == 0


@pytest.mark.parametrize("column", ["cancel_requested_at", "fail_requested_at"])
def test_a_handler_that_hangs_does_not_keep_a_job_from_being_cancelled(world, rows, column):
    job_id = world.job(["running", "completed"], **{column: NOW})
    report = world.time_out(known=[])
    assert report.counts == {"interrupted": 1}
    assert rows.items(job_id) == ["cancelled", "completed"]
    assert world.state(job_id)[:2] == ("cancelled" if column == "cancel_requested_at" else "failed", 0)


# -- what puts a deadline off -----------------------------------------------------------------------------------------


def test_progress_puts_the_deadline_off(world):
    job_id = world.job(["running"], progress_at=NOW + MINUTE)
    assert found(world.time_out()) == []
    assert world.deadline(job_id) == LATE + MINUTE
    assert found(world.time_out(now=LATE + MINUTE - 1)) == []
    assert len(found(world.time_out(now=LATE + MINUTE))) == 2


def test_an_item_has_the_whole_time_from_its_start(world, rows):
    job_id = world.job(["running", "running"])
    first, second = rows.ids(job_id)
    rows.change("update job_items set started_at=? where id=?", NOW + MINUTE, second)
    assert found(world.time_out()) == []
    assert world.deadline(job_id) == LATE + MINUTE
    assert {item_id for item_id, *_ in found(world.time_out(now=LATE + MINUTE))} == {None, first, second}


@pytest.mark.parametrize(("items", "columns"), [
    (["queued"], {}),
    (["waiting", "completed"], {}),
    (["queued"], {"not_before": LATE + HOUR}),
    (["queued"], {"task": "other"}),
])  # fmt: skip
def test_the_clock_of_a_job_of_which_nothing_runs_stands_still(world, rows, items, columns):
    job_id = world.job(items, **columns)
    for now in range(LATE, LATE + 8 * HOUR, 10 * MINUTE):
        assert found(world.time_out(now=now)) == []
    assert world.state(job_id)[1] == 0
    # When it goes on, it has the whole time.
    item_id = rows.ids(job_id)[0]
    rows.change("update jobs set items_running=1, items_waiting=0 where id=?", job_id)
    rows.change("update job_items set status='running', daemon_id=1, attempt=1, started_at=? where id=?", now, item_id)
    assert found(world.time_out(now=now + TIMEOUT - 1)) == []
    assert world.time_out(now=now + TIMEOUT).counts == {"timed_out": 1, "interrupted": 1}


@pytest.mark.parametrize("columns", [
    {"paused_at": NOW}, {"deleted_at": NOW}, {"job_timeout_ms": None}, {"status": "queued", "timeout_at": None},
], ids=str)  # fmt: skip
def test_the_clock_of_such_a_job_does_not_run(world, columns):
    job_id = world.job(["running"] if columns.get("status") != "queued" else ["queued"], **columns)
    before = world.everything()
    assert found(world.time_out(now=NOW + 100 * HOUR)) == []
    assert world.everything() == before
    del job_id


def test_nothing_times_out_where_no_daemon_lives(world, rows):
    job_id = world.job(["running", "waiting"])
    rows.change("update job_items set deadline_at=? where status='waiting'", LATE)
    before = world.everything()
    assert found(world.time_out(daemon=None, now=LATE + 8 * HOUR)) == []
    assert world.everything() == before
    # What had passed while one lived has passed.
    rows.change("update daemons set heartbeat_at=?", LATE)
    assert len(found(world.time_out(daemon=None, now=LATE + 8 * HOUR))) == 1
    assert rows.items(job_id) == ["running", "failed"]


# -- jobs that nobody sees to -----------------------------------------------------------------------------------------


def test_a_job_that_waits_for_its_own_rate_is_not_neglected(world):
    unbounded = {"status": "queued", "job_timeout_ms": None, "timeout_at": None, "started_at": None}
    world.job(["queued"], policy='{"rate": [1, 7200.0]}', **unbounded)
    world.job(["queued"], policy='{"concurrency": 1}', **unbounded)
    assert [change.job_id for change in world.time_out(now=NOW + TIMEOUT, free_since=NOW).changes] == [2]


def test_a_job_is_seen_to_where_a_slot_was_free_for_it_the_whole_time(world):
    job_id = world.job(["queued"], status="queued", job_timeout_ms=None, timeout_at=None, started_at=None)
    for count in (1, 2):
        now = NOW + count * TIMEOUT
        assert found(world.time_out(now=now - 1, free_since=NOW)) == []
        assert found(world.time_out(now=now, free_since=NOW)) == [
            (None, "queued", "queued", f"nothing of it has run for 30 m; time-out {count} of 2")
        ]
        assert world.state(job_id) == ("queued", count, now + TIMEOUT, None)
    assert world.time_out(now=NOW + 3 * TIMEOUT, free_since=NOW).counts == {"timed_out": 1}
    finish(world.store, now=LATE, actor="test")
    assert world.state(job_id)[::3] == ("failed", "timed out: nothing of it has run for 30 m")


@pytest.mark.parametrize(("columns", "free_since"), [
    ({}, None),
    ({}, NOW + 1),
    ({"task": "other"}, NOW),
    ({"not_before": NOW + 1}, NOW),
    ({"sealed_at": NOW + 1}, NOW),
    ({"progress_at": NOW + 1}, NOW),
    ({"status_updated_at": NOW + 1}, NOW),
    ({"paused_at": NOW}, NOW),
    ({"cancel_requested_at": NOW}, NOW),
    ({"job_timeout_ms": TIMEOUT + 1}, NOW),
], ids=str)  # fmt: skip
def test_a_job_that_others_starve_or_that_is_held_back_never_times_out(world, columns, free_since):
    job_id = world.job(["queued"], **{"job_timeout_ms": None, "timeout_at": None, **columns})
    before = world.everything()
    assert found(world.time_out(free_since=free_since)) == []
    assert world.everything() == before
    del job_id


def test_an_item_that_is_due_since_a_moment_is_not_one_that_nobody_sees_to(world, rows):
    world.job(["queued"], job_timeout_ms=None)
    rows.change("update job_items set available_at=?", NOW + 1)
    assert found(world.time_out(free_since=NOW)) == []
    assert len(found(world.time_out(now=LATE + 1, free_since=NOW))) == 1


# -- items that wait --------------------------------------------------------------------------------------------------


def waiting(world, *deadlines_at, **columns):
    job_id = world.job(["waiting"] * len(deadlines_at), job_timeout_ms=None, timeout_at=None, **columns)
    for item_id, at in zip(world.rows.ids(job_id), deadlines_at, strict=True):
        world.rows.change("update job_items set deadline_at=?, external_id=? where id=?", at, f"out-{item_id}", item_id)
    return job_id


def test_what_waits_past_its_deadline_fails(world, rows):
    job_id = waiting(world, NOW + MINUTE, NOW + 2 * MINUTE, None)
    first, second, _ = rows.ids(job_id)
    assert found(world.time_out(now=NOW + MINUTE - 1)) == []
    report = world.time_out(now=NOW + MINUTE)
    assert found(report) == [(first, "waiting", "failed", "its deadline passed 0 s ago")]
    assert rows.items(job_id) == ["failed", "waiting", "waiting"]
    assert rows.one("select error_type, error, failures, completed_at from job_items where id=?", first) == (
        "TimeOut", "no answer from outside by its deadline", 1, NOW + MINUTE,
    )  # fmt: skip
    assert rows.all("select name, attempt, external_id, message from job_events where item_id is not null") == [
        ("time_out", 1, f"out-{first}", "TimeOut: no answer from outside by its deadline")
    ]
    assert world.state(job_id)[3] == "TimeOut: no answer from outside by its deadline"
    assert [item_id for item_id, *_ in found(world.time_out(now=NOW + HOUR))] == [second]
    rows.assert_sound(job_id)


def test_the_job_of_the_last_that_waited_ends(world, rows):
    job_id = waiting(world, NOW + MINUTE)
    world.time_out()
    assert world.state(job_id)[0] == "failed"
    rows.assert_sound(job_id)


@pytest.mark.parametrize("column", ["paused_at", "cancel_requested_at", "fail_requested_at", "deleted_at"])
def test_what_waits_in_a_job_that_is_held_back_or_goes_does_not_time_out(world, rows, column):
    job_id = waiting(world, NOW + MINUTE, **{column: NOW})
    assert found(world.time_out()) == []
    assert rows.items(job_id) == ["waiting"]


def test_an_item_that_was_answered_in_between_is_left_alone(world, rows, monkeypatch):
    job_id = waiting(world, NOW, NOW)
    first, second = rows.ids(job_id)
    write = Pace.write

    def late(pace, store, work):
        rows.change("update job_items set deadline_at=null where id=?", first)
        return write(pace, store, work)

    monkeypatch.setattr(Pace, "write", late)
    assert [item_id for item_id, *_ in found(world.time_out())] == [second]
    assert rows.items(job_id) == ["waiting", "failed"]


# -- what is said and how many ----------------------------------------------------------------------------------------


def test_check_only_says_the_same_and_writes_nothing(world):
    world.job(["running", "queued"])
    world.job(["running"], retry_count=2)
    world.job(["running"], progress_at=NOW + MINUTE)
    world.job(["queued"], status="queued", timeout_at=None, started_at=None)
    waiting(world, NOW, NOW)
    before = world.everything()
    said = world.time_out(check_only=True, free_since=NOW)
    assert (world.everything(), world.interrupted) == (before, [])
    done = world.time_out(free_since=NOW)
    assert found(said) == found(done)
    assert said.counts == done.counts == {"failed": 2, "timed_out": 3, "interrupted": 2}


def test_many_are_seen_to_in_batches_each_its_own_transaction_and_each_once(world, rows, monkeypatch):
    monkeypatch.setattr(deadlines, "JOBS_AT_ONCE", 3)
    monkeypatch.setattr(reporting, "KEPT", 5)
    jobs = [world.job(["running"]) for _ in range(7)]
    idle = [world.job(["queued"]) for _ in range(7)]
    waiting(world, *[NOW] * 600)
    report = world.time_out()
    assert report.counts == {"failed": 600, "timed_out": 7, "interrupted": 7}
    assert (len(report.changes), report.total) == (5, 614)
    assert len({hung.item_id for hung in world.interrupted}) == 7
    assert {world.state(job_id)[1:3] for job_id in jobs} == {(1, LATE + TIMEOUT)}
    assert {world.state(job_id)[1:3] for job_id in idle} == {(0, LATE + TIMEOUT)}
    assert found(world.time_out()) == []
    assert rows.one("select count(*) from job_events where name='time_out' and item_id is not null") == 600


def test_it_stops_between_two_batches_when_it_is_told_to(world, monkeypatch):
    monkeypatch.setattr(deadlines, "JOBS_AT_ONCE", 1)
    for _ in range(3):
        world.job(["running"])
    told = iter([True, True, False])
    report = time_out(
        world.store, holder=Holder(MINE), limits=Limits(TIMEOUT), now=LATE, actor="test", go_on=lambda: next(told)
    )
    assert report.counts == {"timed_out": 1, "interrupted": 1}


@pytest.fixture
def plan(store):
    def plan(statement, params):
        rows = store.read(lambda connection: connection.execute(f"explain query plan {statement}", params).fetchall())
        return [row[3] for row in rows]

    return plan


def test_each_look_goes_by_a_small_index(plan, store):
    known = store.rows("name")
    looks = {
        "job_items_waiting": plan(deadlines._OVERDUE, (NOW, 0, 0, 10)),
        "jobs_timed": plan(deadlines._LATE, (NOW, 0, 0, 10)),
        "jobs_claimable": plan(deadlines._NEGLECTED.format(known=known), (1, "[]", 5, NOW, NOW, NOW, NOW, NOW)),
    }
    for index, steps in looks.items():
        assert index in " ".join(steps), steps
        # The first 500 of one index are looked through again.
        once = [step for step in steps if step != "SCAN jobs" or "CO-ROUTINE jobs" not in steps]
        assert not [step for step in once if "TEMP B-TREE" in step or step in {"SCAN jobs", "SCAN i"}], steps
    late = " ".join(looks["jobs_timed"])
    assert "INDEX job_items_running" in late, late
