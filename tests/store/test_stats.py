"""The figures over all jobs: from raw rows, within a window, of the newest so many."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.store import stats

DAY = 24 * 3_600_000
DONE = {"status": "completed"}


def of(found, task):
    return next(one for one in found.tasks if one.task == task)


def results(rows, *job_ids):
    """Store a result for each completed item of these jobs."""
    for job_id in job_ids:
        rows.change(
            "insert into results (item_id, attempt, task, key, value, created_at)"
            " select i.id, 1, j.task, i.key, '1', ? from job_items i join jobs j on j.id = i.job_id"
            " where j.id = ? and i.status = 'completed'",
            NOW,
            job_id,
        )


def test_of_nothing_there_is_nothing(store):
    assert stats.stats(store, since=0) == stats.Stats((), complete=True)


def test_what_is_active_is_counted_by_how_it_stands(store, rows):
    rows.job(["queued"] * 3)
    rows.job(["running", "waiting", "completed"], status="running")
    rows.job(["queued"], paused_at=NOW)
    rows.job(["queued"], sealed_at=None)
    rows.job(["queued"], deleted_at=NOW)
    active = of(stats.stats(store, since=NOW), "work").active
    assert active.jobs == {"queued": 1, "running": 1, "paused": 1, "submitting": 1}
    assert active.items == {"queued": 5, "running": 1, "waiting": 1}


def test_what_ended_within_the_window_is_recent_and_what_ended_before_is_not(store, rows):
    rows.job(["completed"] * 2, **DONE, completed_at=NOW)
    rows.job(["completed"] * 4, **DONE, completed_at=NOW - DAY)
    rows.job(["completed"] * 8, **DONE, completed_at=NOW - DAY - 1)
    rows.job(["failed", "skipped"], status="failed", completed_at=NOW)
    rows.job(["cancelled"], status="cancelled", completed_at=NOW)
    recent = of(stats.stats(store, since=NOW - DAY), "work").recent
    assert recent.jobs == {"completed": 2, "failed": 1, "cancelled": 1}
    assert recent.items == {"completed": 6, "failed": 1, "skipped": 1, "cancelled": 1}


def test_what_an_open_job_has_behind_it_counts_as_recent(store, rows):
    rows.job(["completed", "failed", "running"], status="running")
    assert of(stats.stats(store, since=NOW), "work").recent.items == {
        "completed": 1, "failed": 1, "skipped": 0, "cancelled": 0,
    }  # fmt: skip


def test_a_job_whose_values_were_pruned_counts_as_the_others(store, rows):
    rows.job(["completed"], **DONE, completed_at=NOW, values_pruned_at=NOW)
    assert of(stats.stats(store, since=NOW - DAY), "work").recent.jobs == {"completed": 1}


def test_durations_are_of_completed_items_of_each_task_apart(store, rows):
    quick, slow = rows.job(["completed"] * 100, task="quick", **DONE), rows.job(["completed", "failed"], task="slow")
    rows.change("update job_items set completed_at = started_at + id where job_id = ?", quick)
    rows.change("update job_items set completed_at = started_at + 5000 where job_id = ?", slow)
    results(rows, quick, slow)
    found = stats.stats(store, since=NOW)
    assert (of(found, "quick").p50_ms, of(found, "quick").p95_ms, of(found, "quick").samples) == (51, 96, 100)
    assert (of(found, "slow").p50_ms, of(found, "slow").samples) == (5_000, 1)


def test_a_task_that_nothing_new_is_of_still_has_its_durations(store, rows, monkeypatch):
    monkeypatch.setattr(stats, "DURATIONS", 10)
    rare, busy = rows.job(["completed"] * 3, task="rare", **DONE), rows.job(["completed"] * 20, task="busy", **DONE)
    results(rows, rare, busy)
    found = stats.stats(store, since=NOW + 1)
    assert (of(found, "busy").samples, of(found, "rare").samples) == (10, 3)


@pytest.mark.parametrize("key", [None, "k"])
def test_of_one_task_only_its_own_jobs_are_looked_at(store, rows, monkeypatch, key):
    """Also where the newest ones are all another's."""
    monkeypatch.setattr(stats, "OPEN_JOBS", 3)
    monkeypatch.setattr(stats, "ENDED_JOBS", 3)
    results(rows, rows.job(["completed"], task="rare", key=key, **DONE))
    rows.job(["queued"], task="rare", key=key and "open")
    for _ in range(5):
        rows.job(["queued"])
        results(rows, rows.job(["completed"], **DONE))
    (rare,) = stats.stats(store, since=NOW, task="rare").tasks
    assert (rare.active.jobs, rare.recent.jobs, rare.samples) == ({"queued": 1}, {"completed": 1}, 1)
    assert stats.stats(store, since=NOW, task="nobody").tasks == ()


@pytest.mark.parametrize(("name", "items", "columns"), [
    ("OPEN_JOBS", ["queued"], {}), ("ENDED_JOBS", ["failed"], {"status": "failed"}),
])  # fmt: skip
def test_where_more_are_than_are_looked_at_it_says_so(store, rows, monkeypatch, name, items, columns):
    monkeypatch.setattr(stats, name, 3)
    for _ in range(2):
        rows.job(items, **columns)
    assert stats.stats(store, since=NOW).complete
    rows.job(items, **columns)
    assert not stats.stats(store, since=NOW).complete


def test_an_item_that_ended_before_it_began_took_no_time(store, rows):
    """The clock was set back in between."""
    job_id = rows.job(["completed"], **DONE)
    rows.change("update job_items set completed_at = started_at - 5000")
    results(rows, job_id)
    assert of(stats.stats(store, since=NOW), "work").p50_ms == 0


@pytest.mark.parametrize("task", [None, "work"])
def test_the_cost_is_bounded_whatever_the_size(store, rows, monkeypatch, task):
    """Counted in steps of SQLite's machine: of three times as many rows it takes no more."""
    for name in ("OPEN_JOBS", "ENDED_JOBS", "DURATIONS", "OF_TASK"):
        monkeypatch.setattr(stats, name, 20)

    def more():
        for _ in range(50):
            results(rows, rows.job(["completed"] * 3, **DONE, key=None))
            rows.job(["queued"])

    def steps():
        taken = 0

        def step():
            nonlocal taken
            taken += 1

        store.connection().set_progress_handler(step, 50)
        try:
            stats.stats(store, since=NOW, task=task)
        finally:
            store.connection().set_progress_handler(None, 0)
        return taken

    more()
    once = steps()
    more()
    more()
    assert steps() <= once * 1.1 + 2
