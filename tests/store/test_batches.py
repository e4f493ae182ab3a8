"""How large a batch is: as large as may be, and as small as it takes to hold the write lock for a moment only."""

from __future__ import annotations

import time

import pytest

from jobd.store import batches
from jobd.store.batches import BATCH, FIRST, HOLD_SECONDS, SMALLEST, Pace, in_batches


def test_a_batch_never_has_more_than_its_most():
    assert Pace(3).size == 3
    pace = Pace()
    for _ in range(20):
        pace.held(0.0)
    assert (pace.size, BATCH) == (2_000, 2_000)


def test_it_begins_small_enough_for_rows_of_a_megabyte():
    assert Pace().size == FIRST < BATCH


@pytest.mark.parametrize("times", [1.01, 2, 3])
def test_one_that_held_the_lock_for_too_long_is_followed_by_one_that_should_not(times):
    pace = Pace()
    pace.size = BATCH
    pace.held(HOLD_SECONDS * times)
    assert SMALLEST <= pace.size <= BATCH / times


def test_one_that_was_late_by_chance_is_not_followed_by_crumbs_and_a_slow_disk_is_all_the_same():
    pace = Pace()
    pace.held(HOLD_SECONDS * 1_000)
    assert pace.size == FIRST // 4
    for _ in range(9):
        pace.held(HOLD_SECONDS * 1_000)
    assert pace.size == SMALLEST


def test_in_between_it_stays_as_it_is():
    pace = Pace()
    pace.held(HOLD_SECONDS * 0.75)
    assert pace.size == FIRST


def test_what_is_waited_for_the_lock_is_not_held(store, monkeypatch):
    times = iter([10.0, 10.0 + HOLD_SECONDS * 2])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    entered = []

    def write(work):
        entered.append("waited")
        return work(store.connection())

    monkeypatch.setattr(store, "write", write)
    pace = Pace()
    assert pace.write(store, lambda connection, size: (entered.append("in"), size)[1]) == FIRST
    assert entered == ["waited", "in"]
    assert pace.size < FIRST


def test_between_two_batches_others_get_their_turn(monkeypatch):
    slept = []
    monkeypatch.setattr(batches.time, "sleep", slept.append)
    found = iter([2, 1, 0])
    assert in_batches(lambda: next(found)) == 3
    assert slept == [batches.GAP_SECONDS] * 2
