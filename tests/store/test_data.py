"""The large companion of a result: apart from it, of its very attempt, and read only when it is asked for."""

from __future__ import annotations

import os
import sqlite3

import pytest
from kit.rows import NOW

from jobd.errors import Lost
from jobd.store import reads
from jobd.store.attempt import load_data, save_data, save_result

LARGE = os.urandom(300_000)


@pytest.fixture
def running(rows):
    job_id = rows.job(["running"], status="running")
    return job_id, rows.ids(job_id)[0]


def end(rows, item_id, attempt=1):
    rows.change("update job_items set status='completed', attempt=? where id=?", attempt, item_id)


def test_data_is_given_back_as_it_was(store, running):
    job_id, item_id = running
    save_data(store, item_id, 1, LARGE, patience=0)
    save_result(store, item_id, 1, "1", now=NOW, patience=0)
    (result,) = reads.results(store, job_id)
    assert result.has_data
    assert result.data() == LARGE
    assert reads.latest_result(store, "work", "key-00000").data() == LARGE
    assert [found.data() for found in reads.results_of(store, "work")] == [LARGE]


def test_a_result_without_has_none(store, running):
    job_id, item_id = running
    save_result(store, item_id, 1, "1", now=NOW, patience=0)
    (result,) = reads.results(store, job_id)
    assert (result.has_data, result.data()) == (False, None)


def test_no_list_of_results_reads_the_data(store, rows, running):
    job_id, item_id = running
    save_data(store, item_id, 1, LARGE, patience=0)
    save_result(store, item_id, 1, "1", now=NOW, patience=0)
    read = []

    def watch(action, table, column, *_):
        if action == sqlite3.SQLITE_READ:
            read.append((table, column))
        return sqlite3.SQLITE_OK

    store.connection().set_authorizer(watch)
    found = [
        *reads.results(store, job_id),
        *reads.results_of(store, "work"),
        *reads.results_of(store, "work", "key-00000"),
    ]
    reads.items(store, job_id)
    assert ("results", "value") in read
    assert ("result_data", "data") not in read
    assert found[0].data() == LARGE
    assert ("result_data", "data") in read
    store.connection().set_authorizer(None)


def test_data_of_an_attempt_that_failed_belongs_to_no_later_result(store, rows, running):
    job_id, item_id = running
    save_data(store, item_id, 1, b"of the first", patience=0)
    rows.change("update job_items set attempt=2 where id=?", item_id)
    assert load_data(store, item_id) is None
    save_result(store, item_id, 2, "1", now=NOW, patience=0)
    (result,) = reads.results(store, job_id)
    assert (result.has_data, result.data()) == (False, None)


def test_the_last_of_several_counts_and_an_attempt_that_is_over_saves_none(store, rows, running):
    _, item_id = running
    save_data(store, item_id, 1, b"first", patience=0)
    save_data(store, item_id, 1, b"second", patience=0)
    assert load_data(store, item_id) == b"second"
    end(rows, item_id)
    with pytest.raises(Lost):
        save_data(store, item_id, 1, b"third", patience=0)
    assert load_data(store, item_id) == b"second"


def test_data_that_went_since_the_result_was_read_is_none(store, rows, running):
    job_id, item_id = running
    save_data(store, item_id, 1, b"x", patience=0)
    save_result(store, item_id, 1, "1", now=NOW, patience=0)
    (result,) = reads.results(store, job_id)
    rows.change("delete from result_data")
    assert (result.has_data, result.data()) == (True, None)


def test_data_lies_apart_and_compressed(store, rows, running):
    _, item_id = running
    save_data(store, item_id, 1, b"0.125, " * 10_000, patience=0)
    assert rows.one("select length(data) from result_data") < 1_000
    assert rows.one("select count(*) from results") == 0


def test_the_pages_of_a_history_go_on_before_an_item(store, rows):
    for number in range(5):
        (item_id,) = rows.ids(rows.job(["running"], status="running"))
        save_result(store, item_id, 1, str(number), now=NOW, patience=0)
    for key in ("key-00000", None):
        page = reads.results_of(store, "work", key, limit=2)
        assert [result.value for result in page] == [4, 3]
        page = reads.results_of(store, "work", key, limit=2, before=page[-1].item_id)
        assert [result.value for result in page] == [2, 1]
        page = reads.results_of(store, "work", key, limit=2, before=page[-1].item_id)
        assert [result.value for result in page] == [0]
