"""recover: by evidence before time, nothing that somebody may still run, and the same said before it is done."""

from __future__ import annotations

import itertools
import os
import re
import sys

import pytest
from kit import forked
from kit.rows import Rows

from jobd import process
from jobd.maintenance import recover as recovering
from jobd.maintenance.evidence import Evidence, Holder, Rules
from jobd.maintenance.finish import finish
from jobd.maintenance.recover import recover
from jobd.maintenance.report import KEPT, Report
from jobd.store import orphans
from jobd.store.claim import Turns, claim
from jobd.store.invariants import check
from jobd.store.outcome import Outcome
from jobd.store.settle import settle
from jobd.store.sqlite import SqliteStore
from jobd.store.steer import request_cancel
from jobd.store.submission import Submission
from jobd.store.submit import submit

NOW = 1_795_305_600_000
SECOND, MINUTE = 1_000, 60_000
GRACE = 10 * MINUTE
BOOT = "this boot"
DEAD, MINE = 1, 2


class World(Rows):
    """A file in which daemon 1 ran items and died, and daemon 2 holds the lock now."""

    def __init__(self, store):
        super().__init__(store)
        for daemon_id in (DEAD, MINE):
            self.daemon(daemon_id, boot=BOOT)

    def job(self, items, *, task="work", **options):
        pairs = [(f"key-{number:05}", "null") for number in range(items)]
        return submit(self.store, Submission(task=task, **options), pairs, now=NOW, actor="test").job_id

    def run(self, items, *, by=DEAD, at=NOW, task="work", **options):
        """Submit a job, have a daemon start all of its items, and return (job id, item ids)."""
        job_id = self.job(items, task=task, **options)

        def start(connection):
            return claim(
                self.store, connection, Turns(), limit=items, tasks=[task], daemon_id=by, now=at,
                actor="test",
            )  # fmt: skip

        self.store.write(start)
        return job_id, [row[0] for row in self.all("select id from job_items where job_id=? order by id", job_id)]

    def recover(self, *, daemon=MINE, known=(), locks=True, now=NOW, limits=None, check_only=False, boot=BOOT):
        return recover(
            self.store,
            holder=Holder(daemon, frozenset(known), locks=locks),
            rules=Rules(boot=boot, grace_ms=GRACE, max_interruptions=limits),
            now=now,
            actor="test",
            check_only=check_only,
        )

    def item(self, item_id, columns="status"):
        return self.one(f"select {columns} from job_items where id=?", item_id)

    def events(self, item_id):
        sql = "select name, from_status, to_status, attempt, message from job_events where item_id=? order by id"
        return self.all(sql, item_id)

    def everything(self):
        tables = ("jobs", "job_items", "results", "job_events", "daemons")
        return {table: self.all(f"select * from {table} order by 1") for table in tables}

    def save(self, item_id, *, attempt=1, status="completed", value='"kept"'):
        self.change(
            "insert into results (item_id, attempt, task, key, status, value, created_at)"
            " values (?, ?, 'work', 'key', ?, ?, ?)",
            item_id, attempt, status, value, NOW,
        )  # fmt: skip


@pytest.fixture
def world(store):
    world = World(store)
    yield world
    assert check(store) == []


def found(report):
    """Return what a report says of items: (item id, what it becomes, why)."""
    return [(change.item_id, change.to_status, change.evidence) for change in report.changes if change.item_id]


GONE = "its daemon is gone"
SILENT = "silent for over 600 s"


# -- evidence before time ---------------------------------------------------------------------------------------------


def test_what_a_dead_daemon_ran_is_queued_again_at_once(world):
    job_id, (first, second) = world.run(2)
    report = world.recover()
    assert found(report) == [(first, "queued", GONE), (second, "queued", GONE)]
    assert report.counts == {"queued": 2}
    columns = "status, attempt, interruptions, lone_deaths, failures, daemon_id, available_at"
    assert world.item(first, columns) == ("queued", 1, 1, 0, 0, None, 0)
    assert world.events(first) == [("recover", "running", "queued", 1, GONE)]
    assert world.one("select status, items_running from jobs where id=?", job_id) == ("running", 0)


def test_the_same_holds_where_no_daemon_lives_and_a_command_holds_the_lock(world):
    _, (item,) = world.run(1)
    assert found(world.recover(daemon=None)) == [(item, "queued", GONE)]


def test_a_stored_result_decides_before_anything_else(world):
    job_id, (saved, unsaved) = world.run(2, tolerance="1")
    world.save(saved)
    report = world.recover()
    assert found(report) == [(saved, "completed", "a result is stored"), (unsaved, "queued", GONE)]
    assert world.item(saved, "status, completed_at, interruptions, error") == ("completed", NOW, 0, None)
    assert world.events(saved) == [("reconcile", "running", "completed", 1, "a result is stored")]
    assert world.one("select items_completed, items_running from jobs where id=?", job_id) == (1, 0)


def test_a_stored_failure_decides_as_well_and_is_the_jobs_last_error(world):
    job_id, (item,) = world.run(1)
    world.save(item, status="failed", value='"the cluster said no"')
    assert found(world.recover()) == [(item, "failed", "a result is stored")]
    assert world.item(item, "status, error, error_type") == ("failed", "the cluster said no", None)
    assert world.one("select status, last_error from jobs where id=?", job_id) == ("failed", "the cluster said no")


def test_a_stored_result_of_what_the_live_daemon_has_in_hand_is_left_to_its_own_settlement(world):
    """Its handler goes on: what it returns in the end may replace what it has saved, and has to find it running."""
    _, (item,) = world.run(1, by=MINE)
    world.save(item)
    before = world.everything()
    assert world.recover(known=[item], now=NOW + 1_000 * GRACE).changes == []
    assert world.everything() == before
    assert found(world.recover(known=[item + 1])) == [(item, "completed", "a result is stored")]


def test_a_stored_result_decides_under_a_cancel_request_and_while_its_daemon_lives_too(world):
    job_id, (item,) = world.run(1, by=MINE)
    world.save(item)
    request_cancel(world.store, job_id, now=NOW, actor="test")
    assert found(world.recover()) == [(item, "completed", "a result is stored")]
    assert world.one("select status from jobs where id=?", job_id) == "completed"


def test_the_result_of_another_attempt_is_no_evidence(world):
    _, (item,) = world.run(1)
    world.save(item, attempt=7)
    assert found(world.recover()) == [(item, "queued", GONE)]


def test_what_the_live_daemon_knows_is_never_touched_however_long_it_takes(world):
    _, (item,) = world.run(1, by=MINE)
    before = world.everything()
    assert world.recover(known=[item], now=NOW + 1_000 * GRACE).changes == []
    assert world.everything() == before


def test_what_the_live_daemon_does_not_know_is_an_orphan_after_the_grace_alone(world):
    _, (item,) = world.run(1, by=MINE)
    for check_only in (True, False):
        assert world.recover(now=NOW + GRACE - SECOND, check_only=check_only).changes == []
        assert world.recover(now=NOW + GRACE, check_only=check_only).changes == []
    assert world.item(item, "status, interruptions") == ("running", 0)
    assert found(world.recover(now=NOW + GRACE + SECOND)) == [(item, "queued", SILENT)]
    assert world.events(item) == [("recover", "running", "queued", 1, SILENT)]


def test_an_item_that_names_no_daemon_is_an_orphan_after_the_grace_alone(world):
    _, (item,) = world.run(1)
    world.change("update job_items set daemon_id=null")
    assert world.recover(now=NOW + GRACE - SECOND).changes == []
    assert found(world.recover(now=NOW + GRACE + SECOND)) == [(item, "queued", SILENT)]


@pytest.mark.parametrize(("age", "orphan"), [(GRACE - SECOND, False), (GRACE, False), (GRACE + SECOND, True)])
def test_without_locks_another_daemon_counts_as_dead_after_a_grace_without_heartbeat(world, age, orphan):
    _, (item,) = world.run(1, at=NOW - 5 * GRACE)
    world.change("update daemons set heartbeat_at=? where id=?", NOW - age, DEAD)
    assert found(world.recover(locks=False)) == ([(item, "queued", SILENT)] if orphan else [])


@pytest.mark.parametrize(("age", "orphan"), [(GRACE - SECOND, False), (GRACE + SECOND, True)])
def test_without_locks_a_fresh_start_needs_no_heartbeat(world, age, orphan):
    _, (item,) = world.run(1, at=NOW - age)
    world.change("update daemons set heartbeat_at=1 where id=?", DEAD)
    assert found(world.recover(locks=False)) == ([(item, "queued", SILENT)] if orphan else [])


def test_the_grace_is_a_rule_of_the_caller(world):
    _, (item,) = world.run(1, by=MINE)
    report = recover(world.store, holder=Holder(MINE), rules=Rules(BOOT, grace_ms=5_000), now=NOW + 5_001, actor="test")
    assert found(report) == [(item, "queued", "silent for over 5 s")]


# -- the statement that acts asks again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        "update job_items set started_at=?1 - 1",
        "update daemons set heartbeat_at=?1 - 1 where id=1",
        "update job_items set completed_at=?1",
        "update job_items set attempt=2",
        "update job_items set status='queued'",
    ],
)
def test_what_moved_between_the_look_and_the_act_is_left_alone(world, monkeypatch, spoil):
    """As on a database where the look takes no lock: the guard in the statement is all there is."""
    now = NOW + 2 * GRACE
    _, (item,) = world.run(1)
    world.change("update daemons set heartbeat_at=1")
    connection = world.store.connection()
    judge = Evidence.judge

    def judged(*arguments):
        verdicts = judge(*arguments)
        if connection.in_transaction:
            assert [verdict.silent for verdict in verdicts] == [True]
            connection.execute(spoil, (now,) if "?1" in spoil else ())
        return verdicts

    monkeypatch.setattr(Evidence, "judge", judged)
    report = world.recover(locks=False, now=now)
    assert report.changes == []
    assert world.item(item, "interruptions") == 0
    assert world.events(item) == []
    world.change("update job_items set status='running', completed_at=null, started_at=coalesce(started_at, 1)")


def test_a_running_row_that_has_an_end_is_not_judged_by_the_clock(world):
    _, (item,) = world.run(1, by=MINE)
    world.change("update job_items set completed_at=?", NOW)
    for check_only in (True, False):
        assert world.recover(now=NOW + 2 * GRACE, check_only=check_only).changes == []
    assert world.item(item) == "running"
    world.change("update job_items set completed_at=null")


def test_a_running_row_of_a_dead_daemon_loses_an_end_that_it_cannot_have(world):
    _, (item,) = world.run(1)
    world.change("update job_items set completed_at=?", NOW)
    world.recover()
    assert world.item(item, "status, completed_at") == ("queued", None)


def test_completed_rows_are_never_touched(world):
    job_id, (first, second) = world.run(2)

    def finish(connection):
        row = Outcome(first, job_id, 1, "work", "key-00000", "completed", NOW, NOW, "1")
        settle(world.store, connection, [row], now=NOW, actor="test")

    world.store.write(finish)
    columns = "status, attempt, completed_at, daemon_id, interruptions"
    before = world.item(first, columns)
    assert found(world.recover(now=NOW + 9 * GRACE)) == [(second, "queued", GONE)]
    assert world.item(first, columns) == before == ("completed", 1, NOW, DEAD, 0)
    assert world.one("select items_completed, items_running from jobs where id=?", job_id) == (1, 0)


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["cancel_requested_at", "fail_requested_at"])
def test_an_orphan_of_a_job_that_is_being_cancelled_or_failed_is_cancelled_and_the_job_ends(world, column):
    job_id, (item,) = world.run(1)
    world.change(f"update jobs set {column}=?", NOW)
    assert found(world.recover()) == [(item, "cancelled", GONE)]
    assert world.item(item, "status, completed_at, interruptions") == ("cancelled", NOW, 0)
    assert world.events(item) == [("cancel", "running", "cancelled", 1, GONE)]
    ended = "cancelled" if column == "cancel_requested_at" else "failed"
    assert world.one("select status, completed_at from jobs where id=?", job_id) == (ended, NOW)


def test_an_orphan_of_a_job_that_is_being_deleted_is_left_to_the_removal(world):
    _, (item,) = world.run(1)
    world.change("update jobs set deleted_at=?", NOW)
    assert world.recover().changes == []
    assert world.item(item) == "running"


# -- dying alone ------------------------------------------------------------------------------------------------------


def test_the_only_running_row_of_a_daemon_that_died_in_this_boot_died_alone(world):
    _, (item,) = world.run(1)
    world.recover()
    assert world.item(item, "interruptions, lone_deaths") == (1, 1)


@pytest.mark.parametrize(
    ("spoil", "options"),
    [
        ("update daemons set boot='another'", {}),
        ("update daemons set stopped_at=1", {}),
        ("delete from daemons where id=1", {}),
        ("update job_items set daemon_id=null", {"now": NOW + 2 * GRACE}),
        ("update job_items set daemon_id=2", {"now": NOW + 2 * GRACE}),
        ("update daemons set heartbeat_at=1", {"now": NOW + 2 * GRACE, "locks": False}),
    ],
    ids=["another boot", "it left in order", "no row", "no daemon named", "its daemon lives", "only silence"],
)
def test_it_is_no_lone_death(world, spoil, options):
    _, (item,) = world.run(1)
    world.change(spoil)
    world.recover(**options)
    assert world.item(item, "status, interruptions, lone_deaths") == ("queued", 1, 0)


def test_of_two_running_rows_neither_died_alone(world):
    _, items = world.run(2)
    world.recover()
    assert [world.item(item, "interruptions, lone_deaths") for item in items] == [(1, 0), (1, 0)]


def test_a_neighbour_in_a_job_that_is_being_deleted_is_a_neighbour(world):
    _, (item,) = world.run(1)
    neighbour, _ = world.run(1)
    world.change("update jobs set deleted_at=? where id=?", NOW, neighbour)
    world.recover()
    assert world.item(item, "interruptions, lone_deaths") == (1, 0)


def test_a_neighbour_whose_result_was_stored_is_a_neighbour(world):
    _, (first, second) = world.run(2)
    world.save(first)
    world.recover()
    assert world.item(second, "interruptions, lone_deaths") == (1, 0)


def test_rows_of_two_daemons_are_counted_apart(world):
    _, (old,) = world.run(1, by=DEAD)
    _, (live,) = world.run(1, by=MINE)
    world.recover(known=[live])
    assert world.item(old, "interruptions, lone_deaths") == (1, 1)


def test_an_item_is_abandoned_when_it_dies_alone_once_more_than_it_may(world):
    job_id, (item,) = world.run(1)
    for death in range(1, 6):
        world.recover()
        assert world.item(item, "status, interruptions, lone_deaths") == ("queued", death, death)
        world.change("update job_items set status='running', attempt=attempt+1, daemon_id=?", DEAD)
        world.change("update jobs set items_running=1")
    report = world.recover()
    error = "interrupted: its daemon died 6 times while it ran alone"
    assert found(report) == [(item, "failed", "alone at 6 deaths")]
    columns = "status, attempt, interruptions, lone_deaths, failures, error_type, error, completed_at"
    assert world.item(item, columns) == ("failed", 6, 6, 6, 0, None, error, NOW)
    assert world.events(item)[-1] == ("abandon", "running", "failed", 6, "alone at 6 deaths")
    assert world.one("select status, last_error, items_failed from jobs where id=?", job_id) == ("failed", error, 1)


@pytest.mark.parametrize(("limit", "status"), [(0, "failed"), (1, "queued")])
def test_how_often_it_may_is_the_tasks_policy(world, limit, status):
    _, (mine,) = world.run(1, task="fragile")
    world.recover(limits={"fragile": limit})
    assert world.item(mine) == status
    _, (other,) = world.run(1, task="other")
    world.recover(limits={"fragile": limit})
    assert world.item(other) == "queued"


def test_deaths_among_others_never_fail_an_item(world):
    _, items = world.run(2)
    for _ in range(12):
        world.recover()
        world.change("update job_items set status='running', attempt=attempt+1, daemon_id=?", DEAD)
        world.change("update jobs set items_running=2")
    assert [world.item(item, "interruptions, lone_deaths") for item in items] == [(12, 0), (12, 0)]


# -- check_only -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(world):
    """Everything that recover may find, at once."""
    world.run(2, by=MINE, at=NOW - 2 * GRACE)
    _, (saved, _) = world.run(2)
    world.save(saved)
    asked, _ = world.run(1)
    world.change("update jobs set cancel_requested_at=? where id=?", NOW, asked)
    _, (doomed,) = world.run(1)
    world.change("update job_items set lone_deaths=5, daemon_id=3 where id=?", doomed)
    world.change(
        "insert into daemons (id, host, boot, pid, process_started_at, started_at, heartbeat_at, version)"
        " values (3, 'here', ?, 1, 1, 1, 1, '1')",
        BOOT,
    )
    left_open, _ = world.run(1)
    world.change(
        "update job_items set status='skipped', completed_at=?, error='nothing to do' where job_id=?", NOW, left_open
    )
    world.change("update jobs set items_running=0, items_skipped=1 where id=?", left_open)
    dead = world.job(1)
    gone = process.Process(process.host(), "a former boot", 1, 1).dumps()
    world.change("update jobs set sealed_at=null, submitter=? where id=?", gone, dead)
    return world


def test_check_only_changes_nothing_and_reports_the_same(mixed):
    before = mixed.everything()
    would = mixed.recover(check_only=True)
    assert mixed.everything() == before
    did = mixed.recover()
    assert would.check_only
    assert not did.check_only
    assert would.changes == did.changes
    assert would.counts == did.counts
    assert did.counts == {"queued": 3, "completed": 2, "cancelled": 1, "failed": 1, "removed": 1}
    assert mixed.recover().changes == []


def test_check_only_writes_not_even_where_nobody_else_may(mixed):
    mixed.store.connection().execute("pragma query_only=on")
    assert len(mixed.recover(check_only=True).changes) == 8
    mixed.store.connection().execute("pragma query_only=off")


def test_a_report_says_of_each_row_since_when_and_at_which_attempt(world):
    job_id, (item,) = world.run(1, at=NOW - 77)
    (change,) = world.recover().changes
    assert change.json() == {
        "job_id": job_id,
        "item_id": item,
        "key": "key-00000",
        "from_status": "running",
        "to_status": "queued",
        "evidence": GONE,
    }
    assert (change.since, change.attempt) == (NOW - 77, 1)


def test_a_report_survives_its_text(mixed):
    report = mixed.recover()
    assert Report.loads(report.dumps()) == report


# -- submissions and jobs ---------------------------------------------------------------------------------------------


def submitter(pid, started_at):
    return process.Process(process.host(), process.boot(), pid, started_at).dumps()


def test_the_job_of_a_submitter_that_died_is_removed_whole_and_its_key_is_free(world):
    job_id = world.job(3, key="nightly")
    child = forked.Popen([sys.executable, "-c", "pass"])
    child.wait(20)
    world.change("update jobs set sealed_at=null, submitter=?", submitter(child.pid, NOW))
    (change,) = world.recover(check_only=True).changes
    assert world.one("select count(*) from jobs") == 1
    report = world.recover()
    assert report.changes == [change]
    assert (change.job_id, change.item_id, change.to_status, change.evidence) == (
        job_id, None, "removed", "its submitter is gone",
    )  # fmt: skip
    assert world.job(1, key="nightly") > job_id
    assert finish(world.store, now=NOW, actor="test")
    counts = [
        world.one(f"select count(*) from {table} where {column}=?", job_id)
        for table, column in (("jobs", "id"), ("job_items", "job_id"), ("job_events", "job_id"))
    ]
    assert counts == [0, 0, 0]


def test_the_job_of_a_live_submitter_and_one_of_another_host_are_left_alone(world):
    jobs = [world.job(1), world.job(1)]
    me = process.myself()
    elsewhere = me._replace(host="elsewhere", boot="elsewhere")
    for job_id, who in zip(jobs, (me, elsewhere), strict=True):
        world.change("update jobs set sealed_at=null, submitter=? where id=?", who.dumps(), job_id)
    assert me.pid == os.getpid()
    assert world.recover().changes == []
    assert world.one("select count(*) from job_items") == 2


@pytest.mark.parametrize(
    ("end", "counter", "status"),
    [
        ("status='completed', completed_at=1", "items_completed", "completed"),
        ("status='failed', completed_at=1, error='no'", "items_failed", "failed"),
    ],
)
def test_a_job_that_was_left_open_though_nothing_of_it_is_ends(world, end, counter, status):
    job_id, (item,) = world.run(1)
    if status == "completed":
        world.save(item)
    world.change(f"update job_items set {end}")
    world.change(f"update jobs set items_running=0, {counter}=1")
    (change,) = world.recover().changes
    assert (change.job_id, change.item_id, change.from_status, change.to_status) == (job_id, None, "running", status)
    assert world.one("select status, completed_at from jobs") == (status, NOW)


@pytest.mark.parametrize("column", ["sealed_at=null", "deleted_at=1"])
def test_a_job_that_is_being_submitted_or_deleted_is_not_ended(world, column):
    job_id = world.job(1)
    world.change("update job_items set status='skipped', completed_at=1, error='no'")
    world.change(f"update jobs set items_skipped=1, submitter=null, {column} where id=?", job_id)
    assert world.recover().changes == []
    assert world.one("select status from jobs") == "queued"


# -- many -------------------------------------------------------------------------------------------------------------


def test_only_what_ends_is_progress_of_its_job_and_not_what_goes_back_to_the_queue(world):
    queued, _ = world.run(1)
    completed, (item,) = world.run(1)
    world.save(item)
    before = world.one("select progress_at from jobs where id=?", queued)
    world.recover(now=NOW + MINUTE)
    assert world.all("select id, progress_at from jobs order by id") == [(queued, before), (completed, NOW + MINUTE)]


def test_many_are_recovered_in_batches_of_their_own_transactions_and_each_counts_once(world, monkeypatch):
    """201 rows of one daemon: in the last batch one is left, which for that has not died alone."""
    monkeypatch.setattr(recovering, "BATCH", 100)
    monkeypatch.setattr(recovering.Pace, "held", lambda *_: None)
    _, items = world.run(201)
    batches = []
    carry_out = orphans.carry_out

    def counted(store, connection, verdicts, **options):
        assert store.in_transaction(connection)
        # The number of the transaction: one that another connection sees only when it has committed.
        batches.append(len(verdicts))
        if len(batches) == 2:
            outside = SqliteStore(store.path)
            sql = "select count(*) from job_items where status='queued'"
            assert outside.read(lambda other: other.execute(sql).fetchone()[0]) == 100
            outside.close()
        return carry_out(store, connection, verdicts, **options)

    monkeypatch.setattr(orphans, "carry_out", counted)
    report = world.recover()
    assert batches == [100, 100, 1]
    assert report.counts == {"queued": 201}
    assert len(report.changes) == len({change.item_id for change in report.changes}) == 201
    assert world.all("select interruptions, lone_deaths, count(*) from job_items group by 1, 2") == [(1, 0, 201)]
    assert world.one("select items_running, items_total from jobs") == (0, 201)
    assert world.item(items[-1]) == "queued"


def test_check_only_of_many_tells_of_each_once(world):
    world.run(1_500)
    world.run(1_500)
    report = world.recover(check_only=True)
    assert report.counts == {"queued": 3_000}
    assert len({change.item_id for change in report.changes}) == len(report.changes) == KEPT
    assert (report.total, Report.loads(report.dumps())) == (3_000, report)


def test_what_runs_is_found_by_the_index_of_running_items_not_among_all(world):
    world.run(3)
    statements = []
    connection = world.store.connection()
    connection.set_trace_callback(statements.append)
    world.recover()
    connection.set_trace_callback(None)
    looks = [text for text in statements if text.startswith("select") and "from job_items" in text]
    assert len(looks) == 3
    for text in looks:
        plan = [row[3] for row in connection.execute(f"explain query plan {text}").fetchall()]
        assert any("INDEX job_items_running" in line for line in plan), plan
        assert not [line for line in plan if re.search(r"SCAN (i|job_items|results|r|jobs|j)\b(?! USING)", line)]


def test_who_is_told_to_leave_stops_between_two_batches_and_the_next_call_goes_on(world, monkeypatch):
    monkeypatch.setattr(orphans, "BATCH", 2)
    monkeypatch.setattr(recovering, "BATCH", 2)
    world.run(5)
    left = itertools.chain([True, True], itertools.repeat(False))
    report = recover(
        world.store, holder=Holder(MINE), rules=Rules(BOOT), now=NOW, actor="test", go_on=lambda: next(left)
    )
    assert len(report.changes) == 4
    assert world.one("select count(*) from job_items where status='running'") == 1
    assert len(world.recover().changes) == 1
    assert world.one("select sum(interruptions), sum(lone_deaths) from job_items") == (5, 1)


def test_jobs_that_were_left_open_end_in_batches_too(world, monkeypatch):
    monkeypatch.setattr(recovering, "BATCH", 2)
    for _ in range(3):
        world.job(1)
    world.change("update job_items set status='skipped', completed_at=1, error='no'")
    world.change("update jobs set items_skipped=1")
    asked = itertools.count()

    def go_on():
        # Until the first batch was written: looks before it ask, too.
        return next(asked) < 10 and world.one("select count(*) from jobs where completed_at is null") == 3

    report = recover(world.store, holder=Holder(MINE), rules=Rules(BOOT), now=NOW, actor="test", go_on=go_on)
    assert report.counts == {"completed": 2}
    assert world.recover().counts == {"completed": 1}


def test_of_a_batch_of_which_one_has_moved_the_others_are_carried_out(world):
    """As on a database where the look takes no lock."""
    job_id, (first, second) = world.run(2)

    def work(connection):
        found = orphans.running(connection)
        connection.execute("update job_items set attempt=2 where id=?", (first,))
        verdicts = [orphans.Verdict(item, "recover", "queued", GONE) for item in found]
        return orphans.carry_out(
            world.store, connection, verdicts, since=NOW - GRACE, holder=MINE, now=NOW, actor="test"
        )

    assert [verdict.item.id for verdict in world.store.write(work)] == [second]
    assert [world.item(item, "status, interruptions") for item in (first, second)] == [("running", 0), ("queued", 1)]
    assert [len(world.events(item)) for item in (first, second)] == [0, 1]
    assert world.one("select items_running from jobs where id=?", job_id) == 1


def test_a_batch_that_does_not_commit_is_as_if_it_had_not_been(world, monkeypatch):
    world.run(3)
    before = world.everything()

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(orphans, "end_jobs", cut)
    with pytest.raises(KeyboardInterrupt):
        world.recover()
    assert world.everything() == before


def test_recovering_twice_finds_nothing_the_second_time(world):
    world.run(3)
    assert len(world.recover().changes) == 3
    before = world.everything()
    assert world.recover().changes == []
    assert world.everything() == before
