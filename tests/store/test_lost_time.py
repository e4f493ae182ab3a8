"""Deadlines move by a time in which nothing could be done about them, and never further than a time-out from now."""

from __future__ import annotations

import pytest
from kit.rows import NOW

from jobd.process import myself
from jobd.states import RUNNING
from jobd.store import batches, daemons, lost_time
from jobd.store.claim import Turns, claim
from jobd.store.lost_time import move
from jobd.store.submission import Submission
from jobd.store.submit import submit
from jobd.store.vitals import vitals

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
TIMEOUT = 30 * MINUTE
NIGHT = 8 * HOUR
TIMED = {
    "status": "running", "started_at": NOW, "progress_at": NOW, "job_timeout_ms": TIMEOUT, "timeout_at": NOW + TIMEOUT,
}  # fmt: skip


@pytest.fixture
def deadline(rows):
    def deadline(job_id):
        return rows.one("select timeout_at from jobs where id=?", job_id)

    return deadline


def started(store, rows, **options):
    answer = submit(store, Submission("work", **options), [("a", "1"), ("b", "2")], now=NOW, actor="test")

    def begin(connection):
        return claim(store, connection, Turns(), limit=1, tasks=["work"], daemon_id=1, now=NOW + 5, actor="test")

    assert len(store.write(begin)) == 1
    assert rows.one("select status from jobs where id=?", answer.job_id) == RUNNING
    return answer.job_id


@pytest.mark.parametrize(("timeout", "at"), [(1_000, NOW + 1_005), (None, None)])
def test_the_clock_of_a_job_begins_with_its_first_item(store, rows, deadline, timeout, at):
    assert deadline(started(store, rows, job_timeout_ms=timeout)) == at


def test_a_night_without_a_daemon_moves_a_deadline_by_the_night(store, rows, deadline):
    job_id = rows.job(["running"], **TIMED)
    other = rows.job(["running"], **{**TIMED, "job_timeout_ms": 2 * NIGHT, "timeout_at": NOW + HOUR})
    move(store, NOW + MINUTE, now=NOW + NIGHT + MINUTE)
    assert deadline(job_id) == NOW + TIMEOUT + NIGHT
    # Its progress had put it off further than what was kept says.
    assert deadline(other) == NOW + 3 * NIGHT


def test_the_start_of_an_item_counts_before_it_moves(store, rows, deadline):
    job_id = rows.job(["running"], **TIMED)
    rows.change("update job_items set started_at=?", NOW + 10 * MINUTE)
    move(store, NOW + 20 * MINUTE, now=NOW + NIGHT + 20 * MINUTE)
    assert deadline(job_id) == NOW + 10 * MINUTE + TIMEOUT + NIGHT


def test_no_deadline_is_later_than_its_timeout_from_now(store, rows, deadline):
    """The clock had stood at 1970, and was put right: that looks like a sleep of half a century."""
    job_id = rows.job(["running"], **TIMED)
    move(store, MINUTE, now=NOW + MINUTE)
    assert deadline(job_id) == NOW + MINUTE + TIMEOUT


def test_what_waits_for_the_outside_world_has_as_much_time_as_before(store, rows):
    rows.job(["waiting", "waiting", "queued"], status="running")
    rows.change("update job_items set deadline_at=? where id=1", NOW)
    move(store, NOW, now=NOW + NIGHT)
    assert rows.all("select deadline_at from job_items") == [(NOW + NIGHT,), (None,), (None,)]


@pytest.mark.parametrize("columns", [
    {"paused_at": NOW},
    {"job_timeout_ms": None, "timeout_at": None},
    {"timeout_at": None},
    {"status": "failed", "timeout_at": None},
], ids=str)  # fmt: skip
def test_the_deadline_of_a_job_whose_clock_stands_does_not_move(store, rows, columns):
    rows.job(["waiting"] if columns.get("status") != "failed" else ["failed"], **{**TIMED, **columns})
    if "paused_at" in columns:
        rows.change("update job_items set deadline_at=?", NOW)
    before = rows.all("select timeout_at, deadline_at, version from jobs, job_items")
    move(store, NOW, now=NOW + NIGHT)
    assert rows.all("select timeout_at, deadline_at, version from jobs, job_items") == before


@pytest.mark.parametrize("gap", [0, -HOUR])
def test_nothing_moves_backwards(store, rows, deadline, gap):
    job_id = rows.job(["running"], **TIMED)
    move(store, NOW - gap, now=NOW)
    assert deadline(job_id) == NOW + TIMEOUT


def test_many_move_in_batches_each_once(store, rows, monkeypatch):
    monkeypatch.setattr(lost_time, "BATCH", 3)
    pauses = []
    monkeypatch.setattr(lost_time, "breathe", lambda: pauses.append(1) or batches.breathe())
    for _ in range(5):
        rows.job(["running"], **TIMED)
    rows.job(["waiting"] * 7, status="running")
    rows.change("update job_items set deadline_at=? where status='waiting'", NOW)
    move(store, NOW, now=NOW + MINUTE)
    assert len(pauses) == 2 + 3
    assert set(rows.all("select timeout_at from jobs where timeout_at is not null")) == {(NOW + TIMEOUT + MINUTE,)}
    assert set(rows.all("select deadline_at from job_items where status='waiting'")) == {(NOW + MINUTE,)}


def test_moving_stops_between_two_batches_when_it_is_told_to(store, rows, monkeypatch):
    monkeypatch.setattr(lost_time, "BATCH", 1)
    for _ in range(3):
        rows.job(["running"], **TIMED)
    move(store, NOW, now=NOW + MINUTE, go_on=lambda: False)
    moved = rows.all("select count(*) from jobs where timeout_at > ?", NOW + TIMEOUT)
    assert moved == [(1,)]


# -- killed on the way ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.fixture
def kill_after(store, monkeypatch):
    """Move, and be killed after so many batches; say whether that happened."""
    monkeypatch.setattr(lost_time, "BATCH", 1)

    def move_killed(batches, since, now):
        left = iter(range(batches))

        def breathe():
            if next(left, None) is None:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(lost_time, "breathe", breathe)
            try:
                move(store, since, now=now)
            except Killed:
                return True
        return False

    return move_killed


@pytest.fixture
def six(rows):
    """Three jobs that run and three items that wait: all of them are due a minute from now."""
    timed = {**TIMED, "progress_at": NOW - DAY, "job_timeout_ms": DAY, "timeout_at": NOW + MINUTE}
    for _ in range(3):
        rows.job(["running"], **timed)
        rows.change("update job_items set started_at = ?", NOW - DAY)
    rows.job(["waiting"] * 3, status="running")
    rows.change("update job_items set deadline_at = ?, available_at = ? where status = 'waiting'", NOW + MINUTE, NOW)


def lived(store, at):
    daemons.register(store, myself(), tasks=[], version="test", now=at)


def due(rows):
    jobs = rows.all("select timeout_at - ? from jobs where timeout_at is not null", NOW)
    return [at for (at,) in jobs + rows.all("select deadline_at - ? from job_items where status = 'waiting'", NOW)]


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("second", range(3))
def test_a_move_that_is_killed_and_called_again_has_moved_each_once(store, rows, six, kill_after, first, second):
    assert kill_after(first, NOW, NOW + HOUR)
    kill_after(second, NOW, NOW + 2 * HOUR)
    move(store, NOW, now=NOW + 3 * HOUR)
    assert due(rows) == [3 * HOUR + MINUTE] * 6
    move(store, NOW, now=NOW + 3 * HOUR)
    assert due(rows) == [3 * HOUR + MINUTE] * 6


def test_what_was_left_is_moved_also_when_somebody_has_lived_since(store, rows, six, kill_after):
    assert kill_after(1, NOW, NOW + HOUR)
    lived(store, NOW + 2 * HOUR)
    move(store, NOW + 2 * HOUR, now=NOW + 4 * HOUR)
    assert due(rows) == [3 * HOUR + MINUTE] * 6


def test_a_clock_that_ran_ahead_does_not_swallow_the_next_time_without_a_daemon(store, rows, six):
    move(store, NOW, now=NOW + DAY // 2)
    lived(store, NOW + HOUR)
    rows.job(["running"], **TIMED)
    move(store, NOW + HOUR, now=NOW + 2 * HOUR)
    assert rows.one("select max(timeout_at) from jobs where id = 5") == NOW + TIMEOUT + HOUR


def test_how_far_it_has_come_is_no_pass_that_people_see(store, six, kill_after):
    assert kill_after(1, NOW, NOW + HOUR)
    assert vitals(store).passes == ()
