"""The same key again: known items stay, new ones are added, changed ones are said."""

from __future__ import annotations

import json
import os

import pytest

from jobd.errors import ChangedInput, Conflict, DuplicateKeys
from jobd.process import myself
from jobd.store import chunks
from jobd.store.invariants import check
from jobd.store.submit import Submission, submit

NOW = 1_795_305_600_000
LATER = NOW + 60_000
ENDS = ["completed", "failed", "skipped", "cancelled"]
OPEN = ["queued", "running", "waiting"]


@pytest.fixture(params=[2_000, 3], ids=["whole", "spooled"])
def chunk(request, monkeypatch):
    """Both ways that an addition goes: in one transaction, and spooled for chunks of three."""
    monkeypatch.setattr(chunks, "CHUNK", request.param)
    return request.param


@pytest.fixture
def wakes(store):
    heard = []
    store.wake = lambda: heard.append(store.connection().in_transaction)
    return heard


def pairs(*names, payload="null"):
    return [(name, payload) for name in names]


def keyed(rows, statuses, **columns):
    """Add a job under the key "k", with items key-00000 and so on, as its statuses say."""
    job_id = rows.job(statuses, key="k", **columns)
    for item_id, status in zip(rows.ids(job_id), statuses, strict=True):
        if status == "completed":
            rows.change(
                "insert into results (item_id, attempt, task, key, value, created_at) values (?, 1, 'work', ?, ?, ?)",
                item_id, f"key-{item_id - 1:05}", f'"result {item_id}"', NOW,
            )  # fmt: skip
            rows.change("insert into result_data (item_id, attempt, data) values (?, 1, x'00')", item_id)
            rows.change("insert into item_output (item_id, attempt, text) values (?, 1, 'out')", item_id)
    assert rows.one("select count(*) from jobs") == 1
    return job_id


def again(store, items, *, now=LATER, **fields):
    return submit(store, Submission("work", key="k", **fields), items, now=now, actor="test")


def names(count):
    return [f"key-{number:05}" for number in range(count)]


def dump(store):
    return list(store.connection().iterdump())


def spool_is_gone(store):
    return store.connection().execute("select count(*) from sqlite_temp_master").fetchone()[0] == 0


# -- known and new ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "completed", "failed", "cancelled"])
def test_the_same_input_again_changes_nothing(store, rows, chunk, wakes, status):
    job_id = keyed(rows, [status] * 8, status=status)
    before = dump(store)
    assert again(store, pairs(*names(8))) == (job_id, status, False, 0, 8, 0, 0, 8)
    assert dump(store) == before
    assert wakes == []
    assert spool_is_gone(store)


def test_new_items_are_added_to_an_open_job_beside_every_status(store, rows, chunk, wakes):
    job_id = keyed(rows, [*OPEN, *ENDS], status="running", started_at=NOW)
    before = rows.all("select * from job_items order by id")
    answer = again(store, pairs(*names(7), "new 1", "new 2"))
    assert answer == (job_id, "running", False, 2, 7, 0, 0, 9)
    assert rows.all("select * from job_items order by id")[:7] == before
    assert rows.items(job_id)[7:] == ["queued", "queued"]
    assert rows.events(job_id) == []
    assert rows.one("select sealed_at from jobs") == NOW, "never submitting again"
    assert wakes == [False]
    rows.assert_sound(job_id)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_new_items_reopen_a_job_that_ended(store, rows, chunk, status):
    job_id = keyed(
        rows, [status] * 5, status=status, started_at=NOW, status_message="by request", last_error="no", retry_count=2,
        cancel_requested_at=NOW, fail_requested_at=NOW,
    )  # fmt: skip
    answer = again(store, pairs(*names(5), "new"))
    assert answer == (job_id, "queued", False, 1, 5, 0, 0, 6)
    cleared = "completed_at, timeout_at, status_message, last_error, cancel_requested_at, fail_requested_at"
    assert rows.one(f"select {cleared} from jobs") == (None,) * 6
    assert rows.one("select started_at, retry_count, status_updated_at from jobs") == (NOW, 0, LATER)
    assert rows.events(job_id) == [("reopen", status, "queued", None)]
    assert rows.one("select message from job_events where name='reopen'") == "1 items added"
    assert rows.items(job_id) == [status] * 5 + ["queued"]
    rows.assert_sound(job_id)


def test_only_new_items_need_not_name_the_known_ones(store, rows, chunk):
    keyed(rows, ["completed"] * 2, status="completed")
    assert again(store, pairs("new 1", "new 2", "new 3", "new 4"))[3:] == (4, 0, 0, 0, 6)


def test_nothing_again_changes_nothing(store, rows, wakes):
    job_id = keyed(rows, ["completed"], status="completed")
    before = dump(store)
    assert again(store, []) == (job_id, "completed", False, 0, 0, 0, 0, 1)
    assert dump(store) == before


def test_an_equal_payload_may_be_spelled_otherwise(store, rows, chunk):
    keyed(rows, ["completed"] * 4, status="completed", params='{"a":1,"b":2}')
    rows.change("""update job_items set payload='{"a":1,"b":[2]}'""")
    before = dump(store)
    answer = again(store, pairs(*names(4), payload='{"b":[2],"a":1}'), params='{"b":2,"a":1}')
    assert (answer.known, answer.changed) == (4, 0)
    assert dump(store) == before


def test_the_same_key_of_another_task_is_another_job(store, rows):
    keyed(rows, ["completed"], status="completed")
    answer = submit(store, Submission("other", key="k"), pairs("a"), now=NOW, actor="test")
    assert answer.created


def test_a_key_twice_in_one_input_is_refused_or_skipped_against_a_known_job_too(store, rows, chunk, wakes):
    keyed(rows, ["completed"] * 2, status="completed")
    before = dump(store)
    items = pairs("key-00000", "a", "b", "c", "a", "d", "key-00000")
    with pytest.raises(DuplicateKeys) as caught:
        again(store, items)
    assert sorted(caught.value.keys) == ["a", "key-00000"]
    assert dump(store) == before
    assert spool_is_gone(store)
    assert again(store, items, duplicates="skip")[3:] == (4, 1, 0, 2, 6)


def test_an_input_that_fails_midway_adds_nothing(store, rows, chunk, wakes):
    keyed(rows, ["completed"] * 2, status="completed")
    before = dump(store)

    def items():
        yield from pairs("a", "b", "c", "d", "e", "f", "g")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(store, items())
    assert dump(store) == before
    assert spool_is_gone(store)
    assert wakes == []


class Killed(BaseException):
    """Stands for a SIGKILL between two commits."""


def test_killed_midway_the_same_call_adds_the_rest(store, rows, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 3)
    job_id = keyed(rows, ["completed"] * 2, status="completed")
    items = pairs(*names(2), *(f"new {number}" for number in range(9)))
    with pytest.raises(Killed):
        submit(store, Submission("work", key="k"), items, now=LATER, actor="test", progress=raise_after(5))
    rows.assert_sound(job_id)
    assert rows.one("select sealed_at from jobs") == NOW
    added = rows.one("select items_total from jobs") - 2
    assert 0 < added < 9
    assert again(store, items) == (job_id, "queued", False, 9 - added, 2 + added, 0, 0, 11)
    assert rows.events(job_id) == [("reopen", "completed", "queued", None)], "once"
    rows.assert_sound(job_id)


def raise_after(count):
    def progress(stored):
        if stored > count:
            raise Killed

    return progress


def test_progress_is_told_what_the_job_has_of_the_input(store, rows, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 3)
    keyed(rows, ["completed"] * 2, status="completed")
    heard = []
    items = pairs(*names(2), "a", "b", "c")
    submit(store, Submission("work", key="k"), items, now=LATER, actor="test", progress=heard.append)
    assert heard == [3, 5]


# -- what has changed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "completed"])
def test_a_changed_payload_is_said_and_nothing_is_written(store, rows, chunk, wakes, status):
    job_id = keyed(rows, [status] * 30, status=status)
    before = dump(store)
    items = [("new", "null"), *pairs(*names(5)), *pairs(*names(30)[5:], payload="1")]
    with pytest.raises(ChangedInput) as caught:
        again(store, items)
    assert caught.value.job_id == job_id
    assert caught.value.keys == tuple(names(30)[5:25]), "the first twenty"
    assert dump(store) == before
    assert wakes == []
    assert spool_is_gone(store)


def test_changed_params_are_said_and_nothing_is_written(store, rows, chunk):
    keyed(rows, ["completed"] * 5, status="completed")
    before = dump(store)
    with pytest.raises(ChangedInput, match="other params"):
        again(store, pairs(*names(5), "new"), params="1")
    assert dump(store) == before


def test_keep_leaves_what_has_changed_and_adds_what_is_new(store, rows, chunk):
    job_id = keyed(rows, ["completed", "queued", "running", "failed"], status="running", params="0")
    before = rows.all("select * from job_items order by id")
    answer = again(store, pairs(*names(4), "new", payload="1"), changed="keep", params="1")
    assert answer == (job_id, "running", False, 1, 4, 4, 0, 5)
    assert rows.all("select * from job_items order by id")[:4] == before
    assert rows.one("select params from jobs") == "0"
    rows.assert_sound(job_id)


def test_keep_alone_neither_writes_nor_wakes(store, rows, chunk, wakes):
    keyed(rows, ["completed"] * 5, status="completed")
    before = dump(store)
    assert again(store, pairs(*names(5), payload="1"), changed="keep").changed == 5
    assert dump(store) == before
    assert wakes == []


@pytest.mark.parametrize("status", ENDS)
def test_requeue_runs_an_item_with_a_changed_payload_again(store, rows, chunk, wakes, status):
    ended = "failed" if status == "failed" else "completed"
    job_id = keyed(rows, [status] * 5, status=ended, tolerance="9", last_error="no")
    rows.change(
        "update job_items set attempt=3, failures=2, interruptions=1, lone_deaths=1, available_at=5, deadline_at=6,"
        " progress='[1,2,null]', intent='i', external_id='x', daemon_id=1"
    )
    answer = again(store, [*pairs(*names(4)), ("key-00004", '{"n":1}')], changed="requeue")
    assert answer == (job_id, "queued", False, 0, 5, 1, 0, 5)
    assert rows.items(job_id) == [status] * 4 + ["queued"]
    blank = (
        "payload, attempt, failures, interruptions, lone_deaths, available_at, deadline_at, progress, intent,"
        " external_id, daemon_id, started_at, completed_at, error_type, error"
    )
    assert rows.one(f"select {blank} from job_items where key='key-00004'") == ('{"n":1}', 3, *[0] * 4, *[None] * 9)
    assert rows.one("select last_error from jobs") is None
    assert rows.events(job_id) == [("reopen", ended, "queued", None)]
    assert wakes == [False]
    rows.assert_sound(job_id)


def test_requeue_deletes_what_the_item_left_and_keeps_its_value_in_an_event(store, rows, chunk):
    job_id = keyed(rows, ["completed"] * 4 + ["failed"], status="completed", tolerance="9")
    again(store, [*pairs(*names(3)), *pairs("key-00003", "key-00004", payload="1")], changed="requeue")
    kept = rows.ids(job_id)[:3]
    for table in ("results", "result_data", "item_output"):
        assert [row[0] for row in rows.all(f"select item_id from {table} order by 1")] == kept
    events = "select item_id, name, from_status, to_status, at, actor, attempt, message from job_events"
    assert rows.all(f"{events} where item_id is not null order by item_id") == [
        (4, "requeue", "completed", "queued", LATER, "test", 1, 'payload changed; the result was "result 4"'),
        (5, "requeue", "failed", "queued", LATER, "test", 1, "payload changed; the error was ValueError: no"),
    ]
    rows.assert_sound(job_id)


def test_a_queued_item_just_gets_its_new_payload(store, rows, chunk):
    job_id = keyed(rows, ["queued"] * 4, status="running", started_at=NOW)
    rows.change("update job_items set attempt=1, failures=1, available_at=7")
    answer = again(store, [*pairs(*names(3)), ("key-00003", "1")], changed="requeue")
    assert answer == (job_id, "running", False, 0, 4, 1, 0, 4)
    found = rows.one("select payload, status, attempt, failures, available_at from job_items where key='key-00003'")
    assert found == ("1", "queued", 1, 1, 7)
    assert rows.one("select count(*) from job_events where item_id is not null") == 0
    rows.assert_sound(job_id)


@pytest.mark.parametrize("status", ["running", "waiting"])
@pytest.mark.parametrize("changed", ["payload", "params"])
def test_an_item_that_runs_with_a_changed_input_is_a_conflict_and_nothing_is_written(
    store, rows, chunk, status, changed
):
    keyed(rows, ["completed", "queued", "queued", "queued", status], status="running")
    before = dump(store)
    items = pairs("new", *names(5), payload="1" if changed == "payload" else "null")
    with pytest.raises(Conflict, match=r"run with|that run.*key-00004") as caught:
        again(store, items, changed="requeue", params="1" if changed == "params" else "null")
    assert not isinstance(caught.value, ChangedInput)
    assert "key-00000" not in str(caught.value)
    assert dump(store) == before


def test_changed_params_run_every_item_of_the_input_again(store, rows, chunk):
    job_id = keyed(rows, ["completed"] * 6 + ["queued"], status="running", params="0")
    answer = again(store, pairs(*names(7)[1:]), changed="requeue", params="1")
    assert answer == (job_id, "running", False, 0, 6, 6, 0, 7)
    assert rows.items(job_id) == ["completed"] + ["queued"] * 6
    assert rows.one("select params from jobs") == "1"
    assert rows.one("select message from job_events where item_id=2") == 'params changed; the result was "result 2"'
    rows.assert_sound(job_id)


def test_changed_params_and_the_items_that_they_run_again_are_one_transaction(store, rows, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 3)
    keyed(rows, ["completed"] * 9, status="completed", params="0")
    seen, write = [], store.write

    def watched(work, **kwargs):
        answer = write(work, **kwargs)
        if not store.in_transaction(store.connection()):
            seen.append(rows.one("select params, (select count(*) from job_items where status='queued') from jobs"))
        return answer

    store.write = store.share = watched
    again(store, pairs(*names(9)), changed="requeue", params="1")
    assert set(seen) == {("0", 0), ("1", 9)}


# -- jobs that take nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["cancel_requested_at", "fail_requested_at"])
def test_nothing_can_be_added_under_a_request(store, rows, chunk, column):
    keyed(rows, ["queued", "running"], status="running", **{column: NOW})
    before = dump(store)
    with pytest.raises(Conflict, match=r"job 1 is being (cancelled|failed)"):
        again(store, pairs("a", "b", "c", "d"))
    assert dump(store) == before
    assert spool_is_gone(store)


def test_a_job_that_is_deleted_between_finding_and_adding_is_a_conflict(store, rows, chunk):
    keyed(rows, ["completed"] * 2, status="completed")
    write = store.write

    def write_and_delete(work, **kwargs):
        answer = write(work, **kwargs)
        store.write = store.share = write
        rows.change("update jobs set deleted_at=?, key=null", NOW)
        return answer

    store.write = store.share = write_and_delete
    with pytest.raises(Conflict, match="job 1 is being deleted"):
        again(store, pairs("a", "b", "c", "d"))
    assert rows.one("select items_total from jobs") == 2


def test_a_live_submitter_keeps_its_key_and_is_named(store, rows):
    keyed(rows, ["queued"], sealed_at=None, submitter=myself().dumps())
    before = dump(store)
    with pytest.raises(Conflict, match=f"process {os.getpid()} on"):
        again(store, pairs("a"))
    assert dump(store) == before


@pytest.mark.parametrize("submitter", [myself()._replace(host="elsewhere").dumps(), "?", None])
def test_a_submitter_that_cannot_be_judged_from_here_counts_as_alive(store, rows, submitter):
    keyed(rows, ["queued"], sealed_at=None, submitter=submitter)
    with pytest.raises(Conflict, match="is being submitted"):
        again(store, pairs("a"))


@pytest.mark.parametrize(
    "submitter",
    [myself()._replace(boot="another"), myself()._replace(started_at=1), myself()._replace(pid=2**22 + 1)],
    ids=["another boot", "a reused pid", "no such pid"],
)
def test_the_key_of_a_dead_submitter_is_taken_over(store, rows, chunk, submitter):
    keyed(rows, ["queued"] * 7, sealed_at=None, submitter=submitter.dumps())
    answer = again(store, pairs("a", "b", "c", "d"))
    assert answer == (2, "queued", True, 4, 0, 0, 0, 4)
    assert rows.all("select id from jobs") == [(2,)]
    assert rows.one("select count(*) from job_items") == 4
    assert check(store) == []


def test_results_of_a_mebibyte_pass_through_no_memory(store, rows, monkeypatch):
    job_id = keyed(rows, ["completed"] * 3, status="completed")
    rows.change("update results set value=?", json.dumps("x" * 1_000_000))
    gather = store.gather
    monkeypatch.setattr(store, "gather", lambda *args: [r for r in gather(*args) if len(str(r)) < 1_000])
    again(store, pairs(*names(3), payload="1"), changed="requeue")
    sizes = rows.all("select length(message) from job_events where item_id is not null")
    assert [size > 1_000_000 for (size,) in sizes] == [True] * 3
    rows.assert_sound(job_id)
