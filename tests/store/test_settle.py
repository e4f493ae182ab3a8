"""An outcome is written once and whole, or not at all; a bad one among many does not keep the others out."""

from __future__ import annotations

import pytest

from jobd.store.base import Permanent
from jobd.store.settle import RELEASED, STOPPED, Outcome, settle

NOW = 1_795_305_600_000
LATER = NOW + 1_000
MANY = 500


def outcome(rows, item_id, kind="completed", **fields):
    job_id, key, attempt = rows.one("select job_id, key, attempt from job_items where id=?", item_id)
    values = {"value": "1"} if kind == "completed" else {"error_type": "E", "error": "no"}
    if kind in {RELEASED, STOPPED}:
        values = {}
    return Outcome(item_id, job_id, attempt, "work", key, kind, NOW, LATER, **{**values, **fields})


def settled(store, *outcomes):
    return store.write(lambda connection: settle(store, connection, outcomes, now=LATER, actor="daemon 1"))


def refuse(rows, table, when="1"):
    """Let the database refuse rows, as a constraint would."""
    rows.change(
        f"create trigger refuse before insert on {table} when {when} begin select raise(abort, 'refused here'); end"
    )


# -- one transaction --------------------------------------------------------------------------------------------------


def test_without_its_result_an_item_is_not_completed(store, rows):
    job_id = rows.job(["running"], status="running")
    refuse(rows, "results")
    answer = settled(store, outcome(rows, rows.ids(job_id)[0]))
    assert rows.items(job_id) == ["failed"]
    assert rows.one("select error from job_items") == "cannot be stored: refused here"
    assert rows.one("select count(*) from results") == 0
    assert [one.kind for one in answer.applied] == ["failed"]
    assert [end.status for end in answer.ended] == ["failed"]
    rows.assert_sound(job_id)


def test_without_its_event_an_item_does_not_fail(store, rows):
    job_id = rows.job(["running"], status="running")
    refuse(rows, "job_events")
    given = outcome(rows, rows.ids(job_id)[0], "failed")
    assert settled(store, given).unstorable == [given]
    assert rows.items(job_id) == ["running"]
    rows.assert_sound(job_id)


def test_without_its_counter_nothing_is_settled(store, rows):
    job_id = rows.job(["running", "running"], status="running", items_running=1)
    outcomes = [outcome(rows, item_id) for item_id in rows.ids(job_id)]
    answer = settled(store, *outcomes)
    assert (answer.applied, answer.unstorable) == (outcomes[:1], outcomes[1:])
    assert rows.items(job_id) == ["completed", "running"]
    assert rows.one("select items_running, items_completed from jobs") == (0, 1)


def test_without_its_end_the_last_item_of_a_job_is_not_settled(store, rows):
    job_id = rows.job(["running"], status="running")
    refuse(rows, "job_events", "new.to_status = 'completed'")
    with pytest.raises(Permanent):
        settled(store, outcome(rows, rows.ids(job_id)[0]))
    assert rows.items(job_id) == ["running"]
    rows.assert_sound(job_id)


# -- one bad among many -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [("refuse me", "refused here"), ('"\ud800"', "surrogates not allowed")],
    ids=["constraint", "surrogate"],
)
def test_of_one_bad_outcome_among_many_all_others_commit_in_the_same_pass(store, rows, value, reason):
    job_id = rows.job(["running"] * MANY, status="running")
    refuse(rows, "results", "new.value = 'refuse me'")
    outcomes = [outcome(rows, item_id) for item_id in rows.ids(job_id)]
    outcomes[MANY // 2] = outcomes[MANY // 2]._replace(value=value)
    answer = settled(store, *outcomes)
    assert len(answer.applied) == MANY
    assert rows.items(job_id) == ["completed"] * (MANY // 2) + ["failed"] + ["completed"] * (MANY // 2 - 1)
    error = rows.one("select error from job_items where status='failed'")
    assert error.startswith("cannot be stored: ")
    assert reason in error
    rows.assert_sound(job_id)


def test_what_cannot_even_fail_is_named_and_keeps_its_row_and_all_others_commit(store, rows):
    job_id = rows.job(["running"] * MANY, status="running")
    outcomes = [outcome(rows, item_id) for item_id in rows.ids(job_id)]
    culprit = outcomes[3] = outcomes[3]._replace(kind="failed", error="refuse me")
    refuse(rows, "job_events", f"new.item_id = {culprit.item_id}")
    answer = settled(store, *outcomes)
    assert answer.unstorable == [culprit]
    assert rows.items(job_id) == ["completed"] * 3 + ["running"] + ["completed"] * (MANY - 4)
    rows.assert_sound(job_id)


def test_of_one_late_outcome_among_many_all_others_commit_and_it_leaves_an_event(store, rows):
    job_id = rows.job(["running"] * 20, status="running")
    outcomes = [outcome(rows, item_id) for item_id in rows.ids(job_id)]
    rows.change("update job_items set attempt=2 where id=?", outcomes[7].item_id)
    answer = settled(store, *outcomes)
    assert answer.late == [outcomes[7]]
    assert rows.items(job_id) == ["completed"] * 7 + ["running"] + ["completed"] * 12
    assert rows.all("select item_id, name, from_status, to_status, attempt from job_events where item_id > 0") == [
        (outcomes[7].item_id, "late", "running", "running", 1)
    ]
    assert rows.all("select 1 from results where item_id=?", outcomes[7].item_id) == []
    rows.assert_sound(job_id)


@pytest.mark.parametrize("kind", ["completed", "failed", "skipped"])
def test_a_batch_that_is_settled_twice_changes_nothing_the_second_time(store, rows, kind):
    job_id = rows.job(["running"] * 10, status="running")
    outcomes = [outcome(rows, item_id, kind) for item_id in rows.ids(job_id)]
    settled(store, *outcomes)
    tables = ("jobs", "job_items", "results", "job_events")
    before = [rows.all(f"select * from {table}") for table in tables]
    assert settled(store, *outcomes).replayed == outcomes
    assert [rows.all(f"select * from {table}") for table in tables] == before
    rows.assert_sound(job_id)


def test_one_outcome_twice_in_a_batch_counts_once(store, rows):
    job_id = rows.job(["running", "running"], status="running")
    first, second = (outcome(rows, item_id) for item_id in rows.ids(job_id))
    answer = settled(store, first, second, first)
    assert (answer.applied, answer.replayed) == ([first, second], [first])
    rows.assert_sound(job_id)


# -- what never began, and what was under way -------------------------------------------------------------------------


def test_what_never_began_goes_back_without_a_trace(store, rows):
    job_id = rows.job(["running", "running"], status="running")
    given = [outcome(rows, item_id, RELEASED) for item_id in rows.ids(job_id)]
    assert settled(store, *given).applied == given
    assert rows.all("select status, attempt, started_at, daemon_id from job_items") == [("queued", 0, None, None)] * 2
    assert rows.all("select 1 from job_events where item_id > 0") == []
    rows.assert_sound(job_id)


def test_what_was_under_way_goes_back_with_an_event_and_keeps_its_attempt(store, rows):
    job_id = rows.job(["running"], status="running")
    settled(store, outcome(rows, rows.ids(job_id)[0], STOPPED, error="the daemon stopped"))
    assert rows.one("select status, attempt from job_items") == ("queued", 1)
    assert rows.one("select name, message from job_events where item_id > 0") == ("release", "the daemon stopped")
    rows.assert_sound(job_id)


@pytest.mark.parametrize("kind", [RELEASED, STOPPED, "cancelled"])
@pytest.mark.parametrize(
    ("column", "end"), [("cancel_requested_at", "cancelled"), ("fail_requested_at", "failed")], ids=["cancel", "fail"]
)
def test_under_a_request_what_would_be_queued_again_is_cancelled_and_ends_the_job(store, rows, kind, column, end):
    job_id = rows.job(["running"], status="running", **{column: NOW})
    answer = settled(store, outcome(rows, rows.ids(job_id)[0], kind))
    assert rows.items(job_id) == ["cancelled"]
    assert [ended.status for ended in answer.ended] == [end]
    rows.assert_sound(job_id)


def test_cancelled_that_nobody_asked_for_is_a_failure(store, rows):
    job_id = rows.job(["running"], status="running")
    settled(store, outcome(rows, rows.ids(job_id)[0], "cancelled"))
    assert rows.items(job_id) == ["failed"]
    rows.assert_sound(job_id)
