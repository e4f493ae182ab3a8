"""What a running attempt says of itself is taken from that attempt alone."""

from __future__ import annotations

import threading

import pytest

from jobd.errors import Lost
from jobd.store.attempt import save_progress, save_result
from jobd.store.failures import Transient
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore

NOW = 1_795_305_600_000
LATER = NOW + 1_000


@pytest.fixture
def running(rows):
    """A job with one item that runs as attempt 1 of daemon 1: (job id, item id)."""
    job_id = rows.job(["running"], status="running")
    return job_id, rows.ids(job_id)[0]


def saved(rows, item_id):
    found = rows.all(
        "select attempt, task, key, status, source, value, created_at from results where item_id=?", item_id
    )
    return [tuple(row) for row in found]


def progress(store, job_id, item_id, text, attempt=1):
    save_progress(store, job_id, item_id, attempt, text, now=LATER, patience=0)


def result(store, item_id, value, attempt=1, now=LATER):
    save_result(store, item_id, attempt, value, now=now, patience=0)


def test_progress_is_kept_with_the_item_and_is_progress_of_its_job(store, rows, running):
    job_id, item_id = running
    progress(store, job_id, item_id, '[3,10,"third"]')
    assert rows.one("select progress from job_items where id=?", item_id) == '[3,10,"third"]'
    assert rows.one("select progress_at, version from jobs where id=?", job_id) == (LATER, 1)
    rows.assert_sound(job_id)


def test_a_result_is_stored_before_the_end_and_the_item_still_runs(store, rows, running):
    job_id, item_id = running
    result(store, item_id, '{"a":1}')
    assert saved(rows, item_id) == [(1, "work", "key-00000", "completed", "handler", '{"a":1}', LATER)]
    assert rows.items(job_id) == ["running"]
    rows.assert_sound(job_id)


def test_a_second_result_replaces_the_first(store, rows, running):
    _, item_id = running
    result(store, item_id, "1")
    result(store, item_id, "2", now=LATER + 1)
    assert saved(rows, item_id) == [(1, "work", "key-00000", "completed", "handler", "2", LATER + 1)]


def test_a_result_replaces_what_a_former_attempt_left(store, rows, running):
    _, item_id = running
    result(store, item_id, "1")
    rows.change("update results set status='failed', source='outside', value=null, pruned_at=1")
    rows.change("update job_items set attempt=2")
    result(store, item_id, "2", attempt=2)
    assert saved(rows, item_id) == [(2, "work", "key-00000", "completed", "handler", "2", LATER)]
    assert rows.one("select pruned_at from results") is None


@pytest.mark.parametrize(
    "spoil",
    [
        "update job_items set attempt=2",
        "update job_items set attempt=0",
        "update job_items set status='queued'",
        "update job_items set status='completed', completed_at=1",
        "update job_items set status='cancelled', completed_at=1",
        "delete from job_items",
    ],
)
def test_an_attempt_that_is_no_longer_the_items_says_nothing_more(store, rows, running, spoil):
    job_id, item_id = running
    rows.change(spoil)
    before = rows.all("select * from jobs"), rows.all("select * from job_items")
    with pytest.raises(Lost, match=rf"^attempt 1 is no longer that of item {item_id}$"):
        progress(store, job_id, item_id, "[1,null,null]")
    with pytest.raises(Lost, match=rf"^attempt 1 is no longer that of item {item_id}$"):
        result(store, item_id, "1")
    assert (rows.all("select * from jobs"), rows.all("select * from job_items")) == before
    assert saved(rows, item_id) == []


def test_of_a_result_and_the_word_that_stops_its_attempt_the_first_decides(store, rows):
    """Both orders: no item is queued again that has a result of this attempt, and none is completed without one."""
    for _ in range(10):
        job_id = rows.job(["running"], status="running")
        (item_id,) = rows.ids(job_id)
        barrier = threading.Barrier(2)
        told = []

        def save(item_id=item_id, barrier=barrier, told=told):
            own = SqliteStore(store.path)
            barrier.wait(20)
            try:
                save_result(own, item_id, 1, "1", now=LATER, patience=10)
                told.append("saved")
            except Lost:
                told.append("lost")
            own.close()

        thread = threading.Thread(target=save)
        thread.start()
        outcome = Outcome(item_id, job_id, 1, "work", "key-00000", "stopped", NOW, NOW, error="left")
        barrier.wait(20)
        store.write(lambda connection, row=outcome: settle(store, connection, [row], now=LATER, actor="test"))
        thread.join(20)
        status, results = rows.items(job_id)[0], len(saved(rows, item_id))
        assert (told, status, results) in [(["saved"], "completed", 1), (["lost"], "queued", 0)]
        rows.assert_sound(job_id)


def test_a_store_that_is_busy_says_so_at_once_to_who_has_no_patience(store, rows, running, monkeypatch):
    job_id, item_id = running
    monkeypatch.setattr("jobd.store.sqlite.BUSY_TIMEOUT_MS", 1)
    rival = SqliteStore(store.path)
    rival.connection().execute("begin immediate")
    with pytest.raises(Transient):
        progress(store, job_id, item_id, "[1,null,null]")
    rival.connection().execute("rollback")
    rival.close()
    progress(store, job_id, item_id, "[1,null,null]")
