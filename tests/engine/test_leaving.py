"""Leaving while requests are carried out that have many batches to go: at once, and the next one finishes them."""

from __future__ import annotations

import signal
import threading

import pytest

from jobd import clock
from jobd.store import batches, removal, steer

SECONDS = 20

# It says each batch of two items that it carries out, and goes on when told; "leaving" is when both of its
# maintenance threads were told to stop.
BATCHES = """
from jobd.maintenance.scheduler import Scheduler
from jobd.store import batches, removal, steer

steer.BATCH = removal.BATCH = 2

def between():
    say("batch")
    told()

batches.breathe = between
stop, stopped = Scheduler.stop, []

def stop_and_say(self):
    stop(self)
    stopped.append(self)
    if len(stopped) == 2:
        say("leaving")

Scheduler.stop = stop_and_say
app = Jobd(path, drain="1h")

@app.task
def echo(value):
    return value

@app.task
def hung(value):
    say("begun")
    threading.Event().wait()

app.run(workers=1)
say("left")
"""


def cancel(app, job_id):
    steer.request_cancel(app.store, job_id, now=clock.now(), actor="test")


def delete(app, job_id):
    app.store.write(lambda connection: removal.request_removal(app.store, connection, job_id, clock.now()))


def queued(rows, job_id):
    return rows.one("select count(*) from job_items where job_id = ? and status = 'queued'", job_id)


@pytest.fixture(params=[cancel, delete], ids=["cancel", "delete"])
def requested(request, app, rows, until):
    """A job of ten items that is to be cancelled or deleted and of which nothing is carried out; and what ends it."""
    job = app.submit("echo", range(10))
    request.param(app, job.id)

    def finished():
        ended = "select count(*) from jobs where id = ? and completed_at is null"
        return not queued(rows, job.id) and not rows.one(ended, job.id)

    return job.id, finished


def test_a_first_signal_leaves_the_batches_that_are_left_to_the_next_one(app, program, rows, requested, until):
    job_id, finished = requested
    daemon = program(BATCHES)
    daemon.hears("batch")
    daemon.signal(signal.SIGTERM)
    daemon.hears("leaving")
    daemon.tell()
    daemon.hears("left")
    assert daemon.leaves() == 0
    assert queued(rows, job_id) == 8
    with app.daemon():
        until(finished)
    assert app.doctor().exit_code == 0


def test_a_second_signal_does_not_wait_for_them(app, program, rows, requested):
    job_id, _ = requested
    app.submit("hung", [1])
    daemon = program(BATCHES)
    assert {daemon.line(), daemon.line()} == {"batch", "begun"}
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.signal(number)
    daemon.hears("leaving")
    daemon.tell()
    daemon.hears("left")
    assert daemon.leaves() == 0
    assert queued(rows, job_id) == 8
    assert app.doctor().exit_code == 0


def test_the_embedded_one_leaves_between_two_batches_too(app, rows, requested, monkeypatch, until):
    job_id, finished = requested
    inside, told = threading.Event(), threading.Event()
    monkeypatch.setattr(steer, "BATCH", 2)
    monkeypatch.setattr(removal, "BATCH", 2)
    monkeypatch.setattr(batches, "breathe", lambda: (inside.set(), told.wait(SECONDS)))
    with app.daemon() as daemon:
        assert inside.wait(SECONDS)
        daemon.stop()
        until(lambda: daemon._upkeep._long.stopped)
        assert not daemon.join(0)
        told.set()
        assert daemon.join(SECONDS)
    assert queued(rows, job_id) == 8
    monkeypatch.undo()
    with app.daemon():
        until(finished)


def test_the_heart_beats_on_while_requests_are_carried_out(make_app, rows, monkeypatch, until):
    from jobd.engine import upkeep

    app = make_app(heartbeat=0.02)
    job = app.submit("echo", range(10))
    cancel(app, job.id)
    beats, finish = [-1], upkeep.finish_requests

    def after_a_beat(*arguments, **options):
        now = rows.one("select max(heartbeats) from daemons")
        if now == beats[-1]:
            return False
        beats.append(now)
        return finish(*arguments, **options)

    monkeypatch.setattr(steer, "BATCH", 2)
    monkeypatch.setattr(upkeep, "SLICE", 0.0)
    monkeypatch.setattr(upkeep, "finish_requests", after_a_beat)
    with app.daemon():
        until(lambda: job.refresh().status == "cancelled")
    assert len(beats) > 5
