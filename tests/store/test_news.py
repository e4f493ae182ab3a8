"""The log says what has committed, once and in a line each; and every move is counted, by whatever door."""

from __future__ import annotations

import logging

import pytest
from kit.rows import NOW

from jobd.errors import Conflict
from jobd.maintenance.evidence import Holder, Rules
from jobd.maintenance.recover import recover
from jobd.states import FAILED, QUEUED, RUNNING
from jobd.store import steer
from jobd.store.counters import count_moves
from jobd.store.events import Event, note_job, record
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.submission import Submission
from jobd.store.submit import submit


@pytest.fixture
def lines(caplog):
    """What the history's log has, and at which level."""
    caplog.set_level(logging.INFO, logger="jobd.history")

    def read(level=logging.INFO):
        return [one.getMessage() for one in caplog.records if one.name == "jobd.history" and one.levelno >= level]

    return read


def outcome(rows, job_id, kind, *, place=0, **fields):
    item_id, key, attempt = rows.all("select id, key, attempt from job_items where job_id=? order by id", job_id)[place]
    given = {"started_at": NOW, "completed_at": NOW + 5, **fields}
    return Outcome(item_id, job_id, given.pop("attempt", attempt), "work", key, kind, **given)


def settled(store, *outcomes):
    return store.write(lambda connection: settle(store, connection, outcomes, now=NOW + 5, actor="daemon 1"))


RUN = {"status": "running", "started_at": NOW}


def test_a_submission_is_a_line(store, lines):
    job = submit(store, Submission("work"), [("a", "1"), ("b", "2")], now=NOW, actor="cli")
    assert lines() == [f"job {job.job_id} submit: queued by cli"]


def test_an_unhappy_item_and_the_end_of_its_job_are_a_line_each_and_a_happy_item_is_only_counted(store, rows, lines):
    job_id = rows.job(["running"] * 2, **RUN)
    failed = outcome(rows, job_id, "failed", error_type="ValueError", error="no", place=1)
    settled(store, outcome(rows, job_id, "completed", value="1"), failed)
    assert lines() == [
        f"item {job_id}:#{failed.item_id} fail of attempt 1: running -> failed by daemon 1: ValueError: no",
        f"job {job_id} fail: running -> failed by daemon 1: 1 of 2 items failed",
    ]
    assert store.news.totals == {("items", "completed"): 1, ("items", "failed"): 1, ("jobs", "failed"): 1}


def test_an_answer_that_came_too_late_is_a_warning(store, rows, lines):
    job_id = rows.job(["running"], **RUN)
    late = outcome(rows, job_id, "completed", value="1", attempt=0)
    settled(store, late)
    (line,) = lines(logging.WARNING)
    assert line.startswith(f"item {job_id}:#{late.item_id} late of attempt 0: running by daemon 1")


def test_a_batch_that_is_replayed_one_by_one_is_told_once(store, rows, lines):
    """One of three is late: the batch is rolled back, and its other two are written again."""
    job_id = rows.job(["running"] * 3, **RUN)
    one, two = (outcome(rows, job_id, "failed", error="no", place=place) for place in (0, 1))
    settled(store, one, two, outcome(rows, job_id, "completed", value="1", place=2, attempt=7))
    names = [line.split()[2] for line in lines()]
    assert names == ["fail", "fail", "late"]
    assert store.news.totals == {("items", "failed"): 2}


def test_what_was_rolled_back_is_neither_told_nor_counted(store, rows, lines):
    job_id = rows.job(["queued"])

    def work(connection):
        note_job(store, connection, job_id, "cancel", now=NOW, actor="cli")
        count_moves(store, connection, {job_id: 1}, QUEUED, RUNNING, progress=None)
        raise Conflict("no")

    with pytest.raises(Conflict):
        store.write(work)
    with pytest.raises(Conflict):
        store.share(work)
    store.write(lambda connection: None)
    assert lines() == []
    assert store.news.totals == {}


def test_of_several_that_share_a_commit_the_one_that_raises_is_not_told(store, rows, lines, monkeypatch):
    job_id = rows.job(["queued"])

    def note(name):
        def work(connection):
            note_job(store, connection, job_id, name, now=NOW, actor="cli")
            if name == "bad":
                raise Conflict("no")

        return work

    answers = store.write(lambda connection: [store._apart(connection, note(name)) for name in ("one", "bad", "two")])
    assert [error is None for _, error in answers] == [True, False, True]
    assert lines() == [f"job {job_id} one: queued by cli", f"job {job_id} two: queued by cli"]


def test_a_request_and_what_it_moves_in_bulk_are_lines(store, rows, lines):
    job_id = rows.job(["queued"] * 3)
    steer.request_cancel(store, job_id, now=NOW, actor="cli", reason="enough")
    steer.work_off(store, job_id, now=NOW, actor="cli")
    assert lines() == [
        f"job {job_id} cancel: queued by cli: enough",
        f"job {job_id} cancel: 3 items queued -> cancelled by cli",
        f"job {job_id} cancel: queued -> cancelled by cli: 3 of 3 items cancelled",
    ]
    assert store.news.totals == {("items", "cancelled"): 3, ("jobs", "cancelled"): 1}


def test_an_orphan_that_recover_settles_is_a_line(store, rows, lines):
    job_id = rows.job(["running"], **RUN)
    recover(store, holder=Holder(), rules=Rules(boot="b"), now=NOW, actor="daemon 2")
    (line,) = lines()
    assert line == f"item #{rows.ids(job_id)[0]} recover: running -> queued by daemon 2: its daemon is gone"


def test_lines_come_after_the_mutex_is_free(store, rows, monkeypatch):
    """Whoever reads the log may be slow: no other thread's write waits for that."""
    job_id = rows.job(["queued"])
    held = []
    monkeypatch.setattr("jobd.store.news.log.isEnabledFor", lambda level: True)
    monkeypatch.setattr("jobd.store.news.log.log", lambda *_: held.append(store.mutex._is_owned()))
    steer.request_cancel(store, job_id, now=NOW, actor="cli")
    assert held == [False]


def test_where_nobody_listens_nothing_is_kept(store, rows, caplog):
    caplog.set_level(logging.ERROR, logger="jobd.history")
    event = Event(rows.job(["queued"]), None, "late", QUEUED, FAILED, NOW, "cli")

    def work(connection):
        record(store, connection, [event])
        return store.news.mark()

    assert store.write(work) == (0, 0)


@pytest.mark.parametrize("message", ["a\nERROR forged", "\x1b[2J", "\u202egnp.exe", "x" * 5_000])
def test_stored_text_cannot_forge_a_line_or_act_on_a_terminal(store, rows, lines, message):
    job_id = rows.job(["queued"])
    store.write(lambda connection: note_job(store, connection, job_id, "cancel", now=NOW, actor="cli", message=message))
    (line,) = lines()
    assert line.isprintable()
    assert len(line) < 600


def test_an_item_that_runs_again_for_a_changed_payload_is_a_line(store, lines):
    job = submit(store, Submission("work", key="k"), [("a", "1"), ("b", "2")], now=NOW, actor="cli")
    store.write(lambda connection: connection.execute("update job_items set status='cancelled', completed_at=1"))
    store.write(lambda connection: connection.execute("update jobs set items_cancelled=2"))
    submit(store, Submission("work", key="k", changed="requeue"), [("a", "1"), ("b", "9")], now=NOW, actor="cli")
    assert lines()[1:] == [f"item #{job.job_id + 1} requeue: queued by cli: payload changed"]
