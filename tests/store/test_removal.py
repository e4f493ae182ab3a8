"""A job leaves the store in batches, and only when it was asked for."""

from __future__ import annotations

import pytest

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.process import myself
from jobd.store import removal
from jobd.store.removal import (
    dead_submissions,
    open_removals,
    remove_job,
    remove_jobs,
    request_delete,
    request_removal,
    submitter_lives,
)
from jobd.store.transitions import Answer

NOW = 1_795_305_600_000
LATER = NOW + 60_000


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of three, so that ten items are four of them."""
    monkeypatch.setattr(removal, "BATCH", 3)


class Killed(BaseException):
    """Stands for a SIGKILL between two commits."""


def request(store, job_id, *, now=LATER):
    return store.write(lambda connection: request_removal(store, connection, job_id, now))


def full(rows, **columns):
    """Add a job of ten completed items with everything that items leave, and return its id."""
    job_id = rows.job(["completed"] * 10, status="completed", **columns)
    for item_id in rows.ids(job_id):
        rows.change(
            "insert into results (item_id, attempt, task, key, value, created_at) values (?, 1, 'work', 'a', '1', ?)",
            item_id, NOW,
        )  # fmt: skip
        rows.change("insert into result_data (item_id, attempt, data) values (?, 1, x'00')", item_id)
        rows.change("insert into item_output (item_id, attempt, text) values (?, 1, 'out')", item_id)
        rows.change(
            "insert into job_events (job_id, item_id, name, at, actor) values (?, ?, 'recover', ?, 'test')",
            job_id, item_id, NOW,
        )  # fmt: skip
    return job_id


def counts(rows):
    tables = ("jobs", "job_items", "results", "result_data", "item_output", "job_events")
    return [rows.one(f"select count(*) from {table}") for table in tables]


def test_a_request_frees_the_key_and_is_a_fact_in_the_row(store, rows):
    job_id = rows.job(["queued"], key="k")
    assert request(store, job_id)
    assert rows.one("select key, deleted_at from jobs") == (None, LATER)
    assert rows.job(["queued"], key="k") != job_id
    assert open_removals(store) == [job_id]


def test_a_second_request_and_one_for_no_job_say_so(store, rows):
    job_id = rows.job(["queued"])
    assert request(store, job_id)
    assert not request(store, job_id, now=LATER + 1)
    assert rows.one("select deleted_at from jobs") == LATER
    assert not request(store, 99)


def test_a_job_goes_with_all_that_it_left_and_no_other_does(store, rows, small_batches):
    other = full(rows)
    before = counts(rows)
    job_id = full(rows)
    rows.change("insert into watchlist (task, key, last_job_id) values ('work', 'a', ?)", job_id)
    request(store, job_id)
    heard = []
    assert remove_job(store, job_id, heard.append) == 10
    assert heard == [3, 6, 9, 10]
    assert counts(rows) == before
    assert rows.all("select id from jobs") == [(other,)]
    assert rows.one("select last_job_id from watchlist") is None


def test_a_job_without_items_goes(store, rows):
    job_id = rows.job([], status="completed")
    request(store, job_id)
    assert remove_job(store, job_id) == 0
    assert counts(rows) == [0] * 6


def test_a_job_that_nobody_asked_to_delete_stays_whole(store, rows, small_batches):
    job_id = full(rows)
    before = counts(rows)
    with pytest.raises(Conflict, match=f"job {job_id} is not being deleted"):
        remove_job(store, job_id)
    assert counts(rows) == before


def test_a_job_that_is_gone_is_replayed(store):
    assert remove_job(store, 99) == 0


def test_killed_between_two_batches_the_row_is_left_to_find_the_rest(store, rows, small_batches):
    job_id = full(rows)
    request(store, job_id)

    def progress(count):
        if count == 6:
            raise Killed

    with pytest.raises(Killed):
        remove_job(store, job_id, progress)
    assert counts(rows)[:2] == [1, 4]
    assert open_removals(store) == [job_id]
    assert remove_job(store, job_id) == 4
    assert counts(rows) == [0] * 6
    assert open_removals(store) == []


def test_no_transaction_takes_more_than_a_batch(store, rows, small_batches):
    job_id = full(rows)
    request(store, job_id)
    sizes, write = [], store.write

    def watched(work, **kwargs):
        before = counts(rows)
        answer = write(work, **kwargs)
        after = counts(rows)
        sizes.append((before[1] - after[1], before[5] - after[5]))
        return answer

    store.write = watched
    remove_job(store, job_id)
    assert all(items <= 3 and events <= 3 for items, events in sizes)
    assert sum(events for _, events in sizes) == 11


def test_dead_submissions_are_those_whose_submitter_is_known_to_be_dead(store, rows):
    gone = myself()._replace(started_at=1).dumps()
    rows.job(["queued"], sealed_at=None, submitter=myself().dumps())
    dead = rows.job(["queued"], sealed_at=None, submitter=gone)
    rows.job(["queued"], sealed_at=None, submitter=myself()._replace(host="elsewhere").dumps())
    rows.job(["queued"], sealed_at=None, submitter="?")
    rows.job(["queued"], submitter=gone)
    rows.job(["queued"], sealed_at=None, deleted_at=NOW, submitter=gone)
    assert dead_submissions(store) == [(dead, gone)]


def test_a_submitter_lives_until_it_is_known_to_be_dead():
    assert submitter_lives(myself().dumps())
    assert submitter_lives(None)
    assert not submitter_lives(myself()._replace(boot="another").dumps())


def test_dead_submissions_and_removals_are_found_by_a_small_index(store, rows):
    for statement, params in ((removal._UNSEALED, ()), (removal._DELETED, (0, 10))):
        plan = " ".join(row[3] for row in rows.all(f"explain query plan {statement}", *params))
        assert "jobs_requested" in plan


# -- deleting on request ----------------------------------------------------------------------------------------------


def delete(store, job_id):
    return request_delete(store, job_id, now=LATER, actor="cli")


def child_of(rows, parent, **columns):
    """Add a job that comes after another one, and return its id."""
    job_id = rows.job(columns.pop("items", ["queued"]), **columns)
    rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", job_id, parent)
    return job_id


@pytest.mark.parametrize(
    ("status", "items"),
    [("queued", ["queued", "failed"]), ("completed", ["completed"]), ("failed", ["failed"]), ("cancelled", [])],
)
def test_a_job_that_does_not_run_can_be_deleted(store, rows, status, items):
    job_id = rows.job(items, status=status, key="k")
    assert delete(store, job_id) is Answer.APPLIED
    assert rows.one("select status, key, deleted_at from jobs") == (status, None, LATER)
    assert rows.events(job_id) == [("delete", status, status, None)]
    assert remove_job(store, job_id) == len(items)
    assert counts(rows) == [0] * 6


def test_a_second_request_to_delete_is_replayed(store, rows):
    job_id = rows.job(["queued"])
    delete(store, job_id)
    before = rows.all("select * from jobs"), rows.all("select * from job_events")
    assert delete(store, job_id) is Answer.REPLAYED
    assert (rows.all("select * from jobs"), rows.all("select * from job_events")) == before


@pytest.mark.parametrize(
    ("items", "columns", "verb"),
    [
        (["running"], {}, "cancel"),
        (["queued", "failed"], {}, "cancel"),
        (["running"], {"cancel_requested_at": NOW}, "fail"),
    ],
)
def test_a_running_job_cannot_be_deleted_and_the_refusal_says_what_can_be_done(store, rows, items, columns, verb):
    job_id = rows.job(items, status="running", **columns)
    with pytest.raises(IllegalTransition, match=f"job {job_id} is running: it cannot delete") as refusal:
        delete(store, job_id)
    assert verb in refusal.value.legal
    assert "delete" not in refusal.value.legal
    assert rows.one("select deleted_at from jobs") is None
    rows.assert_sound(job_id)


def test_a_job_that_is_being_submitted_is_its_submitters_to_the_end(store, rows):
    job_id = rows.job(["queued"], sealed_at=None, key="k")
    with pytest.raises(Conflict, match=f"job {job_id} is still being submitted"):
        delete(store, job_id)
    with pytest.raises(NotFound, match="no job 99"):
        delete(store, 99)
    assert rows.one("select key, deleted_at from jobs") == ("k", None)


@pytest.mark.parametrize("children", [1, 2])
def test_a_job_that_others_wait_for_cannot_be_deleted(store, rows, children):
    job_id = rows.job(["completed"], status="completed")
    first, *_ = [child_of(rows, job_id) for _ in range(children)]
    who = f"job {first} waits" if children == 1 else f"job {first} and others wait"
    with pytest.raises(Conflict, match=f"job {job_id} cannot be deleted: {who} for it") as refusal:
        delete(store, job_id)
    assert refusal.value.hint.startswith(f"jobd cancel {first}")
    assert rows.one("select deleted_at from jobs where id=?", job_id) is None


@pytest.mark.parametrize("columns", [{"status": "cancelled", "items": ["cancelled"]}, {"deleted_at": NOW}])
def test_a_job_whose_children_have_ended_or_go_themselves_can_be_deleted(store, rows, columns):
    job_id = rows.job(["completed"], status="completed")
    child = child_of(rows, job_id, **columns)
    delete(store, job_id)
    assert remove_job(store, job_id) == 1
    assert rows.all("select id from jobs") == [(child,)]
    assert rows.all("select * from job_dependencies") == []


def test_a_child_goes_with_its_place_behind_its_parents(store, rows, small_batches):
    parents = [rows.job(["queued"]) for _ in range(5)]
    child = rows.job(["cancelled"], status="cancelled")
    for parent in parents:
        rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", child, parent)
    delete(store, child)
    remove_job(store, child)
    assert [row[0] for row in rows.all("select id from jobs")] == parents
    assert rows.all("select * from job_dependencies") == []


def test_where_a_child_came_after_the_request_the_row_stays_until_that_has_ended(store, rows):
    job_id = rows.job(["completed"], status="completed")
    delete(store, job_id)
    child = child_of(rows, job_id)
    remove_job(store, job_id)
    assert open_removals(store) == [job_id]
    rows.change("update jobs set status='cancelled', completed_at=? where id=?", LATER, child)
    remove_job(store, job_id)
    assert rows.all("select id from jobs") == [(child,)]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_small_jobs_go_many_in_one_transaction(store, rows):
    job_ids = [full(rows) for _ in range(5)]
    for job_id in job_ids:
        request(store, job_id)
    writes, write = [], store.write
    store.write = lambda work, **kwargs: writes.append(1) or write(work, **kwargs)
    assert remove_jobs(store, job_ids) == 50
    assert counts(rows) == [0] * 6
    assert len(writes) == 3, "the items, all the rest, and one that finds nothing more"


def test_of_many_jobs_only_those_go_that_somebody_asked_to_delete(store, rows, small_batches):
    job_ids = [full(rows) for _ in range(3)]
    request(store, job_ids[0])
    request(store, job_ids[2])
    assert remove_jobs(store, job_ids) == 20
    assert counts(rows) == [1, 10, 10, 10, 10, 11]
    assert rows.all("select id from jobs") == [(job_ids[1],)]


def test_keys_on_the_watchlist_stay_and_lose_the_job_in_batches_too(store, rows, small_batches):
    job_id = rows.job(["completed"], status="completed")
    for number in range(10):
        rows.change("insert into watchlist (task, key, last_job_id) values ('work', ?, ?)", str(number), job_id)
    request(store, job_id)
    sizes, write = [], store.write

    def watched(work, **kwargs):
        before = store.connection().total_changes
        answer = write(work, **kwargs)
        sizes.append(store.connection().total_changes - before)
        return answer

    store.write = watched
    remove_job(store, job_id)
    assert rows.one("select count(*) from watchlist where last_job_id is null") == 10
    assert max(sizes) <= 3


def test_a_schedule_stays_and_loses_its_last_job(store, rows):
    job_id = rows.job([], status="completed")
    rows.change(
        "insert into schedules (name, task, spec, zone, last_job_id) values ('s', 'work', '1h', 'UTC', ?)", job_id
    )
    request(store, job_id)
    remove_job(store, job_id)
    assert rows.one("select name, last_job_id from schedules") == ("s", None)


def test_open_removals_come_a_batch_at_a_time(store, rows, small_batches):
    job_ids = [rows.job([], status="completed", deleted_at=NOW) for _ in range(4)]
    assert open_removals(store) == job_ids[:3]
    assert open_removals(store, job_ids[2]) == job_ids[3:]


def test_a_row_stays_while_items_of_it_are_left_to_somebody_else(store, rows, monkeypatch):
    job_id = full(rows)
    request(store, job_id)
    monkeypatch.setattr(removal, "_remove_items", lambda *_: iter(()))
    assert remove_jobs(store, [job_id]) == 0
    assert counts(rows)[:2] == [1, 10]
    monkeypatch.undo()
    assert remove_jobs(store, [job_id]) == 10
    assert counts(rows) == [0] * 6
