"""Pages of jobs, the finding of one, its progress: the right rows, and by way of an index."""

from __future__ import annotations

import json

import pytest

from jobd.errors import NotFound, UsageError
from jobd.process import Process
from jobd.store import reads
from jobd.store.daemons import beat, register
from jobd.store.views import NOBODY, Runner

NOW = 1_795_305_600_000
HOUR = 3_600_000
ALIVE = Runner(alive=True, id=1, tasks=("work", "other"), pid=101)


@pytest.fixture
def page(store):
    def read(runner=ALIVE, **filters):
        return [job.id for job in reads.jobs(store, now=NOW + HOUR, runner=runner, **filters)]

    return read


@pytest.fixture
def plans(store):
    """Return how SQLite would find the rows of each statement that a call makes on ``jobs``."""

    def look(call):
        connection, seen = store.connection(), []
        connection.set_trace_callback(seen.append)
        call()
        connection.set_trace_callback(None)
        texts = [text for text in seen if text.lower().startswith(("select", "with")) and "from jobs" in text]
        assert texts
        return [[row[3] for row in connection.execute(f"explain query plan {text}").fetchall()] for text in texts]

    return look


# -- one job -----------------------------------------------------------------------------------------------------------


def test_a_job_that_is_not_there_is_not_found_and_the_hint_says_where_to_look(store):
    with pytest.raises(NotFound, match="there is no job 5") as error:
        reads.job(store, 5, now=NOW, runner=NOBODY)
    assert error.value.hint == "jobd list shows the jobs"


def test_a_job_is_read_as_it_was_submitted(store, rows):
    job_id = rows.job(["queued"], key="k", params='{"p": 1}', target="m:t", priority=3, not_before=NOW)
    job = reads.job(store, job_id, now=NOW, runner=ALIVE)
    assert (job.id, job.key, job.params, job.target, job.priority, job.not_before) == (
        job_id, "k", {"p": 1}, "m:t", 3, NOW,
    )  # fmt: skip


def test_damaged_json_in_a_row_does_not_hide_the_row(store, rows):
    job_id = rows.job(["queued"], params="{", policy="[", submitter="]", sealed_at=None)
    assert reads.job(store, job_id, now=NOW, runner=ALIVE).params == "{"
    assert [job.id for job in reads.jobs(store, now=NOW, runner=ALIVE, stalled=True)] == []


# -- pages ------------------------------------------------------------------------------------------------------------


def test_a_page_is_the_newest_jobs_and_the_next_begins_before_its_last(rows, page):
    ids = [rows.job() for _ in range(7)]
    first = page(limit=3)
    second = page(limit=3, before=first[-1])
    assert first + second + page(limit=3, before=second[-1]) == ids[::-1]


@pytest.mark.parametrize("status", ["queued", "running", "completed", "failed", "cancelled"])
def test_a_status_selects_its_jobs(rows, page, status):
    ids = {name: rows.job(status=name) for name in ("queued", "running", "completed", "failed", "cancelled")}
    assert page(status=status) == [ids[status]]


def test_an_unknown_status_is_a_usage_error(page):
    with pytest.raises(UsageError, match="unknown status of a job: 'done'"):
        page(status="done")


def test_a_task_selects_its_jobs_also_where_they_are_rare_and_keyed(rows, page):
    mine = [rows.job(task="rare", key=key) for key in (None, "b", None, "a")]
    rows.change(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2500)"
        " insert into jobs (task, key, status_updated_at, created_at, sealed_at) select 'common', i, 0, 0, 0 from n"
    )
    assert page(task="rare") == mine[::-1]
    assert page(task="rare", limit=2) == mine[:1:-1]
    assert page(task="rare", limit=2, before=mine[2]) == mine[1::-1]
    assert page(task="none") == []
    assert len(page(task="common", limit=100)) == 100


def test_a_key_selects_the_jobs_that_have_it_of_any_task_or_of_one(rows, page):
    one, two = rows.job(task="work", key="k"), rows.job(task="other", key="k")
    rows.job(task="work", key="l")
    rows.job(task="third")
    assert page(key="k") == [two, one]
    assert page(key="k", task="work") == [one]
    assert page(key="no") == []


def test_since_selects_by_the_time_of_submission(rows, page):
    rows.job(created_at=NOW - 1)
    ids = [rows.job(created_at=NOW), rows.job(created_at=NOW + 5)]
    assert page(since=NOW) == ids[::-1]


def test_an_external_id_finds_its_job_now_and_in_the_history(rows, page):
    now, before = rows.job(["waiting"], status="running"), rows.job(["completed"], status="completed")
    rows.job(["waiting"], status="running")
    rows.change("update job_items set external_id='snap-1' where job_id=?", now)
    rows.change(
        "insert into job_events (job_id, item_id, name, from_status, to_status, at, actor, external_id)"
        " values (?, ?, 'defer', 'running', 'waiting', 0, 'test', 'snap-0')",
        before,
        rows.ids(before)[0],
    )
    assert (page(external="snap-1"), page(external="snap-0"), page(external="snap")) == ([now], [before], [])


def test_stalled_selects_running_jobs_without_progress_each_by_its_own_limit(rows, page):
    def run(ago, **columns):
        at = NOW + HOUR - ago
        return rows.job(["running"], status="running", started_at=at, progress_at=at, status_updated_at=at, **columns)

    stalled = run(HOUR)
    run(HOUR - 1)
    run(2 * HOUR, paused_at=NOW)
    impatient = run(31_000, policy=json.dumps({"stall_after": 30}))
    run(HOUR, policy=json.dumps({"stall_after": 7_200}))
    assert page(stalled=True) == [impatient, stalled]
    assert page(stalled=True, stall_after=7_000) == [impatient]


def test_orphaned_selects_the_jobs_that_nobody_runs(rows, page):
    lost, kept = rows.job(["running"], status="running"), rows.job(["running"], status="running")
    between = rows.job(["queued"], status="running")
    nameless = rows.job(["running"], status="running")
    rows.job(["queued"])
    rows.job(["completed"], status="completed")
    rows.change("update job_items set daemon_id = 1")
    rows.change("update job_items set daemon_id = 9 where job_id=?", lost)
    rows.change("update job_items set daemon_id = null where job_id=?", nameless)
    assert page(orphaned=True) == [nameless, lost]
    assert page(orphaned=True, runner=ALIVE._replace(alive=False)) == [nameless, between, kept, lost]


def test_what_the_filter_calls_orphaned_is_what_the_row_calls_orphaned(store, rows):
    rows.job(["running"], status="running")
    rows.job(["queued"], status="running")
    rows.job(["queued"], status="running", paused_at=NOW)
    rows.job(["running"], status="running", paused_at=NOW)
    rows.job(["queued"])
    for runner in (ALIVE, ALIVE._replace(id=2), ALIVE._replace(alive=False), NOBODY):
        by_row = [job.id for job in reads.jobs(store, now=NOW, runner=runner) if job.health == "orphaned"]
        assert [job.id for job in reads.jobs(store, now=NOW, runner=runner, orphaned=True)] == by_row


def test_filters_narrow_each_other(rows, page):
    mine = rows.job(["failed"], task="work", status="failed", key="k", created_at=NOW)
    rows.job(["failed"], task="other", status="failed", key="k", created_at=NOW)
    rows.job(["failed"], task="work", status="failed", created_at=NOW)
    rows.job(["completed"], task="work", status="completed", created_at=NOW)
    assert page(status="failed", task="work", key="k", since=NOW, before=99) == [mine]
    assert page(status="completed", key="k") == []


@pytest.mark.parametrize(("filters", "index"), [
    ({"status": "queued"}, "jobs_open"),
    ({"status": "running", "task": "work"}, "jobs_open"),
    ({"stalled": True}, "jobs_open"),
    ({"orphaned": True}, "jobs_open"),
    ({"status": "failed"}, "jobs_ended"),
    ({"status": "cancelled"}, "jobs_ended"),
    ({"key": "k", "task": "work"}, "sqlite_autoindex_jobs_1"),
])  # fmt: skip
def test_a_filtered_page_goes_through_its_index(store, plans, filters, index):
    (plan, *_) = plans(lambda: reads.jobs(store, now=NOW, runner=ALIVE, **filters))
    assert any(index in step for step in plan), plan


@pytest.mark.parametrize("filters", [{}, {"before": 50}, {"status": "completed"}, {"key": "k"}, {"external": "x"}])
def test_no_page_is_sorted_out_of_all_jobs(store, plans, filters):
    (plan, *_) = plans(lambda: reads.jobs(store, now=NOW, runner=ALIVE, **filters))
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in plan), plan


def test_a_page_of_a_rare_task_never_passes_over_all_jobs(store, plans):
    near, rare, *_ = plans(lambda: reads.jobs(store, now=NOW, runner=ALIVE, task="rare"))
    assert any("SEARCH jobs USING COVERING INDEX sqlite_autoindex_jobs_1 (task=? AND key=?" in step for step in rare)
    assert not any(step.startswith("SCAN jobs") for step in rare), rare
    assert near


def test_a_page_is_a_fixed_number_of_statements_whatever_its_length(store, rows):
    def statements(limit):
        seen = []
        store.connection().set_trace_callback(seen.append)
        reads.jobs(store, now=NOW, runner=ALIVE, limit=limit)
        store.connection().set_trace_callback(None)
        return len(seen)

    for _ in range(20):
        rows.job(["running", "queued"], status="running", started_at=NOW)
    assert statements(2) == statements(20)


# -- finding --------------------------------------------------------------------------------------------------------


def test_a_job_is_found_as_it_is_typed(store, rows):
    failed, keyed, last = rows.job(status="failed"), rows.job(key="k"), rows.job()
    names = {str(failed): failed, "=k": keyed, "@last": last, "@failed": failed}
    assert {name: reads.find_job(store, name) for name in names} == names


@pytest.mark.parametrize(("name", "what"), [
    ("9", "there is no job 9"), ("99999999999999999999", "there is no job 9"), ("=no", "no job with the key 'no'"),
    ("@last", "there are no jobs"), ("@failed", "no job has failed"),
])  # fmt: skip
def test_a_name_that_leads_nowhere_is_not_found(store, name, what):
    with pytest.raises(NotFound, match=what) as error:
        reads.find_job(store, name)
    assert error.value.hint


@pytest.mark.parametrize("name", ["", "=", "x", "-1", "٣", "@first", "7:a"])
def test_what_names_no_job_is_a_usage_error(store, rows, name):
    rows.job()
    with pytest.raises(UsageError, match="not a job"):
        reads.find_job(store, name)


def test_a_key_that_two_tasks_have_is_not_guessed(store, rows):
    one, two = rows.job(task="a", key="k"), rows.job(task="b", key="k")
    with pytest.raises(UsageError, match=f"jobs {one}, {two} have the key 'k'"):
        reads.find_job(store, "=k")


# -- progress and daemons ---------------------------------------------------------------------------------------------


def test_progress_is_one_row_whatever_the_size(store, rows, plans):
    job_id = rows.job(["completed", "failed", "running", "waiting", "queued"], status="running", progress_at=NOW)
    found = reads.progress(store, job_id)
    assert found.counts == (5, 1, 1, 1, 1, 1, 0, 0)
    assert (found.id, found.status, found.progress_at, found.completed_at) == (job_id, "running", NOW, None)
    assert plans(lambda: reads.progress(store, job_id)) == [["SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"]]
    with pytest.raises(NotFound):
        reads.progress(store, job_id + 1)


def test_in_progress_is_what_has_not_ended_newest_first(store, rows, plans):
    ids = [rows.job(status=status) for status in ("queued", "completed", "running", "failed", "queued")]
    assert [job.id for job in reads.in_progress(store)] == [ids[4], ids[2], ids[0]]
    assert [job.id for job in reads.in_progress(store, limit=1)] == [ids[4]]
    (plan,) = plans(lambda: reads.in_progress(store))
    assert plan == ["SCAN jobs USING INDEX jobs_open"]


def test_the_newest_daemon_row_is_read_whole(store):
    assert reads.daemon(store) is None
    for pid in (7, 8):
        daemon_id = register(store, Process("here", "boot", pid, 5), tasks=["b", "a"], version="1", now=NOW)
    beat(store, daemon_id, state={"degraded": "disk full"}, now=NOW + 1, patience=0)
    found = reads.daemon(store)
    assert (found.id, found.pid, found.process_started_at, found.version) == (daemon_id, 8, 5, "1")
    assert (found.heartbeat_at, found.state, sorted(found.tasks)) == (NOW + 1, {"degraded": "disk full"}, ["a", "b"])


def test_a_daemon_row_from_a_foreign_hand_is_still_read(store, rows):
    rows.change(
        "insert into daemons (host, boot, pid, process_started_at, started_at, heartbeat_at, version, state, tasks)"
        " values ('h', 'b', 1, 0, 0, 0, '0', '[', '{}')"
    )
    found = reads.daemon(store)
    assert (found.state, found.tasks) == ({}, ())
