"""The daemon's own guards, each seen from where its absence would show."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import types

import pytest

from jobd import Jobd
from jobd.engine import dispatcher, turn
from jobd.engine.passes import PASSES, Pass
from jobd.errors import DaemonRunning
from jobd.maintenance.report import Report
from jobd.store.invariants import check


def double(number):
    return 2 * number


@pytest.mark.usefixtures("refused_at_once")
def test_a_second_daemon_on_the_same_file_is_refused_by_name_also_through_another_path(app, tmp_path):
    app.task(double)
    (tmp_path / "link").symlink_to(tmp_path)
    with app.daemon():
        for path in (tmp_path / "jobs.db", tmp_path / "link" / ".." / tmp_path.name / "jobs.db"):
            second = Jobd(path)
            with (
                pytest.raises(DaemonRunning, match=r"another daemon owns .*jobs\.db \(pid \d+") as refusal,
                second.daemon(),
            ):
                pass
            assert refusal.value.exit_code == 7
            second.close()
        assert app.submit("double", [1]).wait(timeout=30).status == "completed"
    with app.daemon():
        assert app.submit("double", [2]).wait(timeout=30).status == "completed"


FORKING = """
    app = Jobd(path)

    @app.task
    def fork(_):
        if os.fork() == 0:
            say("child", os.getpid())
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)

    with app.daemon():
        fork.submit([1]).wait(timeout=60)
"""


def test_a_forked_child_does_not_hold_the_lock_of_its_killed_daemon(app, program):
    daemon = program(FORKING)
    child = int(daemon.hears("child"))
    try:
        assert daemon.leaves() == -signal.SIGKILL
        app.task(lambda _: "completed", name="fork")
        with app.daemon():
            assert app.job("@last").wait(timeout=60).status == "completed"
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_registry_knows_an_item_until_its_settlement_has_committed(app, monkeypatch):
    seen = []
    settle = turn.settle

    def watched(store, connection, outcomes, **kwargs):
        seen.append({one.item_id for one in outcomes} <= set(daemon._dispatcher.registry))
        return settle(store, connection, outcomes, **kwargs)

    monkeypatch.setattr(turn, "settle", watched)
    app.task(double)
    with app.daemon() as daemon:
        job = app.submit("double", range(50)).wait(timeout=60)
        assert job.status == "completed"
    assert seen
    assert all(seen)
    assert daemon._dispatcher.registry == {}


def test_what_the_daemon_claims_while_a_pass_runs_is_in_its_hand(app, held, gate, monkeypatch):
    """Else a pass that takes long reconciles what a handler has saved meanwhile, and its own answer comes too late."""
    seen, looked = [], threading.Event()

    def look(_, at):
        if not seen:
            job = held.submit(["a"])
            assert gate.entered.wait(30)
            seen.append(at.holder.has_in_hand(at.holder.daemon_id, job.items()[0].id))
            looked.set()
        return Report("reconcile", check_only=False)

    monkeypatch.setitem(PASSES, "reconcile", Pass(look, "reconcile_every"))
    with app.daemon():
        # It was never run, and so it is at the start.
        assert looked.wait(30)
        gate.opened.set()
    assert seen == [True]


def test_an_outcome_that_cannot_be_written_now_is_kept_and_written_later(app, tmp_path, monkeypatch):
    held = threading.Event()
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None, check_same_thread=False)

    def work(number):
        # From inside the handler: its item is running, and nothing can be settled from now on.
        if number == 0:
            other.execute("begin immediate")
            held.set()
        return number

    refused = threading.Event()
    hold_out = dispatcher.Dispatcher._hold_out

    def noticed(self, error, pending):
        hold_out(self, error, pending)
        refused.set()

    monkeypatch.setattr(dispatcher.Dispatcher, "_hold_out", noticed)
    monkeypatch.setattr("jobd.store.sqlite.BUSY_TIMEOUT_MS", 20)
    app.task(work)
    with app.daemon(workers=2) as daemon:
        job = app.submit("work", range(3))
        assert held.wait(30)
        assert refused.wait(30)
        assert daemon.degraded == "locked"
        other.execute("rollback")
        job.wait(timeout=30)
        assert daemon.degraded is None
    other.close()
    assert job.counts.completed == 3
    assert check(app.store) == []


def test_a_busy_dispatcher_leaves_the_lock_alone_for_a_moment(app, monkeypatch):
    pauses = []

    def sleep(seconds):
        pauses.append((seconds, app.store.in_transaction(app.store.connection())))

    monkeypatch.setattr(dispatcher, "HOLD", 0.0)
    monkeypatch.setattr(dispatcher, "time", types.SimpleNamespace(sleep=sleep))
    app.task(double)
    with app.daemon(workers=2):
        app.submit("double", range(500)).wait(timeout=60)
    assert (dispatcher.GAP, False) in pauses
    assert dispatcher.GAP >= 0.001
    assert not any(inside for _, inside in pauses)
