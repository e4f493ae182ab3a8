"""How much is claimed ahead: 50 ms of work, and nothing of what was never seen."""

from __future__ import annotations

import pytest

from jobd.engine.pace import AHEAD, Pace


def paced(**seconds):
    pace = Pace()
    pace.observe(seconds.items())
    return pace


def test_what_was_never_seen_waits_for_a_slot_that_is_not_held_by_its_like():
    pace = Pace()
    assert not pace.quick("work")
    assert pace.room("work", 4, {"work": 4}) == 0
    assert pace.room("work", 4, {"work": 5}) == 0
    assert pace.room("work", 4, {"work": 1}) == 3


@pytest.mark.parametrize(
    ("seconds", "slots", "room"), [(0.001, 4, 200), (0.005, 4, 40), (0.05, 4, 4), (0.051, 4, 0), (10.0, 4, 0)]
)
def test_what_fits_into_50_ms_of_all_slots_is_claimed_ahead(seconds, slots, room):
    pace = paced(work=seconds)
    assert pace.quick("work") == (seconds <= AHEAD)
    assert pace.room("work", slots, {"work": slots}) == room


@pytest.mark.parametrize("other", [10.0, None], ids=["slow", "never seen"])
@pytest.mark.parametrize("waiting", [0, 36, 40])
def test_what_is_not_quick_gets_as_many_places_as_there_are_slots_that_turn_over(other, waiting):
    """Behind 50 ms of quick work, whatever waits of that: else it would wait until the last of it has run."""
    pace = paced(quick=0.005, **({} if other is None else {"other": other}))
    assert pace.room("other", 4, {"quick": 4 + waiting}) == 4
    assert pace.room("other", 4, {"quick": 2 + waiting, "other": 2}) == 2
    assert pace.room("other", 4, {"quick": waiting, "other": 4}) == 0


def test_a_slot_that_is_held_for_long_is_no_slot_to_claim_ahead_of():
    pace = paced(quick=0.005, slow=10.0)
    rooms = [pace.room("quick", 4, {"slow": held, "quick": 4 - held}) for held in range(5)]
    assert rooms == [40, 30, 20, 10, 0]
    assert pace.room("quick", 4, {"slow": 7}) == 0


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
    pace = paced(quick=0.001, slower=0.02)
    alone = pace.room("quick", 4, {"quick": 4})
    behind_quick = pace.room("quick", 4, {"quick": 8})
    behind_slower = pace.room("quick", 4, {"quick": 4, "slower": 4})
    assert alone > behind_quick > behind_slower > 0


def test_a_task_that_slows_down_is_noticed_within_a_few_items():
    pace = paced(work=0.0001)
    rooms = []
    for _ in range(20):
        pace.observe([("work", 0.1)])
        rooms.append(pace.room("work", 4, {"work": 4}))
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[0] <= 7
    assert rooms[-1] == 0


def test_the_line_is_filled_again_when_half_of_it_is_gone():
    """Item by item a claim would cost as much as a settlement."""
    pace = paced(work=0.01)
    whole = pace.room("work", 2, {"work": 2})
    assert whole == 10
    assert [pace.room("work", 2, {"work": 2 + waiting}) for waiting in (10, 8, 6, 5, 4)] == [0, 0, 0, 5, 6]


def test_a_batch_counts_as_the_mean_of_each_task():
    pace = Pace()
    pace.observe([("a", 0.01), ("b", 1.0), ("a", 0.03)])
    assert pace.room("a", 2, {}) == 5
    assert not pace.quick("b")


def test_a_task_that_takes_no_time_at_all_leaves_a_number():
    pace = paced(work=0.0)
    assert 0 < pace.room("work", 4, {"work": 4}) <= 100_000
