"""Who may start beside an item that must run alone, and for how long not."""

from __future__ import annotations

import pytest

from jobd.engine.solitude import ALONE_FOR, Solitude

BEGAN = 1_000.0


def test_nobody_is_kept_waiting_while_nobody_runs_alone():
    assert Solitude().occupied(BEGAN) == 0.0


@pytest.mark.parametrize(("after", "left"), [(0, 60), (1, 59), (59.5, 0.5), (60, 0), (7_200, 0)])
def test_whoever_runs_alone_has_the_pool_for_60_seconds_and_no_longer(after, left):
    solitude = Solitude()
    solitude.begin(7, BEGAN)
    assert ALONE_FOR == 60
    assert solitude.occupied(BEGAN + after) == left


def test_its_end_frees_the_pool_at_once_and_only_its_own():
    solitude = Solitude()
    solitude.begin(7, BEGAN)
    solitude.ended(8)
    assert solitude.occupied(BEGAN) == 60
    solitude.ended(7)
    assert solitude.occupied(BEGAN) == 0
    solitude.ended(7)
    assert solitude.occupied(BEGAN) == 0


def test_the_pool_is_emptied_for_who_waits_but_not_for_ever():
    """A minute in which nobody starts, a minute in which everybody may, in turn."""
    solitude = Solitude()
    waits = [solitude.emptying(BEGAN + second) for second in (0, 59, 60, 119, 120, 179, 180)]
    assert waits == [60, 1, 0, 0, 60, 1, 0]


def test_a_new_wait_begins_anew():
    solitude = Solitude()
    assert solitude.emptying(BEGAN) == 60
    solitude.begin(7, BEGAN + 70)
    solitude.ended(7)
    assert solitude.emptying(BEGAN + 100) == 60
