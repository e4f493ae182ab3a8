"""Commands whose daemon is killed again and again: none is lost, and none that is recorded runs again.

What ran is told by a witness outside the database: a file to which every command appends its item when it begins.
"""

from __future__ import annotations

import collections
import random

import psutil
import pytest

from jobd.store.invariants import check

ITEMS = 100
KILLS = 4
SEED = 7

PROGRAM = """
    with Jobd(path).daemon(workers=3):
        threading.Event().wait()
"""


@pytest.fixture
def witness(tmp_path):
    path = tmp_path / "witness"
    path.touch()
    return path


def ran(witness):
    return collections.Counter(witness.read_text().split())


def strays(folder):
    """Return the commands that run still: they stand in the folder of the test."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "status"]):
        info = process.info
        if info["name"] == "sh" and info["cwd"] == folder and info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_none_is_lost_and_none_that_is_recorded_runs_again(app, program, witness, tmp_path, until):
    params = {"command": ["echo {} >> witness; sleep 0.01; :"], "shell": True, "cwd": str(tmp_path)}
    items = [{"item": f"i{n}"} for n in range(ITEMS)]
    job = app.submit("shell", items, item_key="item", params=params, concurrency=3)
    recorded = {}  # what was at a kill, with how often it had run by then
    for count in sorted(random.Random(SEED).sample(range(5, ITEMS - 10), KILLS)):
        daemon = program(PROGRAM)
        until(lambda count=count: len(ran(witness)) >= count)
        daemon.kill()
        until(lambda: not strays(str(tmp_path)))
        runs = ran(witness)
        recorded |= {item.key: runs[item.key] for item in job.items(status="completed")}
    with app.daemon(workers=3):
        job.wait(60)
    assert (job.status, job.counts.completed) == ("completed", ITEMS)
    runs = ran(witness)
    assert len(runs) == ITEMS
    assert len(recorded) > ITEMS // 2
    assert {key: runs[key] for key in recorded} == recorded
    attempts = {item.key: item.attempt for item in job.items()}
    assert all(count <= attempts[key] for key, count in runs.items())
    assert check(app.store) == []
