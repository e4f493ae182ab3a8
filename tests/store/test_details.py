"""What belongs to a job: items, results, events, errors, output; each in its order, small jobs and large."""

from __future__ import annotations

import types

import pytest

from jobd.errors import NotFound, UsageError
from jobd.states import ITEM_STATUSES
from jobd.store import details, figures, reads, results
from jobd.store.events import Event, record

NOW = 1_795_305_600_000


@pytest.fixture(params=["sorted", "passed over"])
def size(request, monkeypatch):
    """Read each job as a small one, and as one that is too large to sort."""
    if request.param == "passed over":
        monkeypatch.setattr(details, "SMALL", 0)
        monkeypatch.setattr(results, "PAGE", 2)


def interleaved(rows, statuses, **columns):
    """Two jobs whose items alternate, so that neither is a range of ids."""
    mine, other = rows.job(statuses[:1], **columns), rows.job(statuses[:1], task="other")
    for number, status in enumerate(statuses[1:], 1):
        for job_id in (mine, other):
            rows.change(
                "insert into job_items (job_id, key, payload, status) values (?, ?, 'null', ?)",
                job_id,
                # In the reverse order of submission, which no reading may fall for.
                f"key-{99 - number}",
                status,
            )
    rows.change("update jobs set items_total=? where id in (?, ?)", len(statuses), mine, other)
    return mine


def leave(store, rows, job_id, *, task="work", value='{"n": 1}'):
    """Leave a result of each completed item, and return the items' ids."""
    rows.change(
        "insert into results (item_id, attempt, task, key, value, created_at)"
        " select id, 1, ?, key, ?, ? + id from job_items where job_id=? and status='completed' order by id desc",
        task,
        value,
        NOW,
        job_id,
    )
    return rows.ids(job_id)


# -- items ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("size")
def test_items_come_in_the_order_of_submission_page_by_page(store, rows):
    job_id = interleaved(rows, ["queued", "completed"] * 3)
    first = [item.id for item in reads.items(store, job_id, limit=4)]
    second = [item.id for item in reads.items(store, job_id, limit=4, after=first[-1])]
    assert first + second == rows.ids(job_id)
    assert reads.items(store, job_id, after=second[-1]) == []


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("status", ITEM_STATUSES)
def test_a_status_selects_items(store, rows, status):
    job_id = interleaved(rows, [*ITEM_STATUSES, *ITEM_STATUSES])
    wanted = [
        row[0] for row in rows.all("select id from job_items where job_id=? and status=? order by id", job_id, status)
    ]
    assert len(wanted) == 2
    assert [item.id for item in reads.items(store, job_id, status=status)] == wanted
    assert [item.id for item in reads.items(store, job_id, status=status, limit=1, after=wanted[0])] == wanted[1:]


@pytest.mark.usefixtures("size")
def test_a_key_selects_its_item(store, rows):
    job_id = interleaved(rows, ["queued", "completed", "failed"])
    (found,) = reads.items(store, job_id, key="key-98")
    assert (found.key, found.status) == ("key-98", "completed")
    assert reads.items(store, job_id, key="key-98", status="failed") == []
    assert reads.items(store, job_id, key="no") == []


@pytest.mark.usefixtures("size")
def test_a_job_without_items_has_an_empty_page(store, rows):
    job_id = rows.job(items_total=1)
    assert reads.items(store, job_id) == []
    assert list(reads.results(store, job_id)) == []


@pytest.mark.parametrize(("status", "index"), [
    ("queued", "job_items_queued"), ("running", "job_items_running"), ("waiting", "job_items_waiting"),
    ("failed", "job_items_failed"), (None, "sqlite_autoindex_job_items_1"),
])  # fmt: skip
def test_a_page_of_items_goes_through_the_smallest_index(store, rows, status, index):
    seen = []
    job_id = rows.job(["queued"])
    store.connection().set_trace_callback(seen.append)
    reads.items(store, job_id, status=status)
    store.connection().set_trace_callback(None)
    (text,) = [text for text in seen if "from job_items" in text]
    plan = [row[3] for row in rows.all(f"explain query plan {text}")]
    assert any(f"INDEX {index}" in step for step in plan), plan


def test_an_unknown_status_of_an_item_is_a_usage_error(store, rows):
    with pytest.raises(UsageError, match="unknown status of an item: 'paused'"):
        reads.items(store, rows.job(), status="paused")


READERS = {
    "items": lambda store: reads.items(store, 9),
    "item": lambda store: reads.item(store, 9, "a"),
    "results": lambda store: reads.results(store, 9),
    "events": lambda store: reads.events(store, 9),
    "errors": lambda store: reads.errors(store, 9),
}


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_is_asked_of_a_job_that_is_not_there_is_not_found_at_once(store, name):
    with pytest.raises(NotFound, match="there is no job 9"):
        READERS[name](store)


def test_an_item_is_found_by_its_key_or_by_its_number(store, rows):
    job_id, other = rows.job(["completed", "queued"]), rows.job(["queued"])
    first, second = rows.ids(job_id)
    assert reads.item(store, job_id, "key-00001").id == second
    assert reads.item(store, job_id, f"#{first}").id == first
    for name in (f"#{rows.ids(other)[0]}", "#", "#x", "#99999999999999999999999", "no"):
        with pytest.raises(NotFound, match="has no item") as error:
            reads.item(store, job_id, name)
        assert error.value.hint == f"jobd items {job_id} shows its items"


def test_a_key_that_looks_like_a_number_stays_reachable(store, rows):
    job_id = rows.job(["queued", "queued"])
    first, second = rows.ids(job_id)
    rows.change("update job_items set key=? where id=?", f"#{first}", second)
    assert reads.item(store, job_id, f"#{first}").id == second


def test_an_item_says_how_long_its_attempt_took_once_it_has_ended(store, rows):
    job_id = rows.job(["completed", "running"], status="running")
    first, second = rows.ids(job_id)
    rows.change("update job_items set completed_at = started_at + 7, progress='[1,2,\"half\"]' where id=?", first)
    ended, running = reads.items(store, job_id)
    assert (ended.duration_ms, running.duration_ms) == (7, None)
    assert (ended.progress, running.progress) == ([1, 2, "half"], None)
    rows.change("update job_items set completed_at = started_at - 7 where id=?", first)
    assert reads.item(store, job_id, f"#{first}").duration_ms == 0
    assert second == running.id


# -- results --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("size")
def test_results_come_in_the_order_of_the_items(store, rows):
    job_id = interleaved(rows, ["completed"] * 5 + ["failed"] + ["completed"] * 2)
    ids = leave(store, rows, job_id)
    found = list(reads.results(store, job_id))
    assert [result.item_id for result in found] == [item for number, item in enumerate(ids) if number != 5]
    assert {result.job_id for result in found} == {job_id}
    assert found[0].value == {"n": 1}


def test_results_of_a_large_job_are_read_as_they_are_taken(store, rows, monkeypatch):
    monkeypatch.setattr(results, "PAGE", 2)
    job_id = rows.job(["completed"] * 6, status="completed")
    leave(store, rows, job_id)
    taken = reads.results(store, job_id)
    assert isinstance(taken, types.GeneratorType)
    assert next(taken).key == "key-00000"
    # Between two pages no transaction is open, and what is not read yet is read as it then is.
    assert not store.connection().in_transaction
    rows.change("update results set value='2' where item_id > 2")
    assert [result.value for result in taken] == [{"n": 1}, 2, 2, 2, 2]


def test_the_result_of_one_item(store, rows):
    job_id = rows.job(["completed", "queued"])
    leave(store, rows, job_id)
    assert [result.key for result in reads.results(store, job_id, "key-00000")] == ["key-00000"]
    assert list(reads.results(store, job_id, "key-00001")) == []


def test_the_history_of_a_key_is_newest_first_and_of_its_task_alone(store, rows):
    jobs = [rows.job(["completed", "completed"], status="completed") for _ in range(3)]
    other = rows.job(["completed"], status="completed", task="other")
    for job_id in jobs:
        leave(store, rows, job_id)
    leave(store, rows, other, task="other")
    assert [result.job_id for result in reads.results_of(store, "work", "key-00000")] == jobs[::-1]
    assert [result.job_id for result in reads.results_of(store, "work", "key-00000", limit=1)] == jobs[2:]
    assert len(reads.results_of(store, "work")) == 6
    assert reads.latest_result(store, "work", "key-00001").job_id == jobs[2]
    assert reads.latest_result(store, "other", "key-00000").job_id == other


def test_the_results_of_a_task_that_is_rare_among_the_newest_are_found(store, rows):
    job_id = rows.job(["completed"] * 3, status="completed", task="rare")
    ids = leave(store, rows, job_id, task="rare")
    leave(store, rows, rows.job(["completed"] * 2_001, status="completed"))
    ids += leave(store, rows, rows.job(["completed"], status="completed", task="rare"), task="rare")
    assert [result.item_id for result in reads.results_of(store, "rare", limit=3)] == ids[:0:-1]


def test_no_result_of_a_key_is_not_found(store):
    with pytest.raises(NotFound, match="work has no result for 'a'"):
        reads.latest_result(store, "work", "a")


def test_a_result_says_whether_it_has_data_and_whether_it_was_pruned(store, rows):
    job_id = rows.job(["completed", "completed"], status="completed")
    first, second = leave(store, rows, job_id)
    rows.change("insert into result_data (item_id, attempt, data) values (?, 1, x'00')", first)
    rows.change("update results set value=null, pruned_at=5 where item_id=?", second)
    one, two = reads.results(store, job_id)
    assert (one.has_data, one.pruned_at) == (True, None)
    assert (two.has_data, two.value, two.pruned_at) == (False, None, 5)


# -- events, errors, output, figures ----------------------------------------------------------------------------------


def test_events_are_the_jobs_own_and_its_bulk_moves_and_with_items_all(store, rows):
    job_id = rows.job(["failed"], status="running")
    (item_id,) = rows.ids(job_id)
    own = Event(job_id, None, "start", "queued", "running", NOW, "daemon 1")
    unhappy = Event(job_id, item_id, "fail", "running", "failed", NOW + 1, "daemon 1", 1, None, "boom")
    bulk = Event(job_id, None, "requeue", "failed", "queued", NOW + 2, "cli", count=1)
    store.write(lambda connection: record(store, connection, [own, unhappy, bulk]))
    assert [(event.name, event.item_key) for event in reads.events(store, job_id)] == [
        ("submit", None), ("start", None), ("requeue", None),
    ]  # fmt: skip
    every = reads.events(store, job_id, items=True)
    assert [(event.name, event.item_key, event.count) for event in every] == [
        ("submit", None, None), ("start", None, None), ("fail", "key-00000", None), ("requeue", None, 1),
    ]  # fmt: skip
    assert [event.name for event in reads.events(store, job_id, limit=2)] == ["start", "requeue"]


def test_errors_are_grouped_the_most_frequent_first_with_their_first_keys(store, rows):
    job_id = rows.job(["failed"] * 6 + ["completed"], status="running")
    rows.change(
        "update job_items set error_type='OSError', error='no such file', completed_at=id where status='failed'"
    )
    rows.change("update job_items set error='no permission' where key='key-00002'")
    rows.change("update job_items set error_type=null, error='no such file' where key='key-00004'")
    found = reads.errors(store, job_id)
    assert [(group.error_type, group.error, group.count) for group in found] == [
        ("OSError", "no such file", 4), ("OSError", "no permission", 1), (None, "no such file", 1),
    ]  # fmt: skip
    assert found[0].keys == ("key-00000", "key-00001", "key-00003")
    assert (found[0].first_at, found[0].last_at) == (1, 6)
    assert [group.keys for group in reads.errors(store, job_id, limit=1, keys=1)] == [("key-00000",)]


def test_output_is_the_items_own_and_not_found_where_there_is_none(store, rows):
    first, second = rows.ids(rows.job(["completed", "completed"]))
    rows.change("insert into item_output (item_id, attempt, text, truncated) values (?, 2, 'hello', 1)", first)
    found = reads.output(store, first)
    assert (found.attempt, found.text, found.truncated) == (2, "hello", True)
    with pytest.raises(NotFound, match=f"item {second} left no output"):
        reads.output(store, second)


def test_durations_are_the_median_and_the_95th_percentile_of_what_ran(store, rows):
    job_id = rows.job(["completed"] * 100 + ["queued", "running"], status="running")
    rows.change("update job_items set completed_at = started_at + id where status='completed'")
    assert reads.durations(store, job_id) == (51.0, 96.0)
    assert reads.durations(store, rows.job(["queued"])) is None


def test_attempts_count_the_items_that_needed_more_than_one(store, rows):
    job_id = rows.job(["completed"] * 5)
    for item_id, attempt in zip(rows.ids(job_id), (1, 3, 2, 3, 1), strict=True):
        rows.change("update job_items set attempt=? where id=?", attempt, item_id)
    assert reads.attempts(store, job_id) == {2: 1, 3: 2}


# -- no long snapshot -------------------------------------------------------------------------------------------------


@pytest.fixture
def emptied(store, monkeypatch):
    """Write and empty the log between any two snapshots; a reader that kept one over the whole would be in its way."""
    answers, read = [], store.read

    def between(work):
        answer = read(work)
        store.write(lambda connection: connection.execute("update jobs set priority = priority + 1"))
        answers.append(store.checkpoint(50)[0])
        return answer

    monkeypatch.setattr(store, "read", between)
    return answers


def test_errors_of_many_items_are_grouped_page_by_page(store, rows, monkeypatch, emptied):
    monkeypatch.setattr(details, "FAILED_PAGE", 4)
    job_id = rows.job(["failed"] * 10, status="failed")
    rows.change("update job_items set error = 'e' || (id % 3), completed_at = ? + id", NOW)
    emptied.clear()
    found = reads.errors(store, job_id, keys=2)
    assert [(group.error, group.count) for group in found] == [("e1", 4), ("e2", 3), ("e0", 3)]
    assert found[0].keys == ("key-00000", "key-00003")
    assert (found[0].first_at, found[0].last_at) == (NOW + 1, NOW + 10)
    assert len(emptied) >= 3
    assert set(emptied) == {0}


def test_attempts_of_many_items_are_counted_page_by_page(store, rows, monkeypatch, emptied):
    monkeypatch.setattr(figures, "_PAGE", 3)
    job_id = rows.job(["completed"] * 10, status="completed")
    rows.change("update job_items set attempt = 1 + id % 3")
    emptied.clear()
    assert reads.attempts(store, job_id) == {2: 4, 3: 3}
    assert len(emptied) >= 4
    assert set(emptied) == {0}


@pytest.mark.parametrize("size", [10, 40])
def test_durations_of_many_items_are_those_of_the_newest(store, rows, monkeypatch, size):
    """Ten of them took a second and more; whatever came before them is not looked at."""
    monkeypatch.setattr(figures, "SAMPLE", 10)
    job_id = rows.job(["completed"] * size + ["running"] + ["queued"] * 5, status="running")
    rows.change("update job_items set completed_at = started_at + 1000 + id where status = 'completed'")
    first = max(1, size - 9)
    rows.change("update job_items set completed_at = started_at where id < ?", first)
    assert reads.durations(store, job_id) == (1_000 + first + 5, 1_000 + first + 9)
