"""A job leaves the store in batches, and only when it was asked for."""

from __future__ import annotations

import pytest

from jobd.errors import Conflict
from jobd.process import myself
from jobd.store import removal
from jobd.store.removal import dead_submissions, open_removals, remove_job, request_removal, submitter_lives

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
    for statement in (removal._UNSEALED, removal._DELETED):
        plan = " ".join(row[3] for row in rows.all(f"explain query plan {statement}"))
        assert "jobs_requested" in plan
