"""pause and unpause: claims stop at once, what runs ends, and the clock of the job stands still meanwhile."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.errors import Conflict, IllegalTransition, NotFound
from jobd.store import deadlines, lost_time
from jobd.store.claim import Turns, claim
from jobd.store.ending import end_jobs
from jobd.store.pausing import pause, unpause
from jobd.store.retry import resume, retry
from jobd.store.steer import request_cancel, work_off
from jobd.store.transitions import Answer

HOUR = 3_600_000
LATER = NOW + 2 * HOUR
RUN = {"status": "running", "started_at": NOW, "progress_at": NOW}


def claimed(store):
    def work(connection):
        return claim(store, connection, Turns(), limit=9, tasks=["work"], daemon_id=1, now=LATER, actor="test")

    return [item.job_id for item in store.write(work)]


def test_nothing_of_a_paused_job_is_claimed_until_it_is_unpaused(store, rows):
    paused, other = rows.job(["queued"]), rows.job(["queued"])
    assert pause(store, paused, now=NOW, actor="cli", reason="the source moves") is Answer.APPLIED
    assert claimed(store) == [other]
    assert unpause(store, paused, now=LATER, actor="cli") is Answer.APPLIED
    assert claimed(store) == [paused]
    assert rows.events(paused)[:2] == [("pause", "queued", "queued", None), ("unpause", "queued", "queued", None)]
    assert rows.one("select message from job_events where name='pause'") == "the source moves"
    rows.assert_sound(paused)


def test_a_second_pause_or_unpause_is_replayed(store, rows):
    job_id = rows.job(["queued"])
    pause(store, job_id, now=NOW, actor="cli")
    assert pause(store, job_id, now=LATER, actor="cli") is Answer.REPLAYED
    assert rows.one("select paused_at from jobs") == NOW
    unpause(store, job_id, now=LATER, actor="cli")
    assert unpause(store, job_id, now=LATER, actor="cli") is Answer.REPLAYED
    assert [name for name, *_ in rows.events(job_id)] == ["pause", "unpause"]
    rows.assert_sound(job_id)


def test_unpausing_rings_the_daemon(store, rows):
    job_id = rows.job(["queued"], paused_at=NOW)
    rung = []
    store.wake = lambda: rung.append(1)
    unpause(store, job_id, now=LATER, actor="cli")
    assert rung == [1]


@pytest.mark.parametrize("verb", [pause, unpause])
@pytest.mark.parametrize(("items", "columns", "legal"), [
    (["completed"], {"status": "completed"}, ("delete",)),
    (["queued"], {"cancel_requested_at": NOW}, ("fail", "delete")),
    (["running"], {**RUN, "fail_requested_at": NOW}, ()),
])  # fmt: skip
def test_a_job_that_has_ended_or_is_about_to_is_refused(store, rows, verb, items, columns, legal):
    job_id = rows.job(items, **columns)
    with pytest.raises(IllegalTransition) as refusal:
        verb(store, job_id, now=NOW, actor="cli")
    assert refusal.value.legal == legal
    assert rows.events(job_id) == []


@pytest.mark.parametrize("verb", [pause, unpause])
@pytest.mark.parametrize("columns", [{"sealed_at": None}, {"deleted_at": NOW}], ids=str)
def test_a_job_that_is_not_whole_is_refused(store, rows, verb, columns):
    with pytest.raises(Conflict):
        verb(store, rows.job(["queued"], **columns), now=NOW, actor="cli")


@pytest.mark.parametrize("verb", [pause, unpause])
def test_a_job_that_is_not_there_is_refused(store, verb):
    with pytest.raises(NotFound):
        verb(store, 9, now=NOW, actor="cli")


def test_the_deadlines_of_a_job_move_by_the_whole_pause(store, rows):
    timed = {**RUN, "job_timeout_ms": HOUR, "timeout_at": NOW + 10}
    job_id = rows.job(["waiting", "waiting", "running"], **timed)
    other = rows.job(["waiting"], **timed)
    rows.change("update job_items set deadline_at=? where status='waiting' and id<>2", NOW)
    pause(store, job_id, now=NOW, actor="cli")
    unpause(store, job_id, now=LATER, actor="cli")
    assert rows.one("select timeout_at, paused_at from jobs where id=?", job_id) == (LATER + HOUR, None)
    assert rows.one("select timeout_at from jobs where id=?", other) == NOW + 10
    assert rows.all("select deadline_at from job_items") == [(LATER,), (None,), (None,), (NOW,)]


def test_an_unpause_that_is_killed_half_way_leaves_the_job_paused_and_the_next_one_ends_it(store, rows, monkeypatch):
    monkeypatch.setattr(lost_time, "BATCH", 1)
    job_id = rows.job(["waiting", "waiting", "waiting"], **RUN)
    rows.change("update job_items set deadline_at=?", NOW)
    pause(store, job_id, now=NOW, actor="cli")

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lost_time, "breathe", kill)
        with pytest.raises(Killed):
            unpause(store, job_id, now=LATER, actor="cli")
    assert rows.one("select paused_at from jobs") == NOW
    assert rows.all("select deadline_at from job_items order by deadline_at") == [(NOW,), (NOW,), (LATER,)]
    # It is still paused, and its clock stands still until somebody asks again.
    unpause(store, job_id, now=LATER + HOUR, actor="cli")
    assert rows.one("select paused_at from jobs") is None
    assert rows.all("select deadline_at from job_items") == [(LATER + HOUR,)] * 3, "each by the pause, none by it twice"
    rows.assert_sound(job_id)


def test_of_a_second_pause_deadlines_move_by_that_one_alone(store, rows):
    job_id = rows.job(["waiting"], **RUN)
    rows.change("update job_items set deadline_at=?", NOW)
    for pause_at, unpause_at in [(NOW, LATER), (LATER + HOUR, LATER + 2 * HOUR)]:
        pause(store, job_id, now=pause_at, actor="cli")
        unpause(store, job_id, now=unpause_at, actor="cli")
    assert rows.one("select deadline_at from job_items") == LATER + HOUR


def test_what_failed_by_a_deadline_that_was_moved_is_due_at_once_when_it_is_retried(store, rows):
    job_id = rows.job(["waiting"], **RUN)
    rows.change("update job_items set deadline_at=?", NOW)
    pause(store, job_id, now=NOW, actor="cli")
    unpause(store, job_id, now=LATER, actor="cli")
    found = store.read(lambda connection: deadlines.overdue_items(connection, LATER, 9))
    store.write(
        lambda connection: deadlines.fail_items(store, connection, found, at=LATER, now=LATER, actor="test"),
    )
    retry(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status, available_at from job_items") == ("queued", 0)
    rows.assert_sound(job_id)


def test_what_runs_may_end_a_paused_job(store, rows):
    job_id = rows.job(["completed"], **RUN, paused_at=NOW)
    store.write(lambda connection: end_jobs(store, connection, [job_id], now=NOW, actor="test"))
    assert rows.one("select status from jobs") == "completed"
    rows.assert_sound(job_id)


def test_a_paused_job_can_be_cancelled_and_one_that_is_reopened_is_not_paused(store, rows):
    job_id = rows.job(["queued"])
    pause(store, job_id, now=NOW, actor="cli")
    request_cancel(store, job_id, now=NOW, actor="cli")
    work_off(store, job_id, now=NOW, actor="cli")
    assert rows.one("select status from jobs") == "cancelled"
    resume(store, job_id, now=LATER, actor="cli")
    assert rows.one("select status, paused_at from jobs") == ("queued", None)
    rows.assert_sound(job_id)
