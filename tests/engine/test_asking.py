"""What a client asks of a live daemon: one answer for each request, wherever the clock goes and whoever leaves."""

from __future__ import annotations

import os
import threading

import pytest

from jobd import StoreBusy, clock
from jobd.config import Settings
from jobd.engine import asking
from jobd.engine.lock import Lock, Owner
from jobd.engine.passes import PASSES
from jobd.store import daemons

SECONDS = 20

RUNS = """
app = Jobd(path)

@app.task
def held(value):
    say("begun", value)
    told()

app.run(workers=1)
"""


def test_recover_asked_from_another_process_is_answered_with_its_report(app, program, rows):
    daemon = program(RUNS)
    job = app.submit("held", ["runs"])
    daemon.hears("begun")
    # Of a daemon that is gone: nobody runs it, and the live one will say so.
    rows.change(
        "insert into job_items (job_id, key, payload, status, attempt, started_at, daemon_id)"
        " values (?, 'orphan', 'null', 'running', 3, 1, 99)",
        job.id,
    )
    rows.change("update jobs set items_total = 2, items_running = 2")
    would = app.recover(check_only=True)
    did = app.recover()
    assert [(c.key, c.from_status, c.to_status, c.evidence) for c in would.changes] == [
        ("orphan", "running", "queued", "its daemon is gone")
    ]
    assert [(c.key, c.to_status, c.evidence) for c in did.changes] == [("orphan", "queued", "its daemon is gone")]
    assert (did.check_only, did.counts) == (False, {"queued": 1})
    assert app.recover().changes == []


@pytest.mark.parametrize("jump", [-3_600_000, 3_600_000])
def test_an_answer_is_that_to_this_request_wherever_the_clock_went(app, monkeypatch, jump):
    """The clock is put back or forward between two requests: no report of an earlier run passes for the answer."""
    reports = iter(["first", "second"])
    real = PASSES["recover"]

    def numbered(*arguments):
        return real.run(*arguments).__class__(next(reports, "later"), check_only=False)

    with app.daemon():
        monkeypatch.setitem(PASSES, "recover", real._replace(run=numbered))
        assert asking.ask(app.store, "recover").name == "first"
        now = clock.now
        monkeypatch.setattr(clock, "now", lambda: now() + jump)
        assert asking.ask(app.store, "recover").name == "second"


def test_a_request_is_run_once_however_often_it_is_seen(app, monkeypatch):
    """A second run would find nothing more to do, and the caller be told that nothing was done."""
    ran, real = [], PASSES["recover"]

    def counted(*arguments):
        ran.append(threading.current_thread().name)
        # What rings while it runs: each look at the database finds a request.
        for _ in range(3):
            app.store.wake()
        return real.run(*arguments)

    marks = threading.Semaphore(0)
    with app.daemon() as daemon:
        scheduler = daemon._upkeep._short
        scheduler.on_demand("mark", marks.release)
        monkeypatch.setitem(PASSES, "recover", real._replace(run=counted))
        asking.ask(app.store, "recover")
        scheduler.ask("answer")
        # What was asked for before the first of them has rung when the second has.
        for _ in range(2):
            scheduler.ask("mark")
            assert marks.acquire(timeout=SECONDS)
    assert ran == ["jobd-maintenance"]


def test_a_run_that_began_before_the_request_does_not_answer_it(store):
    daemons.begin_pass(store, "recover", now=100)
    daemons.request(store, "recover", now=100)
    daemons.end_pass(store, "recover", "early", now=101)
    assert daemons.answered(store, "recover") is None
    assert [request.name for request in daemons.requests(store)] == ["recover"]
    daemons.begin_pass(store, "recover", now=99)
    assert daemons.answered(store, "recover") is None
    assert daemons.requests(store) == []
    daemons.end_pass(store, "recover", "mine", now=99)
    assert daemons.answered(store, "recover") == "mine"


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(app, path, monkeypatch):
    monkeypatch.setattr(asking, "ANSWER_WITHIN", 0.05)
    holder = Lock(str(path))
    holder.acquire(Owner(os.getpid(), "here", 1))
    with pytest.raises(StoreBusy, match="did not answer"):
        asking.ask(app.store, "recover")
    holder.release()


def test_a_request_of_an_unknown_name_is_left_alone(app, rows, caplog, until):
    with app.daemon():
        daemons.request(app.store, "no_such_pass", now=1)
        assert asking.ask(app.store, "recover").name == "recover"
    assert rows.one("select started_at from passes where name = 'no_such_pass'") is None
    assert "no_such_pass" not in caplog.text


def test_a_daemon_that_leaves_before_it_answers_is_not_waited_for(app, path, rows, until):
    """Whoever asked holds the lock then, and does it himself."""
    rows.change(
        "insert into jobs (task, status, status_updated_at, created_at, sealed_at, version, items_skipped, items_total)"
        " values ('work', 'running', 1, 1, 1, 0, 0, 0)"
    )
    holder = Lock(str(path))
    holder.acquire(Owner(os.getpid(), "here", 1))
    reports = []
    asker = threading.Thread(target=lambda: reports.append(app.recover()))
    asker.start()
    until(lambda: rows.all("select 1 from passes where requested_at is not null"))
    holder.release()
    asker.join(SECONDS)
    assert [report.counts for report in reports] == [{"completed": 1}]


def test_what_a_former_daemon_was_asked_and_left_in_the_middle_is_answered_by_the_next(app, store):
    daemons.request(store, "recover", now=1)
    daemons.begin_pass(store, "recover", now=1)
    with app.daemon():
        assert daemons.answered(store, "recover")


def test_check_only_beside_a_live_daemon_goes_by_the_settings_of_who_looks(make_app, rows):
    app = make_app()
    job = app.submit("work", [1])
    rows.change("update job_items set status='running', attempt=1, started_at=?", clock.now() - 5_000)
    rows.change("update jobs set status='running', started_at=1, items_running=1")
    with app.daemon():
        assert app.recover(check_only=True).changes == []
        (change,) = make_app(grace=1).recover(check_only=True).changes
        assert (change.job_id, change.evidence) == (job.id, "silent for over 1 s")


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_has_a_setting_for_its_beat(name):
    found = PASSES[name]
    assert found.next is not None if found.every is None else getattr(Settings(), found.every) > 0
