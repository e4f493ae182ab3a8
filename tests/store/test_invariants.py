"""Each rule of truth is reported when it is broken, alone, and never otherwise."""

from __future__ import annotations

import json

import pytest

from jobd.items import normalise
from jobd.process import Process
from jobd.store.claim import Turns, claim
from jobd.store.daemons import register
from jobd.store.invariants import LIMIT, check, invariants
from jobd.store.outcome import Outcome
from jobd.store.retry import retry
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore
from jobd.store.steer import request_cancel, work_off
from jobd.store.submit import Submission, submit

NOW = 1_795_305_600_000
RUNNING_JOB, ENDED_JOB, QUEUED_JOB = 1, 2, 3

KINDS = {"a": "completed", "b": "failed", "c": "skipped", "d": "completed"}


def send(store, task, keys):
    return submit(store, Submission(task), normalise(keys, task), now=NOW, actor="test", progress=None).job_id


def run(store, task, daemon, count):
    """Claim ``count`` items of a task and settle those that KINDS names."""
    claimed = store.write(
        lambda c: claim(store, c, Turns(), limit=count, tasks=[task], daemon_id=daemon, now=NOW, actor="daemon 1")
    )
    assert len(claimed) == count
    outcomes = [outcome(item) for item in claimed if item.key in KINDS]
    settled = store.write(lambda c: settle(store, c, outcomes, now=NOW + 9, actor="daemon 1"))
    assert len(settled.applied) == len(outcomes)


def outcome(item):
    kind = KINDS[item.key]
    value = json.dumps({"key": item.key}) if kind == "completed" else None
    error = None if kind == "completed" else "not today"
    return Outcome(
        item.item_id,
        item.job_id,
        item.attempt,
        item.task,
        item.key,
        kind,
        NOW,
        NOW + 5,
        value,
        error and "Error",
        error,
    )


@pytest.fixture(scope="module")
def new_file(tmp_path_factory):
    """A file that the product wrote: a job under way, one that ended and was retried, a queued and a cancelled one."""
    path = tmp_path_factory.mktemp("written") / "jobs.db"
    store = SqliteStore(path)
    store.open()
    daemon = register(store, Process("here", "boot", 7, NOW), tasks=["one", "two"], version="0", now=NOW)
    for task, keys in (("one", "abcde"), ("two", "abc"), ("three", "xy"), ("four", "zx")):
        send(store, task, list(keys))
    run(store, "one", daemon, 5)
    run(store, "two", daemon, 3)
    retry(store, ENDED_JOB, now=NOW + 20, actor="test")
    run(store, "two", daemon, 1)
    request_cancel(store, 4, now=NOW, actor="test")
    work_off(store, 4, now=NOW, actor="test")
    store.close()
    return path


COUNT_IT = "update jobs set items_total = items_total + 1, items_running = {} where id={}"


def new_item(job_id, status):
    return (
        "insert into job_items (job_id, key, payload, status, attempt, started_at, daemon_id)"
        f" values ({job_id}, 'new', 'null', '{status}', 1, 5, 1)"
    )


BROKEN = {
    "counters": [
        f"update jobs set items_completed = items_completed - 1 where id={ENDED_JOB}",
        f"update jobs set items_total = items_total + 1 where id={QUEUED_JOB}",
        f"update jobs set items_waiting = 1 where id={QUEUED_JOB}",
    ],
    "job_end": [
        f"update jobs set completed_at = null where id={ENDED_JOB}",
        f"update jobs set completed_at = 5 where id={QUEUED_JOB}",
    ],
    "item_end": [
        "update job_items set completed_at = null where status='completed' and job_id=1",
        "update job_items set completed_at = 5 where status='running'",
    ],
    "ended_job": [
        f"{new_item(ENDED_JOB, 'queued')}; {COUNT_IT.format(0, ENDED_JOB)}",
        f"{new_item(ENDED_JOB, 'running')}; {COUNT_IT.format(1, ENDED_JOB)}",
    ],
    "running_job": [
        f"{new_item(QUEUED_JOB, 'running')}; {COUNT_IT.format(1, QUEUED_JOB)}",
    ],
    "running_item": [
        "update job_items set daemon_id = null where status='running'",
        "update job_items set started_at = null where status='running'",
        "update job_items set attempt = 0 where status='running'",
    ],
    "result": [
        "delete from results where item_id=1",
        "update results set attempt = attempt + 1 where item_id=1",
        "update results set status = 'failed' where item_id=1",
    ],
    "error": ["update job_items set error = null, error_type = null where status='failed'"],
    "job_events": [
        "update job_events set name = 'complete' where name='start' and job_id=1",
        "update job_events set from_status = 'failed' where name='start' and job_id=1",
        "delete from job_events where name='reopen'; update jobs set version = version - 1 where id=2",
        "update job_events set name = 'start' where name='submit' and job_id=1",
        "update job_events set to_status = null where name='submit' and job_id=1",
    ],
    "job_version": [
        "update jobs set version = version + 1 where id=1",
        f"delete from job_events where job_id={QUEUED_JOB}; update jobs set version = 0 where id={QUEUED_JOB}",
        "delete from job_events where job_id=1 and name='start'; update jobs set version = version - 1 where id=1",
    ],
    "item_events": [
        "update job_events set to_status = 'completed' where item_id is not null and name='fail' and job_id=1",
        "update job_events set from_status = null where item_id is not null and name='fail' and job_id=1",
    ],
    "blocked": [f"update jobs set blocked = 1 where id={QUEUED_JOB}"],
    "held_back": [f"update jobs set available_at = 5 where id={QUEUED_JOB}"],
    "keys": [
        "update job_items set key = 'a' || char(0) where id=1",
        "update job_items set key = replace(hex(zeroblob(2000)), '0', 'é') where id=1",
        "update jobs set key = 'a' || char(0) where id=1",
    ],
    "values": [
        "update job_items set payload = '{' where id=1",
        "update results set value = 'NaN' where item_id=1",
        "update jobs set params = '' where id=1",
        "update jobs set policy = '{{' where id=1",
        "update jobs set submitter = '{' where id=1",
        "update job_items set progress = '[' where id=1",
        "update daemons set tasks = 'one'",
        "insert into passes (name, report) values ('prune', '{')",
        "update job_items set payload = '\"' || hex(zeroblob(600000)) || '\"' where id=1",
    ],
    "types": [
        "update jobs set created_at = 'soon' where id=1",
        "update job_items set started_at = 0.5 where id=1",
        "update job_events set message = x'c3' where id=1",
    ],
    "foreign_keys": ["insert into result_data (item_id, attempt, data) values (99, 1, x'00')"],
    "integrity": ["update jobs set retry_count = -1 where id=1"],
}


def spoil(store, script):
    """Write past every guard, as a crash of the disk or a foreign hand would."""
    connection = store.connection()
    connection.execute("pragma ignore_check_constraints=on")
    connection.execute("pragma foreign_keys=off")
    for statement in script.split("; "):
        assert connection.execute(statement).rowcount > 0
    connection.execute("pragma ignore_check_constraints=off")


def names(store, **how):
    return {violation.name for violation in check(store, **how)}


def test_a_store_that_the_product_wrote_breaks_no_rule(store, rows):
    statuses = [status for (status,) in rows.all("select status from jobs order by id")]
    assert statuses == ["running", "failed", "queued", "cancelled"]
    assert check(store) == []
    assert check(store, quick=True) == []


def test_every_rule_is_broken_by_some_test():
    assert set(BROKEN) == {invariant.name for invariant in invariants()}


@pytest.mark.parametrize(("name", "script"), [(name, script) for name, scripts in BROKEN.items() for script in scripts])
def test_a_broken_rule_is_reported_and_no_other(store, name, script):
    spoil(store, script)
    assert names(store) == {name}


def test_a_violation_names_the_job_and_the_item(store):
    spoil(store, "update job_items set daemon_id = null where status='running'")
    assert check(store) == [("running_item", 1, 5, "running without a daemon")]


@pytest.mark.parametrize("half", ["sealed_at = null", "deleted_at = 5"])
@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"keys", "values", "types", "foreign_keys", "integrity"}))
def test_a_job_that_is_being_submitted_or_deleted_is_exempt(store, name, half):
    spoil(store, f"{BROKEN[name][0]}; update jobs set {half}")
    assert check(store) == []


def test_a_pruned_result_is_still_a_result(store):
    spoil(store, "update results set value = null, pruned_at = 5")
    assert check(store) == []


def test_a_rule_that_is_broken_everywhere_is_reported_a_hundred_times(store, rows):
    rows.job(["queued"] * (LIMIT + 50))
    spoil(store, "update job_items set payload = '{'")
    assert len(check(store)) == LIMIT
