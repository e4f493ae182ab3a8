"""Fifteen batches of items in one move: every transaction on the way is small, and between any two the job is true."""

from __future__ import annotations

import shutil

import pytest

from jobd.maintenance.finish import finish
from jobd.maintenance.prune import Retention, prune
from jobd.store.batches import BATCH
from jobd.store.removal import remove_job, request_delete
from jobd.store.retry import resume, retry
from jobd.store.sqlite import SqliteStore
from jobd.store.steer import request_cancel, request_fail, work_off

NOW = 1_795_305_600_000
DAY = 86_400_000
ITEMS = 30_000
# Beside its rows a batch writes the job's counters, its event, its end and that one's event, and a result's remains.
BESIDE = 8


def fill(store, status):
    """Write one job of so many items of one status, each completed one with a result and its data."""
    ended = status != "queued"
    number = f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {ITEMS})"

    def work(connection):
        connection.execute(
            "insert into jobs (id, task, key, status, status_updated_at, created_at, sealed_at, version, completed_at,"
            f" items_total{f', items_{status}' if ended else ''})"
            f" values (1, 'work', 'k', ?, 1, 1, 1, 1, ?, ?{', ?' if ended else ''})",
            (status, NOW - 9 * DAY if ended else None, ITEMS, *((ITEMS,) if ended else ())),
        )
        connection.execute(
            "insert into job_events (job_id, name, to_status, at, actor) values (1, 'submit', ?, 1, 'test')", (status,)
        )
        connection.execute(
            f"{number} insert into job_items (job_id, key, payload, status, attempt, completed_at, error)"
            " select 1, printf('%08d', i), 'null', ?, ?, ?, ? from n",
            (status, int(ended), NOW if ended else None, "no" if status == "failed" else None),
        )
        if status == "completed":
            connection.execute(
                "insert into results (item_id, attempt, task, key, value, created_at)"
                " select id, 1, 'work', key, '{\"x\": 1}', 1 from job_items"
            )
            connection.execute("insert into result_data select id, 1, x'00' from job_items")

    store.write(work)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a file with one large job whose items have this status; made once."""
    folder = tmp_path_factory.mktemp("large")

    def make(status):
        path = folder / f"{status}.db"
        if not path.exists():
            store = SqliteStore(path)
            store.open()
            fill(store, status)
            store.close()
        return path

    return make


class Watched:
    """A store of which each transaction's rows are counted."""

    def __init__(self, path):
        self.store = SqliteStore(path)
        self.store.open()
        self.sizes = []
        connection, write = self.store.connection(), self.store.write

        def counted(work, **kwargs):
            before = connection.total_changes
            answer = write(work, **kwargs)
            self.sizes.append(connection.total_changes - before)
            return answer

        self.store.write = counted

    def one(self, sql):
        return self.store.read(lambda connection: connection.execute(sql).fetchone())

    def counts_hold(self):
        """Say whether the job's counters are those of its items."""
        names = ("completed", "failed", "cancelled")
        kept = self.one(f"select items_total, {', '.join(f'items_{name}' for name in names)} from jobs")
        sums = ", ".join(f"coalesce(sum(status = '{name}'), 0)" for name in names)
        return kept == self.one(f"select count(*), {sums} from job_items")


def cancel(store, progress):
    request_cancel(store, 1, now=NOW, actor="test")
    return work_off(store, 1, now=NOW, actor="test", progress=progress)


def fail(store, progress):
    request_fail(store, 1, now=NOW, actor="test", reason="why")
    return work_off(store, 1, now=NOW, actor="test", progress=progress)


def again(verb):
    return lambda store, progress: verb(store, 1, now=NOW, actor="test", progress=progress)


@pytest.mark.parametrize(
    ("before", "verb", "after", "status"),
    [
        ("queued", cancel, "cancelled", "cancelled"),
        ("queued", fail, "cancelled", "failed"),
        ("failed", again(retry), "queued", "queued"),
        ("cancelled", again(resume), "queued", "queued"),
    ],
    ids=["cancel", "fail", "retry", "resume"],
)
def test_a_move_of_30000_items_is_many_small_transactions(tmp_path, filled, before, verb, after, status):
    large = Watched(shutil.copy(filled(before), tmp_path / "jobs.db"))
    told = []

    def progress(count):
        if not told:
            assert large.counts_hold(), "between two batches"
        told.append(count)

    assert verb(large.store, progress) == ITEMS
    assert max(large.sizes) <= BATCH + BESIDE
    assert told == sorted(told)
    assert told[-1] == ITEMS
    assert large.counts_hold()
    assert large.one(f"select count(*) from job_items where status = '{after}'") == (ITEMS,)
    assert large.one("select status from jobs") == (status,)
    large.store.close()


def test_a_deletion_of_30000_items_takes_each_with_what_it_left_in_small_transactions(tmp_path, filled):
    large = Watched(shutil.copy(filled("completed"), tmp_path / "jobs.db"))
    told = []
    request_delete(large.store, 1, now=NOW, actor="test")
    assert large.one("select key, deleted_at from jobs") == (None, NOW)
    assert remove_job(large.store, 1, told.append) == told[-1] == ITEMS
    # An item, its result, its data: what a cascade takes is counted too.
    assert max(large.sizes) <= 3 * BATCH
    for table in ("jobs", "job_items", "results", "result_data", "job_events"):
        assert large.one(f"select count(*) from {table}") == (0,)
    large.store.close()


def prune_in(store, ages, values=None):
    retention = Retention(dict.fromkeys(("completed", "failed", "cancelled"), ages), values)
    return prune(store, retention=retention, now=NOW, actor="test")


def test_pruning_a_job_of_30000_items_is_one_line_many_small_transactions_and_a_smaller_file(tmp_path, filled):
    large = Watched(shutil.copy(filled("completed"), tmp_path / "jobs.db"))
    (before,) = large.one("pragma page_count")
    report = prune_in(large.store, 8 * DAY)
    assert [(change.job_id, change.to_status) for change in report.changes] == [(1, "removed")]
    assert report.counts == {"removed": 1, "items": ITEMS}
    assert max(large.sizes) <= 3 * BATCH
    assert large.one("select (select count(*) from jobs), (select count(*) from job_items)") == (0, 0)
    assert finish(large.store, now=NOW, actor="test")
    (after,), (free,) = large.one("pragma page_count"), large.one("pragma freelist_count")
    assert after < 1_200 < before
    assert free <= 1_000
    large.store.close()


def test_pruning_the_values_of_30000_results_is_one_line_and_many_small_transactions(tmp_path, filled):
    large = Watched(shutil.copy(filled("completed"), tmp_path / "jobs.db"))
    report = prune_in(large.store, 99 * DAY, values=8 * DAY)
    assert [(change.job_id, change.to_status) for change in report.changes] == [(1, "completed")]
    # A result and its data.
    assert max(large.sizes) <= 2 * BATCH
    assert large.one("select count(*), count(value), count(pruned_at) from results") == (ITEMS, 0, ITEMS)
    assert large.one("select count(*) from result_data") == (0,)
    large.store.close()
