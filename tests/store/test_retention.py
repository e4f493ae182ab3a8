"""What is old: found by a small index, and asked again in the statement that acts."""

from __future__ import annotations

import pytest

from jobd.store import retention
from jobd.store.invariants import check
from jobd.store.removal import request_removal
from jobd.store.retention import Aged, Span, aged, newest, prune_values, request_removals
from jobd.store.retry import retry

NOW = 1_795_305_600_000
DAY = 86_400_000


def ended(rows, days, status="completed", items=("completed",), **columns):
    """Add a job that ended so many days ago, and return its id."""
    return rows.job(list(items), status=status, completed_at=NOW - days * DAY, **columns)


def with_results(rows, job_id, value='{"x": 1}'):
    """Give each item of the job a result with data, and return how many that were."""
    return rows.change(
        "insert into results (item_id, attempt, task, key, value, created_at)"
        " select id, 1, 'work', key, ?, ? from job_items where job_id = ?",
        value, NOW, job_id,
    ) and rows.change(
        "insert into result_data (item_id, attempt, data) select id, 1, x'00' from job_items where job_id = ?", job_id
    )  # fmt: skip


def ids(found):
    return [job.id for job in found]


# -- finding ----------------------------------------------------------------------------------------------------------


def test_the_oldest_end_comes_first_and_what_ended_at_the_border_is_not_old(store, rows):
    border = ended(rows, 30)
    old, older = ended(rows, 31), ended(rows, 32)
    ended(rows, 40, status="failed", items=["failed"])
    span = Span("completed", True, NOW - 30 * DAY)
    assert ids(aged(store, span)) == [older, old]
    assert aged(store, span._replace(before=NOW - 30 * DAY + 1))[-1] == Aged(
        border, "work", "completed", NOW - 30 * DAY, 1
    )


def test_a_page_goes_on_after_its_last_job_where_many_ended_in_the_same_moment(store, rows, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    job_ids = [ended(rows, 31) for _ in range(5)]
    span, found, last = Span("completed", True, NOW), [], None
    while page := aged(store, span, last):
        found += page
        last = page[-1]
    assert ids(found) == job_ids


def test_a_span_has_two_ends(store, rows):
    ended(rows, 40)
    between = ended(rows, 20)
    assert ids(aged(store, Span("completed", True, NOW - 10 * DAY, NOW - 30 * DAY))) == [between]
    assert ids(aged(store, Span("completed", True, NOW - 10 * DAY, NOW - 20 * DAY))) == [between]


def test_jobs_whose_values_are_gone_are_found_apart(store, rows):
    pruned = ended(rows, 31, values_pruned_at=NOW)
    kept = ended(rows, 31)
    assert ids(aged(store, Span("completed", False, NOW))) == [pruned]
    assert ids(aged(store, Span("completed", True, NOW))) == [kept]


@pytest.mark.parametrize("columns", [
    {"status": "running", "items": ["running"]},
    {"status": "queued", "items": ["queued"]},
    {"deleted_at": NOW},
    {"sealed_at": None},
])  # fmt: skip
def test_what_is_open_submitted_or_deleted_is_never_found(store, rows, columns):
    status = columns.get("status", "completed")
    columns = {"items": ["completed"], "status": "completed", "completed_at": NOW - 99 * DAY, **columns}
    if status != "completed":
        columns["completed_at"] = None
    rows.job(columns.pop("items"), **columns)
    assert all(not aged(store, Span(word, True, NOW)) for word in ("completed", "failed", "cancelled", status))


def test_a_job_that_another_waits_for_is_never_found(store, rows):
    parent = ended(rows, 99)
    child = rows.job(["queued"])
    rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", child, parent)
    span = Span("completed", True, NOW)
    assert aged(store, span) == []
    rows.change("update jobs set status='cancelled', completed_at=? where id=?", NOW, child)
    assert ids(aged(store, span)) == [parent]


def test_the_old_are_found_through_their_index_in_its_order(store, rows):
    params = ("completed", 1, NOW, 0, 0, 0, 10)
    plan = [row[3] for row in rows.all(f"explain query plan {retention._AGED}", *params)]
    assert plan[0].startswith("SEARCH jobs USING INDEX jobs_aged")
    assert "completed_at>? AND completed_at<?" in plan[0]
    assert not any("TEMP B-TREE" in line for line in plan)


# -- the newest of a task ---------------------------------------------------------------------------------------------


def test_the_newest_ended_jobs_of_a_task_are_those_with_the_highest_ids_whatever_their_end(store, rows):
    job_ids = [ended(rows, days) for days in (1, 2, 3)]
    rows.job(["queued"])
    ended(rows, 1, task="other")
    assert newest(store, "work", 1) == job_ids[2]
    assert newest(store, "work", 2) == job_ids[1]
    assert newest(store, "work", 3) == job_ids[0]
    assert newest(store, "work", 4) == 0, "all of them"
    assert newest(store, "unknown", 1) == 0


def test_a_job_that_is_being_deleted_is_not_one_of_the_newest(store, rows):
    first, second = ended(rows, 2), ended(rows, 1)
    store.write(lambda connection: request_removal(store, connection, second, NOW))
    assert newest(store, "work", 1) == first


def test_a_task_that_is_rare_among_the_newest_is_found_by_its_own_jobs(store, rows, monkeypatch):
    first, second = ended(rows, 9, task="rare"), ended(rows, 8, task="rare", key="k")
    for text in ("_NEAR",):
        monkeypatch.setattr(retention, text, getattr(retention, text).replace("limit 2000", "limit 2"))
    for _ in range(3):
        ended(rows, 1)
    assert (newest(store, "rare", 1), newest(store, "rare", 2)) == (second, first)
    plan = [row[3] for row in rows.all(f"explain query plan {retention._FAR}", "rare", 0)]
    assert plan[0].startswith("SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (task=?")


# -- whole jobs -------------------------------------------------------------------------------------------------------


def found_and_then(store, happening, *, before=NOW):
    """Find what is old, let something happen, and ask for the removal of what was found."""
    found = aged(store, Span("completed", True, before))
    happening()
    return ids(request_removals(store, found, before=before, now=NOW))


def test_a_request_marks_the_jobs_and_frees_their_keys(store, rows):
    job_ids = [ended(rows, 31, key=str(number)) for number in range(3)]
    assert found_and_then(store, lambda: None) == job_ids
    assert {tuple(row) for row in rows.all("select key, deleted_at from jobs")} == {(None, NOW)}
    assert aged(store, Span("completed", True, NOW)) == []
    assert request_removals(store, [], before=NOW, now=NOW) == []


def test_a_job_that_was_reopened_in_between_stays(store, rows):
    job_id = ended(rows, 31, items=["completed", "failed"], tolerance="1", key="k")
    assert found_and_then(store, lambda: retry(store, job_id, now=NOW, actor="cli")) == []
    assert rows.one("select status, key, deleted_at from jobs") == ("queued", "k", None)


def test_a_job_that_ran_again_in_between_and_ended_anew_stays(store, rows):
    job_id = ended(rows, 31)
    again = "update jobs set completed_at = ? where id = ?"
    assert found_and_then(store, lambda: rows.change(again, NOW - DAY, job_id), before=NOW - 30 * DAY) == []


def test_a_job_that_ran_again_in_between_and_ended_otherwise_stays(store, rows):
    job_id = ended(rows, 31)
    assert found_and_then(store, lambda: rows.change("update jobs set status='failed' where id=?", job_id)) == []


def test_a_job_that_another_came_to_wait_for_in_between_stays(store, rows):
    job_id = ended(rows, 31)

    def wait():
        rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", rows.job(["queued"]), job_id)

    assert found_and_then(store, wait) == []
    assert rows.one("select deleted_at from jobs where id=?", job_id) is None


# -- values -----------------------------------------------------------------------------------------------------------


def prune(store, rows, job_id, **kwargs):
    task, status, completed_at = rows.one("select task, status, completed_at from jobs where id=?", job_id)
    job = Aged(job_id, task, status, completed_at, 0)
    return prune_values(store, job, **{"before": NOW, "now": NOW, "actor": "daemon 1", **kwargs})


def values(rows):
    return [tuple(row) for row in rows.all("select value, pruned_at from results order by item_id")]


def test_values_and_data_go_and_the_rows_stay_and_say_since_when(store, rows):
    job_id = ended(rows, 31, items=["completed"] * 3)
    with_results(rows, job_id)
    other = ended(rows, 31)
    with_results(rows, other)
    assert prune(store, rows, job_id)
    assert values(rows) == [(None, NOW)] * 3 + [('{"x": 1}', None)]
    assert rows.one("select count(*) from result_data") == 1
    assert rows.one("select values_pruned_at, status from jobs where id=?", job_id) == (NOW, "completed")
    assert rows.events(job_id) == [("prune", "completed", "completed", None)]
    rows.assert_sound(job_id)
    assert {broken.name for broken in check(store)} <= {"job_events"}, "of rows that were written past every edge"


@pytest.mark.parametrize("keys", ["ascending", "descending"])
def test_values_go_in_batches_whatever_the_order_of_the_keys(store, rows, monkeypatch, keys):
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "_IDS_AT_ONCE", 7)
    job_id = ended(rows, 31, items=["completed"] * 20)
    with_results(rows, job_id)
    if keys == "descending":
        rows.change("update job_items set key = printf('%05d', 1000 - id)")
    sizes, write = [], store.write

    def watched(work, **kwargs):
        before = len([value for value, _ in values(rows) if value])
        answer = write(work, **kwargs)
        sizes.append(before - len([value for value, _ in values(rows) if value]))
        return answer

    store.write = watched
    assert prune(store, rows, job_id)
    assert max(sizes) <= 3
    assert sum(sizes) == 20
    assert rows.one("select count(*) from result_data") == 0


def test_where_it_is_told_to_stop_the_job_is_not_marked_and_the_next_call_goes_on(store, rows, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 3)
    job_id = ended(rows, 31, items=["completed"] * 7)
    with_results(rows, job_id)
    answers = iter([True, False])
    assert not prune(store, rows, job_id, go_on=lambda: next(answers, False))
    assert [value for value, _ in values(rows)].count(None) == 6
    assert rows.one("select values_pruned_at from jobs") is None
    assert prune(store, rows, job_id, now=NOW + 1)
    assert values(rows) == [(None, NOW)] * 6 + [(None, NOW + 1)]
    assert rows.one("select values_pruned_at from jobs") == NOW + 1


def test_what_has_no_value_any_more_is_passed_over_without_a_write(store, rows):
    job_id = ended(rows, 31, items=["completed"] * 3)
    with_results(rows, job_id)
    rows.change("update results set value = null, pruned_at = ?", NOW - DAY)
    writes, write = [], store.write
    store.write = lambda work, **kwargs: writes.append(1) or write(work, **kwargs)
    assert prune(store, rows, job_id)
    assert len(writes) == 1, "the mark"
    assert values(rows) == [(None, NOW - DAY)] * 3


def test_a_job_that_was_reopened_in_between_keeps_its_values(store, rows):
    job_id = ended(rows, 31, items=["completed", "failed"], tolerance="1")
    with_results(rows, job_id)
    job = aged(store, Span("completed", True, NOW))[0]
    retry(store, job_id, now=NOW, actor="cli")
    assert not prune_values(store, job, before=NOW, now=NOW, actor="daemon 1")
    assert values(rows) == [('{"x": 1}', None)]
    assert rows.one("select count(*) from result_data") == 1
    assert rows.one("select values_pruned_at from jobs") is None
