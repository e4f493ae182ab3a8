"""What belongs to a settlement commits with it or not at all."""

from __future__ import annotations

import pytest

from jobd.store.failures import Permanent
from jobd.store.outcome import Outcome
from jobd.store.settle import settle

NOW = 1_795_305_600_000
LATER = NOW + 1_000


def outcome(rows, item_id, kind="completed", **fields):
    job_id, key, attempt = rows.one("select job_id, key, attempt from job_items where id=?", item_id)
    values = {"value": "1"} if kind == "completed" else {"error_type": "E", "error": "no"}
    return Outcome(item_id, job_id, attempt, "work", key, kind, NOW, LATER, **{**values, **fields})


def settled(store, *outcomes):
    return store.write(lambda connection: settle(store, connection, outcomes, now=LATER, actor="daemon 1"))


def refuse(rows, table, when="1"):
    """Let the database refuse rows, as a constraint would."""
    rows.change(
        f"create trigger refuse before insert on {table} when {when} begin select raise(abort, 'refused here'); end"
    )


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


@pytest.mark.parametrize("alike", [True, False], ids=["times in common", "times of their own"])
def test_of_one_late_outcome_among_many_all_others_commit_and_it_leaves_an_event(store, rows, alike):
    job_id = rows.job(["running"] * 20, status="running")
    outcomes = [
        outcome(rows, item_id)._replace(started_at=NOW if alike else NOW + place)
        for place, item_id in enumerate(rows.ids(job_id))
    ]
    rows.change("update job_items set attempt=2 where id=?", outcomes[7].item_id)
    assert settled(store, *outcomes).late == [outcomes[7]]
    assert rows.items(job_id) == ["completed"] * 7 + ["running"] + ["completed"] * 12
    assert rows.all("select item_id, name, from_status, to_status, attempt from job_events where item_id > 0") == [
        (outcomes[7].item_id, "late", "running", "running", 1)
    ]
    assert rows.all("select 1 from results where item_id=?", outcomes[7].item_id) == []
    rows.assert_sound(job_id)


def test_one_outcome_twice_in_a_batch_counts_once(store, rows):
    job_id = rows.job(["running", "running"], status="running")
    first, second = (outcome(rows, item_id) for item_id in rows.ids(job_id))
    answer = settled(store, first, second, first)
    assert (answer.applied, answer.replayed) == ([first, second], [first])
    rows.assert_sound(job_id)
