"""New jobs: how they and their items enter the store, whole or not at all."""

from __future__ import annotations

import json
import threading
from functools import partial

import pytest

from jobd.errors import Conflict, DuplicateKeys, InvalidItem, UsageError
from jobd.items import normalise
from jobd.process import Process, myself
from jobd.store import chunks
from jobd.store.invariants import check
from jobd.store.submit import Submission, submit

NOW = 1_795_305_600_000
LATER = NOW + 60_000
WORK = Submission("work")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of three, so that ten items are four of them."""
    monkeypatch.setattr(chunks, "CHUNK", 3)


@pytest.fixture
def wakes(store):
    heard = []
    store.wake = lambda: heard.append(store.connection().in_transaction)
    return heard


@pytest.fixture
def commits(store):
    """The jobs that each commit left behind: (items in the row, items, sealed)."""
    seen = []

    def watched(put, work, **kwargs):
        answer = put(work, **kwargs)
        seen.extend(
            store.read(
                lambda connection: connection.execute(
                    "select items_total, (select count(*) from job_items where job_id = jobs.id), sealed_at is not null"
                    " from jobs"
                ).fetchall()
            )
        )
        return answer

    store.write, store.share = partial(watched, store.write), partial(watched, store.share)
    return seen


def send(store, items, submission=WORK, *, now=NOW, progress=None):
    return submit(store, submission, normalise(items, submission.task), now=now, actor="test", progress=progress)


def numbered(count):
    return [f"item {number}" for number in range(count)]


def keys(rows, job_id):
    return [row[0] for row in rows.all("select key from job_items where job_id=? order by id", job_id)]


def empty(rows):
    return all(rows.one(f"select count(*) from {table}") == 0 for table in ("jobs", "job_items", "job_events"))


# -- one transaction --------------------------------------------------------------------------------------------------


def test_a_job_of_one_item_is_one_transaction(store, rows, commits, wakes):
    answer = send(store, ["a.txt"])
    assert answer == (1, "queued", True, 1, 0, 0, 0, 1)
    assert commits == [(1, 1, 1)]
    assert wakes == [False], "once, after the commit"
    assert rows.one("select key, payload, status, attempt from job_items") == ("a.txt", '"a.txt"', "queued", 0)
    assert check(store) == []


def test_two_thousand_items_are_one_transaction_and_one_more_are_not(store, commits):
    send(store, numbered(2_000))
    assert commits == [(2_000, 2_000, 1)]
    commits.clear()
    send(store, numbered(2_001))
    assert (0, 0, 0) in commits


def test_large_payloads_are_chunked_by_their_size(store, rows, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 100)
    answer = send(store, [f"{number}" + "x" * 60 for number in range(5)])
    assert answer.total == 5
    assert rows.one("select submitter is not null from jobs"), "it took more than one transaction"


def test_the_row_holds_what_was_submitted(store, rows):
    submission = Submission(
        "work", params='{"depth":2}', key="nightly", target="./a.py:work", priority=5, not_before=LATER,
        job_timeout_ms=1_000, tolerance="5%", policy='{"retries":3}',
    )  # fmt: skip
    send(store, ["a", "b"], submission)
    columns = (
        "task, params, key, target, priority, not_before, job_timeout_ms, tolerance, policy, status, version,"
        " items_total, created_at, sealed_at, status_updated_at, submitter"
    )
    assert rows.one(f"select {columns} from jobs") == (
        "work", '{"depth":2}', "nightly", "./a.py:work", 5, LATER, 1_000, "5%", '{"retries":3}', "queued", 1,
        2, NOW, NOW, NOW, None,
    )  # fmt: skip
    assert rows.one("select name, from_status, to_status, at, actor, item_id, count from job_events") == (
        "submit", None, "queued", NOW, "test", None, None,
    )  # fmt: skip


def test_items_keep_their_order_and_their_text(store, rows):
    odd = [
        "b",
        "a",
        'quo"te\\',
        "line\nbreak\t",
        "\x1b[31m",
        "\u202ertl",
        "e\u0301",
        "é",
        "\U0001f600",
        "$.a[0]",
        "null",
        "\x7f",
    ]
    job_id = send(store, odd).job_id
    assert keys(rows, job_id) == odd
    assert [json.loads(row[0]) for row in rows.all("select payload from job_items order by id")] == odd
    assert check(store) == []


def test_a_payload_with_an_escaped_nul_is_kept(store, rows):
    send(store, [{"text": "a\0b"}, {"text": "\\u0000"}])
    stored = [json.loads(row[0]) for row in rows.all("select payload from job_items order by id")]
    assert stored == [{"text": "a\0b"}, {"text": "\\u0000"}]


def test_no_items_at_all_complete_at_once(store, rows, wakes):
    answer = send(store, [])
    assert answer == (1, "completed", True, 0, 0, 0, 0, 0)
    assert rows.one("select status, status_message, completed_at, version from jobs") == ("completed", None, NOW, 2)
    assert rows.events(1) == [("complete", "queued", "completed", None)]
    assert rows.one("select message from job_events where name='complete'") == "no items"
    assert wakes == [False]
    assert check(store) == []


def test_progress_is_told_what_is_stored(store, small_chunks):
    heard = []
    send(store, numbered(2), progress=heard.append)
    assert heard == [2]
    heard.clear()
    send(store, numbered(8), progress=heard.append)
    assert heard == [3, 6, 8]


@pytest.mark.parametrize("key", ["", "a\0", "\ud800", "x" * 4_097])
def test_a_jobs_key_that_cannot_be_stored_is_refused(store, rows, key):
    with pytest.raises(UsageError, match="a job's key"):
        send(store, ["a"], Submission("work", key=key))
    assert empty(rows)


def test_threads_that_submit_at_once_all_get_their_own_job(store, rows):
    barrier = threading.Barrier(4)
    answers = []

    def client():
        barrier.wait(10)
        answers.extend(send(store, ["a"]).job_id for _ in range(20))
        store.close()

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [row[0] for row in rows.all("select id from jobs order by id")]
    assert len(answers) == 80
    assert check(store) == []


# -- many transactions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 6, 7])
def test_a_long_input_is_sealed_by_its_last_commit(store, rows, small_chunks, commits, wakes, count):
    answer = send(store, iter(numbered(count)))
    assert answer == (1, "queued", True, count, 0, 0, 0, count)
    assert [sealed for _, _, sealed in commits] == [0] * (len(commits) - 1) + [1]
    assert all(kept == there for kept, there, _ in commits), "the counter moves with each chunk"
    assert commits[-1] == (count, count, 1)
    assert wakes == [False]
    assert keys(rows, 1) == numbered(count)
    assert Process.loads(rows.one("select submitter from jobs")) == myself()
    assert check(store) == []


class Broken(BaseException):
    """Neither an Exception nor expected by anybody."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Broken, InvalidItem])
@pytest.mark.parametrize("at", [0, 2, 5, 8])
def test_an_input_that_fails_midway_leaves_nothing(store, rows, small_chunks, wakes, error, at):
    def items():
        for number in range(10):
            if number == at:
                raise error(number, "no") if error is InvalidItem else error
            yield str(number)

    with pytest.raises(error):
        send(store, items(), Submission("work", key="k"))
    assert empty(rows)
    assert wakes == []
    assert send(store, ["a"], Submission("work", key="k")).created, "the key is free"


def test_an_item_that_cannot_be_stored_is_named_by_its_position_in_the_whole_input(store, rows, small_chunks):
    with pytest.raises(InvalidItem) as caught:
        send(store, [*numbered(7), ""])
    assert caught.value.position == 7
    assert empty(rows)


def test_a_progress_that_raises_leaves_nothing(store, rows, small_chunks):
    def progress(count):
        if count > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(store, numbered(8), progress=progress)
    assert empty(rows)


@pytest.mark.parametrize("column", ["cancel_requested_at", "fail_requested_at", "deleted_at"])
@pytest.mark.parametrize(("asked_at", "heard_at_last"), [(3, 3), (9, 9)], ids=["midway", "before the seal"])
def test_what_is_asked_for_while_the_input_is_read_has_the_last_word(
    store, rows, small_chunks, column, asked_at, heard_at_last
):
    heard = []

    def progress(count):
        heard.append(count)
        if count == asked_at:
            rows.change(f"update jobs set {column}=?", NOW)

    with pytest.raises(Conflict, match="job 1 was cancelled or deleted"):
        send(store, numbered(9), progress=progress)
    assert heard[-1] == heard_at_last, "nothing is added after the request"
    assert empty(rows)


def test_a_job_that_was_removed_while_the_input_is_read_is_a_conflict(store, rows, small_chunks):
    with pytest.raises(Conflict, match="job 1 was cancelled or deleted"):
        send(store, numbered(8), progress=lambda _: rows.change("delete from jobs"))
    assert empty(rows)


def test_a_removal_that_fails_does_not_hide_why(store, rows, small_chunks):
    def items():
        yield from numbered(8)
        store.write = broken
        raise RuntimeError("the reader broke")

    def broken(_, **kwargs):
        raise Conflict("no disk")

    write = store.write
    with pytest.raises(RuntimeError, match="the reader broke") as caught:
        send(store, items())
    store.write = write
    assert "job 1 could not be removed (no disk)" in caught.value.__notes__[0]
    assert rows.one("select sealed_at from jobs") is None, "nothing of it runs"


# -- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items", [["a", "b", "a"], ["1", 1], ["a", "b", "c", "d", "a"], ["a", "b", "c", "d", "e", "e"]]
)
def test_a_key_that_comes_twice_is_refused_by_name_and_nothing_is_left(store, rows, small_chunks, items):
    with pytest.raises(DuplicateKeys) as caught:
        send(store, items)
    assert caught.value.keys == (str(items[-1]),)
    assert empty(rows)


@pytest.mark.parametrize("size", [3, 10, 1_000])
def test_the_first_twenty_duplicates_are_named_in_their_order(store, rows, monkeypatch, size):
    monkeypatch.setattr(chunks, "CHUNK", size)
    with pytest.raises(DuplicateKeys) as caught:
        send(store, [*numbered(30), *numbered(30), *numbered(30)])
    assert caught.value.keys == tuple(numbered(20))
    assert empty(rows)


@pytest.mark.parametrize("size", [3, 4, 1_000])
def test_duplicates_are_skipped_with_a_count_and_the_first_is_kept(store, rows, monkeypatch, size):
    monkeypatch.setattr(chunks, "CHUNK", size)
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5"), ("a", "6"), ("d", "7"), ("e", "8")]
    answer = submit(store, Submission("work", duplicates="skip"), pairs, now=NOW, actor="test")
    assert answer == (1, "queued", True, 5, 0, 0, 3, 5)
    assert rows.all("select key, payload from job_items order by id") == [
        ("a", "1"), ("b", "2"), ("c", "4"), ("d", "5"), ("e", "8"),
    ]  # fmt: skip
    assert check(store) == []


# -- the caller's transaction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_a_submission_joins_the_callers_transaction(store, rows, small_chunks, wakes, count):
    connection = store.connection()
    store.begin(connection)
    answer = send(store, numbered(count), Submission("work", key="k"))
    assert answer.added == count
    assert store.in_transaction(connection)
    assert wakes == [], "the wake belongs to the outermost commit"
    connection.execute("rollback")
    assert empty(rows)

    store.begin(connection)
    send(store, numbered(count), Submission("work", key="k"))
    send(store, [*numbered(count), "more", "and", "more than", "three"], Submission("work", key="k"))
    connection.execute("commit")
    assert rows.one("select items_total, sealed_at from jobs") == (count + 4, NOW)
    assert check(store) == []


def test_an_input_that_fails_inside_the_callers_transaction_leaves_the_rest_of_it(store, rows, small_chunks):
    connection = store.connection()
    store.begin(connection)
    send(store, ["kept"])
    with pytest.raises(DuplicateKeys):
        send(store, [*numbered(8), "item 0"])
    assert store.in_transaction(connection)
    connection.execute("commit")
    assert rows.all("select key from job_items") == [("kept",)]
    assert rows.one("select count(*) from jobs") == 1


def test_a_callers_transaction_that_is_gone_takes_no_foreign_job_with_it(store, rows, small_chunks):
    connection = store.connection()

    def items():
        yield from numbered(8)
        connection.execute("rollback")  # as SQLite itself does on a full disk
        rows.job(["queued"])  # the next job has the id that was rolled back
        raise OSError("disk full")

    store.begin(connection)
    with pytest.raises(OSError, match="disk full"):
        send(store, items())
    assert rows.one("select id, deleted_at from jobs") == (1, None)
