"""Whether jobs are looked after: from raw rows, at a given time, as whoever looks finds it."""

from __future__ import annotations

import functools
import json
import types

import pytest
from kit.rows import NOW
from kit.standing import HOUR, MINUTE, RUN

from jobd import process
from jobd.maintenance import health
from jobd.process import myself
from jobd.store import reads, vitals
from jobd.store.views import NOBODY

BEATS = {"recover": 60.0, "prune": 3600.0}
DEAD = 2**22 + 1


@pytest.fixture
def daemon(store, rows):
    """Add the row of a daemon that started an hour ago, and return who runs items by it."""

    def add(*, alive=True, beat=NOW, pid=None, state=None, stopped_at=None, tasks=("work",)):
        me = myself()
        rows.change(
            "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, stopped_at, state,"
            " tasks, version) values (?, ?, ?, ?, ?, ?, ?, ?, ?, '0')",
            me.host, me.boot, pid or me.pid, me.started_at, NOW - HOUR, beat, stopped_at,
            json.dumps(state or {}), json.dumps(tasks),
        )  # fmt: skip
        return reads.daemon(store).runner(alive=alive)

    return add


@pytest.fixture
def look(store, monkeypatch):
    """Examine the store ``after`` so many ms; there is room on the disk unless a test says otherwise."""
    real = vitals.files
    monkeypatch.setattr(vitals, "files", lambda store: real(store)._replace(free=10**10))

    def look(runner=NOBODY, *, after=0, heartbeat=5.0, beats=types.MappingProxyType({})):
        return health.examine(
            store, runner=runner, heartbeat=heartbeat, beats=beats, stall_after=3600.0, now=NOW + after
        )

    return look


@pytest.fixture
def ran(rows):
    """Say of passes when they were asked for, began and ended."""

    def ran(name, *, started_at=NOW, finished_at=NOW, requested_at=None, report=None):
        rows.change(
            "insert into passes (name, requested_at, started_at, finished_at, report) values (?, ?, ?, ?, ?)",
            name, requested_at, started_at, finished_at, json.dumps(report or {"counts": {}}),
        )  # fmt: skip

    return ran


def found(health, name):
    """Return what is said under a name, as (level, text)."""
    return [(check.level, check.text) for check in health.checks if check.name == name]


def level(health, name):
    (one,) = found(health, name)
    return one[0]


# -- what waits -------------------------------------------------------------------------------------------------------


def test_what_waits_without_a_deadline_is_a_warning_that_names_the_oldest(look, rows, daemon):
    run = {**RUN, "started_at": NOW}
    rows.job(["waiting"], **run)
    rows.change("update job_items set deadline_at = ?", NOW + HOUR)
    assert found(look(daemon()), "waiting") == []
    second = rows.job(["completed", "waiting", "waiting"], **run)
    rows.job(["waiting"], **run)
    seen = look(daemon())
    assert seen.healthy
    text = f"3 items waiting for the outside without a deadline, the oldest in job {second}"
    assert found(seen, "waiting") == [("warning", text)]
    assert [one.hint for one in seen.checks if one.name == "waiting"] == [f"jobd items {second} --status waiting"]


def test_of_very_many_that_wait_so_it_says_at_least(look, rows, daemon, monkeypatch):
    monkeypatch.setattr(vitals, "_ENDLESS", vitals._ENDLESS.replace(str(vitals.MOST), "2"))
    monkeypatch.setattr(vitals, "MOST", 2)
    rows.job(["waiting"] * 3, **RUN)
    (one,) = found(look(daemon()), "waiting")
    assert one[1].startswith("at least 2 items waiting")


@pytest.mark.parametrize("text", [vitals._ENDLESS, vitals._ENDLESS_JOB])
def test_looking_for_them_reads_the_index_of_deadlines_and_sorts_nothing(rows, text):
    plan = " | ".join(row[3] for row in rows.all(f"explain query plan {text}"))
    assert "job_items_waiting" in plan
    assert "TEMP B-TREE" not in plan


# -- who runs items ---------------------------------------------------------------------------------------------------


def test_a_daemon_that_beats_is_well(look, daemon, ran):
    ran("recover")
    seen = look(daemon(), after=15_000, beats={"recover": 60.0})
    assert seen.healthy
    assert seen.summary == ""
    assert {check.level for check in seen.checks} == {"ok"}
    pid = myself().pid
    assert found(seen, "daemon") == [("ok", f"pid {pid}, last beat 15 s ago (limit 15 s), up 1 h")]
    assert found(seen, "lock") == [("ok", f"held by pid {pid} on {process.host()}")]


def test_after_three_beats_of_silence_a_daemon_that_holds_the_lock_is_not_well(look, daemon):
    runner = daemon()
    assert look(runner, after=15_000).healthy
    seen = look(runner, after=15_001)
    assert not seen.healthy
    text = f"last beat 15 s ago (limit 15 s), pid {runner.pid} holds the lock and does not move"
    assert found(seen, "daemon") == [("broken", text)]


def test_the_limit_is_three_of_the_daemons_own_beats(look, daemon):
    assert look(daemon(), after=59_000, heartbeat=20.0).healthy


def test_a_lock_that_outlives_its_daemon_says_so(look, daemon):
    (one,) = found(look(daemon(pid=DEAD), after=MINUTE), "daemon")
    assert one[1].endswith(f"pid {DEAD} is gone, and its lock is held by what it left behind")


def test_a_daemon_that_only_starts_is_given_its_time(look, daemon):
    starting = NOBODY._replace(alive=True, pid=77, host="here", started_at=NOW)
    assert level(look(starting, after=15_000), "daemon") == "ok"
    assert level(look(starting, after=15_001), "daemon") == "broken"


def test_a_daemon_that_died_is_told_though_nothing_is_left_to_do(look, daemon):
    seen = look(daemon(alive=False, pid=DEAD), after=4 * MINUTE + 12_000)
    assert not seen.healthy
    assert found(seen, "daemon") == [("broken", f"last beat 4 m 12 s ago (limit 15 s), pid {DEAD} is gone")]


def test_where_no_job_needs_a_daemon_none_is_needed(look, daemon, rows):
    assert look().healthy
    rows.job(["queued"], paused_at=NOW)
    rows.job(["completed"], status="completed")
    rows.job(["queued"], sealed_at=None)
    seen = look(daemon(alive=False, stopped_at=NOW), after=MINUTE)
    assert found(seen, "daemon") == [("ok", "none runs; the last left 1 m ago; no job needs one")]
    assert seen.healthy


def test_jobs_that_wait_for_a_daemon_are_told(look, daemon, rows):
    rows.job(["queued"])
    rows.job(["queued"])
    seen = look()
    assert found(seen, "daemon") == [("broken", "none has run yet; 2 jobs to run")]
    assert found(seen, "jobs") == [("ok", "2 open")]
    assert found(look(daemon(alive=False, stopped_at=NOW), after=HOUR), "daemon") == [
        ("broken", "none runs; the last left 1 h ago; 2 jobs to run")
    ]


@pytest.mark.parametrize(("state", "name", "expected"), [
    ({"degraded": "disk full"}, "degraded", "broken"),
    ({"abandoned_threads": 2}, "threads", "warning"),
    ({"wal_pinned": True}, "wal", "warning"),
])  # fmt: skip
def test_what_a_live_daemon_says_of_itself_is_told_and_of_a_dead_one_it_is_past(look, daemon, state, name, expected):
    runner = daemon(state=state)
    seen = look(runner)
    assert level(seen, name) == expected
    assert seen.healthy == (expected == "warning")
    assert found(look(runner._replace(alive=False)), name) == []


# -- what is run ------------------------------------------------------------------------------------------------------


def test_items_of_the_one_who_runs_are_well(look, daemon, rows):
    runner = daemon()
    rows.job(["running"] * 3, **RUN, started_at=NOW, progress_at=NOW)
    seen = look(runner)
    assert found(seen, "items") == [("ok", "3 running")]
    assert seen.healthy


@pytest.mark.parametrize("whose", [None, 99])
def test_items_that_nobody_runs_are_told_with_what_settles_them(look, daemon, rows, whose):
    runner = daemon()
    rows.job(["running"] * 3, **RUN, started_at=NOW, progress_at=NOW)
    rows.change("update job_items set daemon_id = ? where id <= 2", whose)
    seen = look(runner)
    assert found(seen, "items") == [("broken", "2 running items that nobody runs")]
    assert next(check.hint for check in seen.checks if check.name == "items") == "jobd recover"


def test_all_that_runs_is_run_by_nobody_once_its_daemon_is_gone(look, daemon, rows):
    runner = daemon(alive=False, pid=DEAD)
    rows.job(["running"] * 3, **RUN, started_at=NOW, progress_at=NOW)
    seen = look(runner)
    assert found(seen, "items") == [("broken", "3 running items that nobody runs")]
    assert found(seen, "jobs") == [("ok", "1 open")]


@pytest.mark.parametrize(("columns", "expected", "text", "hint"), [
    ({"progress_at": NOW - HOUR}, "warning", "job 1 no progress for 1 h", "jobd items 1 --status running"),
    ({"task": "other"}, "warning", "does not know the task other", "start the program that registers it"),
    (
        {"progress_at": NOW - 30 * MINUTE, "job_timeout_ms": 10 * MINUTE},
        "broken",
        "job 1 its timeout passed 20 m ago",
        "jobd time-out",
    ),
    ({"items_failed": 1}, "broken", "job 1 running, but nothing of it is open", "jobd recover"),
])  # fmt: skip
def test_a_job_that_does_not_go_on_is_told_with_what_mends_it(look, daemon, rows, columns, expected, text, hint):
    times = {"started_at": NOW - HOUR, "status_updated_at": NOW - HOUR, "progress_at": NOW}
    items = ["completed"] if "items_failed" in columns else ["running"] if "job_timeout_ms" in columns else ["queued"]
    rows.job(items, **{**RUN, **times, **columns, **({"items_failed": 0} if "items_failed" in columns else {})})
    seen = look(daemon())
    (check,) = [check for check in seen.checks if check.name == "jobs"]
    assert (check.level, check.hint) == (expected, hint)
    assert text in check.text
    assert seen.healthy == (expected == "warning")


def test_of_many_such_jobs_the_first_are_named_and_the_rest_counted(look, daemon, rows):
    for _ in range(8):
        rows.job(["queued"], task="other")
    lines = found(look(daemon()), "jobs")
    assert [text.split(" daemon")[0] for _, text in lines] == [
        *(f"job {number}" for number in range(1, 6)),
        "and 3 more",
    ]


# -- the passes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def beats(look):
    """Examine the store where two passes have a beat: of a minute, and of an hour."""
    return functools.partial(look, beats=BEATS)


def test_a_pass_is_overdue_after_three_of_its_beats(beats, daemon, ran):
    ran("recover", started_at=NOW, finished_at=NOW)
    runner = daemon(beat=NOW + HOUR)
    assert found(beats(runner, after=3 * MINUTE), "passes") == [("ok", "recover 3 m ago, prune not yet")]
    seen = beats(runner, after=3 * MINUTE + 1)
    assert found(seen, "passes") == [
        ("broken", "recover is overdue: it last ran before 3 m (its beat is 1 m)"),
    ]
    assert not seen.healthy


def test_a_pass_that_never_ran_is_counted_from_the_daemons_start(beats, daemon):
    """It started an hour ago."""
    seen = beats(daemon())
    assert found(seen, "passes") == [("broken", "recover is overdue: it last ran before 1 h (its beat is 1 m)")]


def test_a_pass_that_is_under_way_for_too_long_says_so(beats, daemon, ran):
    ran("recover", started_at=NOW, finished_at=None)
    ran("prune")
    assert found(beats(daemon(beat=NOW + HOUR), after=4 * MINUTE), "passes") == [
        ("broken", "recover has been under way for 4 m (its beat is 1 m)")
    ]


@pytest.mark.parametrize(("after", "expected"), [(30_000, "ok"), (30_001, "broken")])
def test_a_pass_that_was_asked_for_and_has_not_begun_is_told(beats, daemon, ran, after, expected):
    ran("recover", requested_at=NOW, started_at=None, finished_at=None)
    assert level(beats(daemon(beat=NOW + after), after=after), "passes") == expected


def test_a_pass_that_failed_says_why(beats, daemon, ran):
    ran("recover")
    state = {"passes": {"recover": {"runs": 3, "counts": {}, "error": "ValueError: no"}}}
    assert found(beats(daemon(state=state)), "passes") == [("broken", "recover failed: ValueError: no")]


def test_without_a_live_daemon_no_pass_is_overdue(beats, daemon, ran):
    ran("recover")
    seen = beats(daemon(alive=False, stopped_at=NOW), after=HOUR)
    assert found(seen, "passes") == [("ok", "recover 1 h ago, prune not yet")]
    assert found(beats(), "passes") == [("ok", "recover 0 s ago, prune not yet")]


def test_what_each_pass_has_done_is_in_the_record(beats, daemon, ran):
    ran("recover", report={"counts": {"queued": 2}})
    state = {"passes": {"recover": {"runs": 7, "counts": {"queued": 5}, "error": None}}}
    recover = beats(daemon(state=state)).json()["passes"][0]
    assert (recover["runs"], recover["counts"], recover["last_counts"]) == (7, {"queued": 5}, {"queued": 2})
    assert recover["every_seconds"] == 60.0


@pytest.mark.parametrize("report", ["{", "[]", '{"counts": 5}', None])
def test_a_report_that_cannot_be_read_is_no_reason_to_fail(beats, daemon, rows, report):
    rows.change(
        "insert into passes (name, started_at, finished_at, report) values ('recover', ?, ?, ?)", NOW, NOW, report
    )
    assert beats(daemon()).json()["passes"][0]["last_counts"] == {}


# -- where it lies ----------------------------------------------------------------------------------------------------


def test_a_small_file_is_checked_and_a_large_one_is_left_to_doctor(look, monkeypatch):
    assert "integrity ok" in found(look(), "database")[0][1]
    monkeypatch.setattr(vitals, "CHECKED_BYTES", 1)
    assert "integrity: jobd doctor" in found(look(), "database")[0][1]


def test_a_damaged_file_is_not_healthy(look, monkeypatch):
    monkeypatch.setattr(vitals, "damage", lambda store: "row 7 missing")
    seen = look()
    assert found(seen, "database") == [("broken", "damaged: row 7 missing")]
    assert not seen.healthy


@pytest.mark.parametrize(("free", "expected"), [(10**9, "ok"), (10**8, "warning"), (10**7, "broken")])
def test_a_disk_that_runs_full_is_told_before_it_is(look, monkeypatch, free, expected):
    real = vitals.files
    monkeypatch.setattr(vitals, "files", lambda store: real(store)._replace(free=free))
    assert level(look(), "disk") == expected


def test_a_log_that_grows_is_a_warning(look, monkeypatch):
    real = vitals.files
    monkeypatch.setattr(vitals, "files", lambda store: real(store)._replace(wal=health.WAL_LIMIT + 1))
    seen = look()
    assert level(seen, "wal") == "warning"
    assert seen.healthy


def test_outcomes_that_wait_beside_the_database_are_told(look, path):
    path.with_name("jobs.db.rescue").write_text("")
    assert level(look(), "rescue") == "warning"


def test_a_clock_that_was_set_back_makes_nobody_late(look, daemon, rows):
    rows.job(["completed"], status="completed", created_at=NOW)
    seen = look(daemon(beat=NOW), after=-2 * HOUR)
    assert level(seen, "daemon") == "ok"
    assert level(seen, "clock") == "warning"
    assert seen.healthy


def test_looking_changes_nothing_and_costs_the_same_whatever_the_size(look, daemon, rows, store, monkeypatch):
    runner = daemon()
    for _ in range(30):
        rows.job(["completed"] * 10, status="completed")

    def steps():
        taken = 0

        def step():
            nonlocal taken
            taken += 1

        before = store.version()
        store.connection().set_progress_handler(step, 50)
        try:
            look(runner)
        finally:
            store.connection().set_progress_handler(None, 0)
        assert store.version() == before
        return taken

    monkeypatch.setattr(vitals, "CHECKED_BYTES", 0)
    once = steps()
    for _ in range(300):
        rows.job(["completed"] * 10, status="completed")
    assert steps() <= once + 2
