"""deliver: a result from outside, whatever its item is by then; and what the item's own attempt says after it."""

from __future__ import annotations

import json
import threading

import pytest
from kit.rows import NOW

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.store.deliver import deliver, deliver_failure
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle

LATER = NOW + 5_000
VALUE = '{"sha256":"abc"}'
OPEN = ["running", "waiting", "queued"]
UNIQUE = '{"unique": "day", "zone": "UTC"}'


@pytest.fixture(autouse=True)
def true_rows(store, rows):
    """Afterwards every rule holds, but that rows were never submitted."""
    yield
    assert [broken for broken in check(store) if broken.name != "job_events"] == []
    for (job_id,) in rows.all("select id from jobs where sealed_at is not null and deleted_at is null"):
        rows.assert_sound(job_id)


@pytest.fixture
def one(rows):
    """Add a job of one item of this status and return the item's id."""

    def add(status, **columns):
        job = "running" if status in OPEN else "completed" if status == "skipped" else status
        failed = {"last_error": "ValueError: no"} if status == "failed" else {}
        (item,) = rows.ids(rows.job([status], status=job, **failed | columns))
        rows.change("update job_items set attempt=1, external_id='vendor-42' where id=?", item)
        return item

    return add


@pytest.fixture
def bring(store):
    return lambda item, value=VALUE: deliver(store, item, value, now=LATER, actor="test")


@pytest.fixture
def fail(store):
    return lambda item, reason="the vendor gave up": deliver_failure(store, item, reason, now=LATER, actor="test")


def result(rows, columns="attempt, status, source, value"):
    return rows.one(f"select {columns} from results")


def event(rows):
    columns = "name, from_status, to_status, attempt, external_id, message"
    return rows.one(f"select {columns} from job_events where item_id is not null")


# -- a value ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", OPEN)
def test_what_is_open_completes_at_once_and_so_does_its_job(one, bring, rows, status):
    item = one(status)
    rows.change("update job_items set deadline_at=?, available_at=?", LATER, LATER if status == "queued" else 0)
    assert bring(item) is True
    columns = "status, completed_at, error, error_type, deadline_at, available_at"
    assert rows.one(f"select {columns} from job_items") == ("completed", LATER, None, None, None, 0)
    assert result(rows) == (1, "completed", "outside", VALUE)
    assert event(rows) == ("complete", status, "completed", 1, "vendor-42", "delivered from outside")
    assert rows.one("select status, completed_at, progress_at from jobs") == ("completed", LATER, LATER)


def test_what_never_started_completes_as_well(one, bring, rows):
    item = one("queued")
    rows.change("update jobs set status='queued'")
    rows.change("update job_events set to_status='queued'")
    rows.change("update job_items set attempt=0")
    assert bring(item) is True
    assert rows.one("select status, attempt, started_at from job_items") == ("completed", 0, None)
    assert result(rows, "attempt") == 0


def test_what_had_failed_is_reconciled_and_its_job_with_it(one, bring, rows):
    item = one("failed")
    assert bring(item) is True
    assert rows.one("select status, error, error_type from job_items") == ("completed", None, None)
    assert event(rows)[:3] == ("reconcile", "failed", "completed")
    assert rows.one("select status, last_error from jobs") == ("completed", None)


def test_an_item_of_a_job_that_was_cancelled_completes_and_the_job_stays(rows, bring):
    job_id = rows.job(["failed", "cancelled"], status="cancelled", cancel_requested_at=NOW)
    assert bring(rows.ids(job_id)[0]) is True
    assert rows.items(job_id) == ["completed", "cancelled"]
    assert rows.one("select status from jobs") == "cancelled"


@pytest.mark.parametrize("again", [VALUE, ' {"sha256" : "abc"}'])
def test_the_same_result_once_more_changes_nothing_and_says_so(one, bring, rows, again):
    item = one("waiting")
    bring(item)
    before = [rows.all(f"select * from {table}") for table in ("jobs", "job_items", "results", "job_events")]
    assert bring(item, again) is False
    assert [rows.all(f"select * from {table}") for table in ("jobs", "job_items", "results", "job_events")] == before


@pytest.mark.parametrize(
    ("first", "other"), [(VALUE, '"x"'), ("1", "true"), ("0", "false"), ("null", "0"), ("1", "1.0")]
)
def test_another_result_is_a_conflict(one, bring, rows, first, other):
    item = one("waiting")
    bring(item, first)
    with pytest.raises(Conflict, match=f"item {item} has another result") as refusal:
        bring(item, other)
    assert refusal.value.exit_code == 4
    assert result(rows, "value") == first


def test_a_result_whose_value_was_pruned_is_equal_to_none(one, bring, rows):
    item = one("waiting")
    bring(item)
    rows.change("update results set value=null, pruned_at=?", LATER)
    with pytest.raises(Conflict, match="was pruned"):
        bring(item)


def test_a_stored_value_too_deep_to_be_read_is_compared_as_text(one, bring, rows):
    deep = "[" * 20_000 + "]" * 20_000
    item = one("waiting")
    bring(item)
    rows.change("update results set value=?", deep)
    assert bring(item, deep) is False
    with pytest.raises(Conflict):
        bring(item)
    rows.change("update results set value='1'")


@pytest.mark.parametrize("status", ["cancelled", "skipped"])
def test_what_was_cancelled_or_skipped_refuses(one, bring, fail, rows, status):
    item = one(status)
    for give in (bring, fail):
        with pytest.raises(IllegalTransition, match=f"item {item} is {status}") as refusal:
            give(item)
        assert refusal.value.exit_code == 4
    assert rows.one("select count(*) from results") == 0


@pytest.mark.parametrize(
    ("column", "words"), [("sealed_at=null", "is being submitted"), ("deleted_at=1", "is being deleted")]
)
def test_a_job_that_is_being_submitted_or_deleted_refuses(one, bring, fail, rows, column, words):
    item = one("waiting")
    rows.change(f"update jobs set {column}")
    for give in (bring, fail):
        with pytest.raises(Conflict, match=words):
            give(item)


def test_an_item_that_is_not_there_refuses(bring, fail):
    for give in (bring, fail):
        with pytest.raises(NotFound, match="there is no item 77"):
            give(77)


# -- a failure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", OPEN)
def test_a_failure_fails_what_is_open_for_its_reason(one, fail, rows, status):
    item = one(status)
    assert fail(item) is True
    assert rows.one("select status, error, error_type, completed_at from job_items") == (
        "failed", "the vendor gave up", None, LATER,
    )  # fmt: skip
    assert result(rows) == (1, "failed", "outside", '"the vendor gave up"')
    assert event(rows)[:4] == ("reconcile" if status == "queued" else "fail", status, "failed", 1)
    assert rows.one("select status, last_error from jobs") == ("failed", "the vendor gave up")


def test_what_had_failed_says_the_outsides_reason_with_an_event(one, fail, rows):
    item = one("failed")
    assert fail(item) is True
    assert rows.one("select status, error, error_type, completed_at from job_items") == (
        "failed", "the vendor gave up", None, NOW,
    )  # fmt: skip
    assert event(rows) == ("deliver", "failed", "failed", 1, "vendor-42", "the vendor gave up")
    assert rows.one("select status, last_error from jobs") == ("failed", "the vendor gave up")


def test_the_same_failure_once_more_changes_nothing_and_another_is_a_conflict(one, fail, rows):
    item = one("waiting")
    fail(item)
    assert fail(item) is False
    with pytest.raises(Conflict, match="has another result"):
        fail(item, "another")
    assert len(rows.item_events()) == 1


def test_a_failure_that_comes_after_a_result_is_a_conflict(one, bring, fail):
    item = one("waiting")
    bring(item)
    with pytest.raises(Conflict, match="has a result that says completed"):
        fail(item)


def test_a_result_that_comes_after_a_failure_heals_it(one, bring, fail, rows):
    item = one("waiting")
    fail(item)
    assert bring(item) is True
    assert rows.one("select status, error from job_items") == ("completed", None)
    assert rows.one("select status, last_error from jobs") == ("completed", None)
    assert result(rows) == (1, "completed", "outside", VALUE)


# -- what the attempt has saved, and what it says later ---------------------------------------------------------------


def test_what_a_handler_has_saved_is_delivered_as_that_and_completes_the_item(one, bring, rows):
    item = one("running")
    rows.result(item, value=VALUE)
    assert bring(item) is True
    assert rows.one("select status from job_items") == "completed"
    assert result(rows, "source") == "handler"


def test_what_a_handler_has_saved_is_not_overwritten(one, bring, fail, rows):
    item = one("running")
    rows.result(item, value='"mine"')
    with pytest.raises(Conflict, match="has another result"):
        bring(item)
    with pytest.raises(Conflict, match="has a result that says completed"):
        fail(item)
    assert rows.one("select status from job_items") == "running"


def test_the_result_of_an_earlier_attempt_makes_way(one, bring, rows):
    item = one("running")
    rows.result(item, attempt=7)
    assert bring(item) is True
    assert result(rows) == (1, "completed", "outside", VALUE)


@pytest.mark.parametrize(
    ("kind", "value"), [("completed", VALUE), ("completed", '"other"'), ("failed", None), ("skipped", None)]
)
def test_the_attempts_own_answer_is_refused_with_an_event(one, bring, store, rows, kind, value):
    item = one("running")
    bring(item)
    settled = _settle(store, rows, item, kind, value)
    assert (len(settled.late), settled.applied, settled.replayed) == (1, [], [])
    assert rows.item_events() == ["complete", "late"]
    assert result(rows) == (1, "completed", "outside", VALUE)


@pytest.mark.parametrize(("kind", "value"), [("completed", VALUE), ("failed", None)])
def test_the_attempts_own_answer_after_a_failure_is_refused_with_an_event(one, fail, store, rows, kind, value):
    item = one("running")
    fail(item)
    assert len(_settle(store, rows, item, kind, value).late) == 1
    assert rows.item_events() == ["fail", "late"]
    assert rows.one("select status, error from job_items") == ("failed", "the vendor gave up")


@pytest.mark.parametrize(
    ("saved", "value", "replayed"),
    [(False, VALUE, True), (False, None, False), (True, None, True), (True, VALUE, True), (True, '"later"', False)],
)
def test_an_answer_whose_commit_was_not_heard_of_is_replayed_and_no_other(one, store, rows, saved, value, replayed):
    item = one("running")
    _settle(store, rows, item, "completed", VALUE)
    settled = _settle(store, rows, item, "completed", value, saved=saved)
    assert (len(settled.replayed), len(settled.late)) == ((1, 0) if replayed else (0, 1))


def _settle(store, rows, item, kind, value, *, saved=False):
    job_id, attempt, key = rows.one("select job_id, attempt, key from job_items where id=?", item)
    outcome = Outcome(item, job_id, attempt, "work", key, kind, NOW, LATER, value, "ValueError", "no", saved=saved)
    return store.write(lambda connection: settle(store, connection, [outcome], now=LATER, actor="test"))


# -- the period of a unique task --------------------------------------------------------------------------------------


@pytest.fixture
def taken(rows):
    """Another job's result has the key's day."""
    (older,) = rows.ids(rows.job(["completed"], status="completed"))
    rows.result(older, period="2026-11-22")
    return older


@pytest.mark.parametrize("status", OPEN)
def test_who_lost_its_day_is_skipped_with_the_reason_and_nothing_is_stored(taken, one, bring, rows, status):
    item = one(status, policy=UNIQUE)
    assert bring(item) is True
    reason = f"its day 2026-11-22 is taken by 1:#{taken}"
    columns = "status, error_type, error, completed_at"
    assert rows.one(f"select {columns} from job_items where id=?", item) == ("skipped", "Skip", reason, LATER)
    assert rows.one("select count(*) from results where item_id=?", item) == 0
    assert event(rows)[0::5] == ("skip", f"Skip: {reason}")
    assert rows.one("select status from jobs where id=2") == "completed"


def test_who_lost_its_day_and_had_failed_stays_so(taken, one, bring, rows):
    item = one("failed", policy=UNIQUE)
    with pytest.raises(Conflict, match="its day 2026-11-22 is taken"):
        bring(item)
    assert rows.one("select count(*) from results where item_id=?", item) == 0


@pytest.mark.parametrize("status", [*OPEN, "failed"])
def test_who_has_its_day_keeps_it_with_the_result(one, bring, rows, status):
    bring(one(status, policy=UNIQUE))
    assert result(rows, "period") == "2026-11-22"


def test_a_failure_claims_no_day_and_a_result_after_it_does(one, bring, fail, rows):
    item = one("waiting", policy=UNIQUE)
    fail(item)
    assert result(rows, "period") is None
    bring(item)
    assert result(rows, "period") == "2026-11-22"


# -- rivals -----------------------------------------------------------------------------------------------------------


def test_of_two_who_deliver_at_once_one_is_told_that_it_was_known(one, store, rows):
    item = one("waiting")
    answers, barrier = [], threading.Barrier(2)

    def give():
        barrier.wait(20)
        answers.append(deliver(store, item, VALUE, now=LATER, actor="test"))
        store.close()

    threads = [threading.Thread(target=give) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [False, True]
    assert rows.item_events() == ["complete"]
    assert json.loads(result(rows, "value")) == {"sha256": "abc"}


def test_whoever_delivers_wakes_the_daemon_and_whoever_repeats_does_not(one, bring, store, monkeypatch):
    rung = []
    monkeypatch.setattr(store, "wake", lambda: rung.append(True))
    item = one("waiting")
    bring(item)
    bring(item)
    assert rung == [True]
