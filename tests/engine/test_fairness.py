"""Whose turn it is in a real daemon: nobody waits behind a job that merely came first."""

from __future__ import annotations

import collections
import itertools
import threading

import pytest

from jobd.store.invariants import check

SECONDS = 20
ITEM = 0.005


@pytest.fixture(autouse=True)
def sound(app):
    yield
    assert check(app.store) == []


class Starts:
    """The starts of all items, in their order."""

    def __init__(self, until):
        self.order = []
        self.note = self.order.append
        self.until = until


@pytest.fixture
def starts(until):
    return Starts(until)


@pytest.fixture
def work(app, starts):
    """A task of 5 ms; its payload names the job."""
    never = threading.Event()

    @app.task
    def work(name):
        starts.note(name)
        never.wait(ITEM)

    return work


def submit(work, name, items, **options):
    numbers = itertools.count()
    return work.submit([name] * items, item_key=lambda _: next(numbers), **options)


@pytest.fixture
def tasks(app, starts, work):
    """Tasks of which a job may come while another is busy: its own, one never seen, and one known to take long."""

    @app.task
    def unseen(name):
        starts.note(name)

    @app.task
    def slow(name):
        starts.note(name)
        threading.Event().wait(20 * ITEM)

    return {"its own": work, "never seen": unseen, "slow": slow}


@pytest.mark.parametrize("which", ["its own", "never seen", "slow"])
@pytest.mark.parametrize("priority", [0, 5])
def test_a_job_that_comes_later_starts_within_100_ms_beside_a_job_of_many(app, starts, tasks, which, priority):
    """In items and not in time, which a busy machine stretches: 100 ms are 80 items of 5 ms on 4 workers."""
    with app.daemon(workers=4):
        submit(tasks["slow"], "before", 1).wait(SECONDS)
        many = submit(tasks["its own"], "many", 2_000)
        starts.until(lambda: starts.order.count("many") > 40)
        waits = []
        for number in range(3):
            late = f"late-{number}"
            job = submit(tasks[which], late, 1, priority=priority)
            committed = len(starts.order)
            starts.until(lambda late=late: late in starts.order)
            waits.append(starts.order.index(late) - committed)
            job.wait(SECONDS)
        assert max(waits) <= 80
        many.cancel()


def test_a_slow_job_and_a_quick_one_share_the_slots_and_neither_waits_for_the_others_end(app, starts, tasks):
    with app.daemon(workers=4):
        submit(tasks["slow"], "before", 1).wait(SECONDS)
        quick, slow = submit(tasks["its own"], "quick", 2_000), submit(tasks["slow"], "slow", 40)
        starts.until(lambda: starts.order.count("slow") >= 8)
        assert 0 < starts.order.count("quick") < 2_000
        assert quick.refresh().status == slow.refresh().status == "running"
        quick.cancel()
        slow.cancel()


def test_a_higher_priority_overtakes_everything_that_was_not_claimed_yet(app, starts, work):
    with app.daemon(workers=4):
        submit(work, "low", 2_000)
        starts.until(lambda: len(starts.order) > 40)
        high = submit(work, "high", 40, priority=5)
        committed = len(starts.order)
        high.wait(SECONDS)
        first = starts.order.index("high")
        assert first - committed <= 80
        # From its first item on it has the workers for itself, but for what was claimed ahead.
        until_last = starts.order[first : len(starts.order) - starts.order[::-1].index("high")]
        assert until_last.count("low") <= 80
        app.jobs()[-1].cancel()


def test_jobs_of_one_priority_take_turns_whatever_their_size(app, starts, work):
    jobs = [submit(work, name, items) for name, items in (("a", 600), ("b", 90), ("c", 90))]
    with app.daemon(workers=4):
        for job in jobs[1:]:
            job.wait(SECONDS)
        jobs[0].cancel()
    last = max(index for index, name in enumerate(starts.order) if name != "a")
    counts = collections.Counter(starts.order[: last + 1])
    assert (counts["b"], counts["c"]) == (90, 90)
    # An equal share, but for the batches at either end.
    assert 90 - 44 <= counts["a"] <= 90 + 88


def test_many_small_jobs_end_in_the_order_in_which_they_came(app, starts, work):
    jobs = [submit(work, number, 1) for number in range(200)]
    with app.daemon(workers=4):
        jobs[-1].wait(SECONDS)
        for job in jobs:
            job.wait(SECONDS)
    late = [index - name for index, name in enumerate(starts.order)]
    assert sorted(starts.order) == list(range(200))
    assert max(late) <= 48


def test_a_job_whose_items_wait_for_their_time_does_not_keep_others_of_the_same_task(app, starts, work, rows):
    later = submit(work, "later", 5)
    rows.change("update job_items set available_at=9e15 where job_id=?", later.id)
    with app.daemon(workers=1):
        submit(work, "now", 20).wait(SECONDS)
        assert starts.order == ["now"] * 20
        later.cancel()


def test_a_job_whose_items_must_run_alone_waits_for_its_turn_without_stopping_the_daemon(app, starts, work, rows):
    """More jobs than slots, the one that must run alone last: it has to be found behind all the others."""
    jobs = [submit(work, number, 3) for number in range(12)]
    rows.change("update job_items set interruptions=2 where job_id=?", jobs[-1].id)
    with app.daemon(workers=2) as daemon:
        for job in jobs:
            job.wait(SECONDS)
        assert daemon.failure is None
    assert starts.order[:3] == [11] * 3
