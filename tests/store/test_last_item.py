"""The last item of a job completes: the job ends with its counters, as all that is known of it says."""

from __future__ import annotations

import pytest

from jobd.store.outcome import Outcome
from jobd.store.settle import settle

NOW = 1_795_305_600_000
LATER = NOW + 1_000


def complete(store, rows, *job_ids):
    """Let whatever runs in these jobs complete, in one batch; return the ids of the jobs that ended."""
    outcomes = [
        Outcome(item_id, job_id, attempt, "work", key, "completed", NOW, LATER, value="1")
        for job_id in job_ids
        for item_id, key, attempt in rows.all(
            "select id, key, attempt from job_items where job_id=? and status='running'", job_id
        )
    ]
    settled = store.write(lambda connection: settle(store, connection, outcomes, now=LATER, actor="daemon 1"))
    return {ended.job_id: ended.status for ended in settled.ended}


@pytest.mark.parametrize(
    ("items", "columns", "status"),
    [
        (["running"], {}, "completed"),
        (["running", "running"], {}, "completed"),
        (["running", "skipped"], {}, "completed"),
        (["running", "failed"], {}, "failed"),
        (["running", "failed"], {"tolerance": "1"}, "completed"),
        (["running", "cancelled"], {"cancel_requested_at": NOW}, "cancelled"),
        (["running", "cancelled"], {"fail_requested_at": NOW}, "failed"),
        (["running"], {"cancel_requested_at": NOW}, "completed"),
        (["running", "queued"], {}, "running"),
        (["running", "waiting"], {}, "running"),
        (["running"], {"sealed_at": None}, "running"),
        (["running"], {"deleted_at": NOW}, "running"),
    ],
    ids=[
        "the only one", "two at once", "a skipped one", "a failed one", "a tolerated one", "cancelled by request",
        "failed by request", "all completed in spite of a request", "one is queued", "one waits", "more are coming",
        "being deleted",
    ],
)  # fmt: skip
def test_a_job_ends_with_its_last_item_as_its_items_and_what_was_asked_for_say(store, rows, items, columns, status):
    job_id = rows.job(items, status="running", **columns)
    ended = complete(store, rows, job_id)
    assert rows.one("select status from jobs where id=?", job_id) == status
    assert ended == ({} if status == "running" else {job_id: status})
    running = rows.one("select items_running from jobs where id=?", job_id)
    completed = rows.one("select items_completed from jobs where id=?", job_id)
    assert (running, completed) == (0, items.count("running"))
    assert rows.all("select name, from_status, to_status from job_events where item_id is null and at=?", LATER) == (
        []
        if status == "running"
        else [({"completed": "complete", "failed": "fail"}.get(status, "cancel"), "running", status)]
    )
    assert rows.one("select progress_at from jobs where id=?", job_id) == LATER


def test_of_jobs_of_different_sizes_in_one_batch_each_moves_its_own_counter(store, rows):
    one, two, open_ = (
        rows.job(items, status="running") for items in (["running"], ["running"] * 2, ["running", "queued"])
    )
    assert complete(store, rows, one, two, open_) == {one: "completed", two: "completed"}
    assert rows.all("select items_running, items_completed, completed_at from jobs order by id") == [
        (0, 1, LATER),
        (0, 2, LATER),
        (0, 1, None),
    ]
