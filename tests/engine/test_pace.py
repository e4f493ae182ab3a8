"""How much is claimed ahead: 50 ms of work, and nothing of what was never seen."""

from __future__ import annotations

import pytest

from jobd.engine.pace import AHEAD, Pace


def paced(**seconds):
    pace = Pace()
    pace.observe(seconds.items())
    return pace


def test_of_a_task_that_was_never_seen_nothing_is_claimed_ahead():
    pace = Pace()
    assert not pace.known("work")
    assert pace.room("work", 4, {"work": 4}) == 0
    assert pace.room("work", 4, {}) == 0


@pytest.mark.parametrize(
    ("seconds", "slots", "room"), [(0.005, 4, 40), (0.05, 4, 4), (0.051, 4, 3), (0.2, 4, 1), (0.21, 4, 0), (10.0, 4, 0)]
)
def test_what_fits_into_50_ms_of_all_slots_is_claimed_ahead(seconds, slots, room):
    pace = paced(work=seconds)
    assert pace.known("work")
    assert pace.room("work", slots, {"work": slots}) == room


@pytest.mark.parametrize("waiting", [0, 1, 5, 20, 39])
def test_with_what_waits_already_it_stays_50_ms(waiting):
    pace = paced(work=0.005)
    room = pace.room("work", 4, {"work": 4 + waiting})
    assert (waiting + room) * 0.005 <= AHEAD * 4 + 1e-9
    assert waiting + room in (39, 40)


def test_where_50_ms_wait_nothing_more_is_claimed():
    pace = paced(work=0.005)
    assert pace.room("work", 4, {"work": 44}) == 0
    assert pace.room("work", 4, {"work": 400}) == 0


def test_what_waits_of_other_tasks_counts_with_their_own_pace():
    pace = paced(quick=0.001, slow=0.02)
    alone = pace.room("quick", 4, {"quick": 4})
    behind_quick = pace.room("quick", 4, {"quick": 8})
    behind_slow = pace.room("quick", 4, {"quick": 4, "slow": 4})
    assert alone > behind_quick > behind_slow > 0


def test_what_waits_of_a_task_that_was_never_seen_counts_as_50_ms():
    pace = paced(quick=0.001)
    assert pace.room("quick", 1, {"unseen": 1}) == 50
    assert pace.room("quick", 1, {"unseen": 2}) == 0


def test_a_task_that_slows_down_is_noticed_within_a_few_items():
    pace = paced(work=0.0001)
    rooms = []
    for _ in range(20):
        pace.observe([("work", 0.1)])
        rooms.append(pace.room("work", 4, {"work": 4}))
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[0] <= 7
    assert rooms[-1] == 2


def test_a_batch_counts_as_the_mean_of_each_task():
    pace = Pace()
    pace.observe([("a", 0.01), ("b", 1.0), ("a", 0.03)])
    assert pace.room("a", 2, {}) == 5
    assert pace.room("b", 2, {}) == 0


def test_a_task_that_takes_no_time_at_all_leaves_a_number():
    pace = paced(work=0.0)
    assert 0 < pace.room("work", 4, {"work": 4}) <= 100_000
