"""prune: each outcome at its age, values at theirs; nothing that is open, kept or waited for; and said before."""

from __future__ import annotations

import pytest

from jobd.maintenance import prune as passing
from jobd.maintenance.finish import finish
from jobd.maintenance.prune import Retention, prune
from jobd.maintenance.report import Change, Report
from jobd.store import removal, retention
from jobd.store.batches import always
from jobd.store.steer import request_cancel

NOW = 1_795_305_600_000
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
AGES = {"completed": 30 * DAY, "failed": 90 * DAY, "cancelled": 7 * DAY}
OUTCOMES = list(AGES)


class World:
    """Ended jobs, and the pass over them."""

    def __init__(self, store, rows):
        self.store, self.rows = store, rows

    def ended(self, ago, status="completed", items=1, **columns):
        """Add a job that ended so many ms ago with results of all its items, and return its id."""
        job_id = self.rows.job([status] * items, status=status, completed_at=NOW - ago, **columns)
        self.rows.change(
            "insert into results (item_id, attempt, task, key, value, created_at)"
            " select id, 1, 'work', key, '1', ? from job_items where job_id = ?",
            NOW, job_id,
        )  # fmt: skip
        return job_id

    def prune(self, *, now=NOW, check_only=False, go_on=always, ages=AGES, values=None, keep_last=0):
        kept = Retention(ages, values, keep_last)
        return prune(self.store, retention=kept, now=now, actor="test", check_only=check_only, go_on=go_on)

    def jobs(self):
        return [row[0] for row in self.rows.all("select id from jobs where deleted_at is null order by id")]

    def valued(self):
        """Return the jobs of which a result has a value."""
        sql = "select distinct i.job_id from results r join job_items i on i.id = r.item_id where r.value is not null"
        return [row[0] for row in self.rows.all(sql)]


@pytest.fixture
def world(store, rows):
    return World(store, rows)


def removed(report):
    return [change.job_id for change in report.changes if change.to_status == "removed"]


def pruned(report):
    return [change.job_id for change in report.changes if change.to_status != "removed"]


# -- ages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_is_kept_for_its_age_and_not_a_second_longer(world, outcome):
    age = AGES[outcome]
    kept = world.ended(age, outcome)
    assert removed(world.prune()) == []
    assert removed(world.prune(now=NOW + 1)) == [kept]
    assert world.jobs() == []


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_one_outcome_is_no_matter_of_the_others_ages(world, outcome):
    job_ids = {other: world.ended(365 * DAY, other) for other in OUTCOMES}
    ages = dict.fromkeys(OUTCOMES) | {outcome: DAY}
    assert removed(world.prune(ages=ages)) == [job_ids.pop(outcome)]
    assert world.jobs() == sorted(job_ids.values())


def test_what_is_kept_for_ever_is(world):
    world.ended(10_000 * DAY)
    assert world.prune(ages=dict.fromkeys(OUTCOMES)) == Report("prune", False, [], {})


def test_the_report_names_each_job_once_with_its_evidence_and_counts_its_items(world):
    job_id = world.ended(31 * DAY + 2 * HOUR, items=5)
    report = world.prune()
    assert report.changes == [
        Change(job_id, None, None, "completed", "removed", "completed 31 d 2 h ago, kept for 30 d",
               since=NOW - 31 * DAY - 2 * HOUR),
    ]  # fmt: skip
    assert report.counts == {"removed": 1, "items": 5}


def test_the_clock_that_was_set_back_makes_nothing_old_and_forward_again_nothing_older_than_it_is(world):
    job_id = world.ended(DAY)
    assert removed(world.prune(now=NOW - 400 * DAY)) == []
    assert removed(world.prune(now=NOW)) == []
    assert world.jobs() == [job_id]


def test_a_job_goes_with_all_that_it_left_and_no_other_does(world, rows):
    gone, stays = world.ended(31 * DAY, items=3, key="k"), world.ended(DAY, items=2)
    rows.change("insert into watchlist (task, key, last_job_id) values ('work', 'a', ?)", gone)
    world.prune()
    assert rows.all("select id from jobs") == [(stays,)]
    assert [row[0] for row in rows.all("select distinct job_id from job_items")] == [stays]
    assert [row[0] for row in rows.all("select distinct job_id from job_events")] == [stays]
    assert rows.one("select count(*) from results") == 2
    assert rows.one("select last_job_id from watchlist") is None


# -- what stays -------------------------------------------------------------------------------------------------------


def test_nothing_goes_that_is_open_submitted_or_deleted_whatever_its_age(world, rows):
    long_ago = {"created_at": NOW - 999 * DAY, "status_updated_at": NOW - 999 * DAY}
    world.rows.job(["queued"], **long_ago)
    world.rows.job(["running"], status="running", **long_ago)
    world.rows.job(["queued"], sealed_at=None, **long_ago)
    world.rows.job(["completed"], status="completed", sealed_at=None, completed_at=NOW - 999 * DAY)
    world.rows.job(["completed"], status="completed", deleted_at=NOW - DAY, completed_at=NOW - 999 * DAY)
    before = rows.all("select * from jobs"), rows.all("select * from results")
    assert world.prune(values=DAY).changes == []
    assert (rows.all("select * from jobs"), rows.all("select * from results")) == before


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_job_that_another_waits_for_stays_whole_until_that_has_ended(world, rows, status):
    parent = world.ended(99 * DAY)
    child = rows.job(["queued"], status=status)
    rows.change("insert into job_dependencies (job_id, after_id) values (?, ?)", child, parent)
    assert world.prune(values=DAY).changes == []
    assert world.valued() == [parent]
    request_cancel(world.store, child, now=NOW, actor="test")
    finish(world.store, now=NOW, actor="test")
    if status == "running":
        rows.change("update jobs set status='cancelled', completed_at=? where id=?", NOW, child)
    assert removed(world.prune()) == [parent]


def test_the_newest_of_each_task_are_kept_whole_whatever_their_age(world):
    old = [world.ended(99 * DAY) for _ in range(4)]
    other = world.ended(99 * DAY, task="other")
    report = world.prune(keep_last=2, values=DAY)
    assert removed(report) == old[:2]
    assert pruned(report) == []
    assert world.jobs() == [*old[2:], other]
    assert set(world.valued()) >= {*old[2:], other}


def test_the_newest_are_counted_over_all_outcomes(world):
    old = world.ended(99 * DAY)
    world.ended(DAY, "failed")
    assert removed(world.prune(keep_last=2)) == []
    assert removed(world.prune(keep_last=1)) == [old]


def test_by_default_no_job_is_kept_for_being_the_last(world):
    job_id = world.ended(99 * DAY)
    assert removed(world.prune()) == [job_id]


# -- values -----------------------------------------------------------------------------------------------------------


def test_values_go_at_their_own_age_and_their_job_stays(world, rows):
    kept, old = world.ended(7 * DAY, items=2), world.ended(8 * DAY + HOUR, items=2)
    report = world.prune(values=7 * DAY)
    assert report.changes == [
        Change(old, None, None, "completed", "completed", "its results' values: completed 8 d 1 h ago, kept for 7 d",
               since=NOW - 8 * DAY - HOUR),
    ]  # fmt: skip
    assert report.counts == {"values": 1}
    assert world.valued() == [kept]
    assert world.jobs() == [kept, old]
    assert rows.one("select values_pruned_at from jobs where id=?", old) == NOW
    assert world.prune(values=7 * DAY).changes == [], "once"


def test_values_go_with_their_job_at_the_latest(world):
    job_id = world.ended(31 * DAY)
    report = world.prune(values=60 * DAY)
    assert (removed(report), pruned(report)) == ([job_id], [])


def test_a_job_without_values_goes_at_its_age_like_any_other(world):
    job_id = world.ended(8 * DAY)
    assert pruned(world.prune(values=7 * DAY)) == [job_id]
    assert removed(world.prune(now=NOW + 23 * DAY, values=7 * DAY)) == [job_id]


def test_values_of_jobs_that_are_kept_for_ever_go_as_well(world):
    job_id = world.ended(8 * DAY, "failed")
    assert pruned(world.prune(ages=dict.fromkeys(OUTCOMES), values=7 * DAY)) == [job_id]


# -- the same said before ---------------------------------------------------------------------------------------------


def test_check_only_changes_nothing_and_says_what_the_pass_then_does(world, rows):
    for outcome in OUTCOMES:
        for days in (1, 8, 31, 91):
            world.ended(days * DAY, outcome, items=2)
    tables = ("jobs", "job_items", "results", "job_events")
    before = [rows.all(f"select * from {table}") for table in tables]
    settings = {"values": 3 * DAY, "keep_last": 1}
    said = world.prune(check_only=True, **settings)
    assert [rows.all(f"select * from {table}") for table in tables] == before
    did = world.prune(**settings)
    assert said == Report("prune", True, did.changes, did.counts)
    assert (len(removed(said)), len(pruned(said))) == (5, 3)


def test_of_more_jobs_than_anybody_reads_the_report_names_the_first_and_counts_all(world, monkeypatch):
    monkeypatch.setattr(passing, "NAMED", 3)
    job_ids = [world.ended(31 * DAY) for _ in range(5)]
    for check_only in (True, False):
        report = world.prune(check_only=check_only)
        assert removed(report) == job_ids[:3]
        assert report.counts == {"removed": 5, "items": 5}


# -- in batches -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    for module in (passing, retention, removal):
        monkeypatch.setattr(module, "BATCH", 2)


def test_it_stops_after_the_batch_that_it_is_in_and_the_next_call_goes_on(world, small_batches):
    job_ids = [world.ended(31 * DAY) for _ in range(5)]
    left = iter([True] * 2)
    first = world.prune(go_on=lambda: next(left, False))
    assert removed(first) == job_ids[:2]
    assert finish(world.store, now=NOW, actor="test")
    assert world.jobs() == job_ids[2:]
    assert removed(world.prune()) == job_ids[2:]


def test_no_transaction_is_larger_than_a_batch(world, rows, small_batches):
    for _ in range(5):
        world.ended(31 * DAY)
    connection, sizes, write = world.store.connection(), [], world.store.write

    def watched(work, **kwargs):
        before = connection.total_changes
        answer = write(work, **kwargs)
        sizes.append(connection.total_changes - before)
        return answer

    world.store.write = watched
    world.prune()
    # An item goes with its result; of two jobs the two rows.
    assert max(sizes) <= 4
    assert rows.one("select count(*) from jobs") == 0


def test_killed_between_two_batches_what_was_asked_for_is_found_by_finish(world, small_batches, rows):
    for _ in range(5):
        world.ended(31 * DAY)
    write, left = world.store.write, [1]

    class Killed(BaseException):
        pass

    def counted(work, **kwargs):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return write(work, **kwargs)

    world.store.write = counted
    with pytest.raises(Killed):
        world.prune()
    world.store.write = write
    assert finish(world.store, now=NOW, actor="test")
    assert rows.one("select count(*) from jobs") == 3
    assert len(removed(world.prune())) == 3


# -- what it costs where there is nothing to do -----------------------------------------------------------------------


class Opcodes:
    """Counts the steps of SQLite's machine, by the thousand."""

    def __init__(self, connection):
        self.count = 0
        connection.set_progress_handler(self._step, 1)

    def _step(self):
        self.count += 1
        return 0


def opcodes(world, **settings):
    connection = world.store.connection()
    found = Opcodes(connection)
    assert world.prune(**settings).changes == []
    connection.set_progress_handler(None, 0)
    return found.count


def many(rows, count, ago):
    """Add so many rows of ended jobs, in one statement."""
    number = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)"
    rows.change(
        f"{number} insert into jobs (task, status, status_updated_at, created_at, sealed_at, version, completed_at,"
        " items_total, items_completed) select 'work', 'completed', 0, 0, 0, 1, ? - i, 1, 1 from n",
        count, NOW - ago,
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"values": 29 * DAY}, {"keep_last": 5}], ids=["jobs", "values", "keep_last"])
def test_where_nothing_is_old_it_takes_as_many_steps_for_20000_jobs_as_for_20(world, rows, settings):
    # Created before every age: only when they ended tells that they are not old.
    many(rows, 20, DAY)
    few = opcodes(world, **settings)
    many(rows, 20_000, 2 * DAY)
    assert opcodes(world, **settings) == few < 2_000
