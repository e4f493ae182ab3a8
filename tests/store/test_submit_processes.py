"""Submitters as processes: killed midway, racing for one key, and with an input larger than their memory."""

from __future__ import annotations

import json

import pytest

from jobd.errors import Conflict
from jobd.items import normalise
from jobd.process import Process
from jobd.store.invariants import check
from jobd.store.removal import dead_submissions, remove_job, request_removal
from jobd.store.submit import Submission, submit

NOW = 1_795_305_600_000

# A program that submits ``count`` items under the key "k"; before item ``pause_at`` it says so and waits for a line.
# Beside each answer it says by how many KiB its memory grew after item 10,000.
SUBMITTER = """
import json, resource
from jobd.items import normalise
from jobd.store import SqliteStore
from jobd.store.submit import Submission, submit

now, count, pause_at, times = map(int, sys.argv[2:])
early = 0

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def items():
    global early
    for number in range(count):
        if number == pause_at:
            say("ready")
            told()
        if number == 10_000:
            early = memory()
        yield f"item {number}"

store = SqliteStore(path)
said = []
for _ in range(times):
    answer = submit(store, Submission("work", key="k"), normalise(items(), "work"), now=now, actor="test")
    said.append([answer._asdict(), memory() - early])
say(json.dumps(said))
"""


@pytest.fixture
def started(program):
    """Start a submitter."""

    def start(count, *, pause_at=-1, times=1):
        return program(SUBMITTER, NOW, count, pause_at, times)

    return start


def killed_midway(started):
    child = started(10_000, pause_at=7_000)
    child.hears("ready")
    child.kill()
    return child


def test_a_live_submitter_is_named_to_whoever_comes_with_its_key(store, started):
    child = started(10_000, pause_at=7_000)
    child.hears("ready")
    with pytest.raises(Conflict, match=f"job 1 is being submitted by process {child.pid} on "):
        submit(store, Submission("work", key="k"), [("a", "null")], now=NOW, actor="test")
    assert dead_submissions(store) == []


def test_a_killed_submitter_leaves_a_job_of_which_nothing_runs_and_that_can_be_removed(store, rows, started):
    child = killed_midway(started)
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
    killed_midway(started)
    items = normalise([f"other {number}" for number in range(count)], "work")
    answer = submit(store, Submission("work", key="k"), items, now=NOW, actor="test")
    assert answer == (2, "queued", True, count, 0, 0, 0, count)
    assert rows.all("select id, key from jobs") == [(2, "k")]
    assert rows.one("select count(*) from job_items") == count
    assert check(store) == []


@pytest.mark.parametrize("count", [1, 50])
def test_of_two_that_submit_a_new_key_at_once_one_creates_and_the_other_knows(store, rows, started, count):
    children = [started(count, pause_at=0) for _ in range(2)]
    for child in children:
        child.hears("ready")
    for child in children:
        child.tell("go")
    answers = [json.loads(child.line())[0][0] for child in children]
    assert sorted((a["created"], a["added"], a["known"], a["total"]) for a in answers) == [
        (False, 0, count, count),
        (True, count, 0, count),
    ]
    assert [child.leaves() for child in children] == [0, 0]
    assert rows.one("select count(*) from jobs") == 1
    assert check(store) == []


def test_of_two_that_add_to_a_known_job_at_once_each_item_is_added_once(store, rows, started):
    submit(store, Submission("work", key="k"), [("item 0", '"item 0"')], now=NOW, actor="test")
    children = [started(5_000, pause_at=4_999) for _ in range(2)]
    for child in children:
        child.hears("ready")
    for child in children:
        child.tell("go")
    answers = [json.loads(child.line())[0][0] for child in children]
    assert sum(answer["added"] for answer in answers) == 4_999
    assert all(answer["added"] + answer["known"] == 5_000 for answer in answers)
    assert rows.one("select items_total, (select count(*) from job_items) from jobs") == (5_000, 5_000)
    assert check(store) == []


def test_a_generator_of_any_length_takes_no_memory_neither_new_nor_again(started):
    # A million takes 6 s for each of the two on an idle machine: the same memory, but not the suite's minute.
    count = 60_000
    answers = json.loads(started(count, times=2).line())
    assert [(answer["added"], answer["known"]) for answer, _ in answers] == [(count, 0), (0, count)]
    # It levels off; 50,000 items that somebody kept would be 9 MB as Python objects.
    assert max(grew for _, grew in answers) < 5_000, answers
