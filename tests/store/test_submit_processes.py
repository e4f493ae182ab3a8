"""Submitters as processes: killed midway, racing for one key, and with an input larger than their memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from jobd.errors import Conflict
from jobd.items import normalise
from jobd.process import Process
from jobd.store import SqliteStore
from jobd.store.invariants import check
from jobd.store.removal import dead_submissions, remove_job, request_removal
from jobd.store.submit import Submission, submit

NOW = 1_795_305_600_000

# A program that submits ``count`` items under the key "k"; before item ``pause_at`` it says so and waits for a line.
SUBMITTER = """
import json, resource, sys
from jobd.items import normalise
from jobd.store import SqliteStore
from jobd.store.submit import Submission, submit

path, now, count, pause_at, times = sys.argv[1], *map(int, sys.argv[2:])

def items():
    for number in range(count):
        if number == pause_at:
            print("ready", flush=True)
            sys.stdin.readline()
        yield f"item {number}"

store = SqliteStore(path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = [
    submit(store, Submission("work", key="k"), normalise(items(), "work"), now=now, actor="test")._asdict()
    for _ in range(times)
]
print(json.dumps([answers, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.fixture
def started():
    """Start submitters and see that none outlives its test."""
    children = []

    def start(store, count, *, pause_at=-1, times=1):
        command = [sys.executable, "-c", SUBMITTER, store.path, *map(str, (NOW, count, pause_at, times))]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def killed_midway(store, started):
    child = started(store, 10_000, pause_at=7_000)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    return child


def test_a_live_submitter_is_named_to_whoever_comes_with_its_key(store, started):
    child = started(store, 10_000, pause_at=7_000)
    child.stdout.readline()
    with pytest.raises(Conflict, match=f"job 1 is being submitted by process {child.pid} on "):
        submit(store, Submission("work", key="k"), [("a", "null")], now=NOW, actor="test")
    assert dead_submissions(store) == []


def test_a_killed_submitter_leaves_a_job_of_which_nothing_runs_and_that_can_be_removed(store, rows, started):
    child = killed_midway(store, started)
    total, sealed_at = rows.one("select items_total, sealed_at from jobs")
    assert (total, sealed_at) == (6_000, None), "the chunks before item 7,000"
    assert rows.one("select count(*) from job_items") == total
    [dead] = dead_submissions(store)
    assert dead.job_id == 1
    assert Process.loads(dead.submitter).pid == child.pid
    assert check(store) == []

    store.write(lambda connection: request_removal(store, connection, dead.job_id, NOW))
    assert remove_job(store, dead.job_id) == 6_000
    assert [rows.one(f"select count(*) from {table}") for table in ("jobs", "job_items", "job_events")] == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 5_000])
def test_the_key_of_a_killed_submitter_is_taken_over(store, rows, started, count):
    killed_midway(store, started)
    items = normalise([f"other {number}" for number in range(count)], "work")
    answer = submit(store, Submission("work", key="k"), items, now=NOW, actor="test")
    assert answer == (2, "queued", True, count, 0, 0, 0, count)
    assert rows.all("select id, key from jobs") == [(2, "k")]
    assert rows.one("select count(*) from job_items") == count
    assert check(store) == []


@pytest.mark.parametrize("count", [1, 50])
def test_of_two_that_submit_a_new_key_at_once_one_creates_and_the_other_knows(store, rows, started, count):
    children = [started(store, count, pause_at=0) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [json.loads(child.stdout.readline())[0][0] for child in children]
    assert sorted((a["created"], a["added"], a["known"], a["total"]) for a in answers) == [
        (False, 0, count, count),
        (True, count, 0, count),
    ]
    assert [child.wait() for child in children] == [0, 0]
    assert rows.one("select count(*) from jobs") == 1
    assert check(store) == []


def test_of_two_that_add_to_a_known_job_at_once_each_item_is_added_once(store, rows, started):
    submit(store, Submission("work", key="k"), [("item 0", '"item 0"')], now=NOW, actor="test")
    children = [started(store, 5_000, pause_at=4_999) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [json.loads(child.stdout.readline())[0][0] for child in children]
    assert sum(answer["added"] for answer in answers) == 4_999
    assert all(answer["added"] + answer["known"] == 5_000 for answer in answers)
    assert rows.one("select items_total, (select count(*) from job_items) from jobs") == (5_000, 5_000)
    assert check(store) == []


def test_a_generator_of_any_length_takes_no_memory_neither_new_nor_again(tmp_path, started):
    # A million takes 6 s for each of the two on an idle machine: the same memory, but not the suite's minute.
    count = 200_000
    child = started(SqliteStore(tmp_path / "large.db"), count, times=2)
    answers, kilobytes = json.loads(child.stdout.readline())
    assert [(answer["added"], answer["known"]) for answer in answers] == [(count, 0), (0, count)]
    # Two chunks of 2,000 and the page cache; the items alone would be 30 MB as Python objects.
    assert kilobytes < 12_000
