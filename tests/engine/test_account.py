"""What a daemon says of itself in its row, and what whoever looks makes of it."""

from __future__ import annotations

import json
import logging
import signal
from dataclasses import asdict

import pytest

from jobd.engine.account import Account
from jobd.engine.passes import PASSES
from jobd.maintenance.report import Report
from jobd.store import vitals

SECONDS = 20


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A disk with room, whatever this machine has."""
    real = vitals.files
    monkeypatch.setattr(vitals, "files", lambda store: real(store)._replace(free=10**10))


@pytest.fixture
def state(rows):
    def read():
        return json.loads(rows.one("select state from daemons order by id desc limit 1"))

    return read


def test_its_settings_are_in_its_row_at_once(make_app, rows, state):
    """Long before its second beat: a reader judges its silence by them."""
    app = make_app(heartbeat=600, grace=123)
    with app.daemon(workers=3):
        assert state()["settings"] == asdict(app.settings)
        assert state()["workers"] == 3


def test_what_it_moved_is_counted_and_what_was_moved_before_it_is_not(app, state, until):
    @app.task
    def odd(value):
        if value % 2:
            raise ValueError(value)

    for _ in range(2):
        job = odd.submit(range(5))
        with app.daemon(workers=2):
            job.wait(SECONDS)
        # Its last beat may be seconds ago: it signs off with what it has done since.
        assert state()["moved"] == {
            "items": {"running": 5, "completed": 3, "failed": 2},
            "jobs": {"running": 1, "failed": 1},
        }


def test_what_each_pass_has_done_adds_up(make_app, rows, state, until):
    app = make_app(recover_every=0.02, heartbeat=0.02)
    with app.daemon(workers=1):
        until(lambda: state().get("passes", {}).get("recover", {}).get("runs", 0) >= 3)
        assert state()["passes"]["recover"]["error"] is None


def test_a_pass_that_fails_is_told_until_it_runs_again(app, store):
    account = Account(store, app.settings, workers=1)
    account.ran(Report("recover", False, [], {"queued": 2}))
    account.failed("recover", ValueError("no"))
    assert account.json()["passes"]["recover"] == {"runs": 1, "counts": {"queued": 2}, "error": "ValueError: no"}
    account.ran(Report("recover", False, [], {"queued": 3, "completed": 1}))
    assert account.json()["passes"]["recover"] == {"runs": 2, "counts": {"queued": 5, "completed": 1}, "error": None}


def test_a_live_daemon_whose_pass_fails_is_not_healthy(make_app, monkeypatch, until):
    def fails(store, situation):
        raise ValueError("no rows today")

    monkeypatch.setitem(PASSES, "recover", PASSES["recover"]._replace(run=fails))
    app = make_app(recover_every=0.02, heartbeat=0.02)
    monkeypatch.setattr("jobd.engine.upkeep.Upkeep.first_pass", lambda self: None)
    with app.daemon(workers=1):
        until(lambda: not app.health().healthy)
        assert "passes: recover failed: ValueError: no rows today" in app.health().summary


def test_a_daemon_that_works_is_healthy_and_so_is_what_it_leaves(app, held, gate):
    job = held.submit(["a"])
    with app.daemon(workers=1):
        assert gate.entered.wait(SECONDS)
        health = app.health()
        assert health.healthy, health.summary
        assert health.runner.alive
        gate.opened.set()
        job.wait(SECONDS)
    health = app.health()
    assert (health.healthy, health.runner.alive) == (True, False)
    assert app.stats().runner.state["moved"]["items"]["completed"] == 1


PROGRAM = """
    app = Jobd(path, heartbeat=0.05)

    @app.task
    def hang(value):
        say("in")
        told()

    hang.submit(["a"])
    with app.daemon(workers=1):
        told()
"""


def test_a_killed_daemon_is_told_with_its_items(app, program):
    daemon = program(PROGRAM)
    daemon.hears("in")
    daemon.kill()
    health = app.health()
    assert not health.healthy
    broken = {check.name: (check.text, check.hint) for check in health.checks if check.level == "broken"}
    assert broken.keys() == {"daemon", "items"}
    assert broken["daemon"][0].endswith(f"pid {daemon.pid} is gone")
    assert broken["items"] == ("1 running item that nobody runs", "jobd recover")


def test_a_stopped_process_holds_its_lock_and_is_told_after_three_of_its_own_beats(app, program, until):
    """0.15 s here: by its own setting, which is not that of whoever looks."""
    daemon = program(PROGRAM)
    daemon.hears("in")
    until(lambda: app.daemon_status().state.get("settings"))
    daemon.signal(signal.SIGSTOP)
    until(lambda: not app.health().healthy)
    (check,) = [check for check in app.health().checks if check.level == "broken"]
    assert check.name == "daemon"
    assert check.text.endswith(f"pid {daemon.pid} holds the lock and does not move")
    daemon.signal(signal.SIGCONT)
    until(lambda: app.health().healthy)


def test_each_transition_of_a_job_and_each_unhappy_item_is_one_line_in_the_log(app, caplog):
    @app.task(tolerance=1)
    def work(value):
        if value == "bad":
            raise ValueError("no")

    caplog.set_level(logging.INFO, logger="jobd.history")
    with app.daemon(workers=1):
        job = work.submit(["a", "bad", "b"]).wait(SECONDS)
    bad = job.items(status="failed")[0].id
    assert [record.getMessage() for record in caplog.records if record.name == "jobd.history"] == [
        "job 1 submit: queued by python",
        "job 1 start: queued -> running by daemon 1",
        f"item 1:#{bad} fail of attempt 1: running -> failed by daemon 1: ValueError: no",
        "job 1 complete: running -> completed by daemon 1: with warnings: 1 of 3 items failed",
    ]
