"""How tests wait: for a fact, and in seconds that pass whatever the test does to the clock."""

from __future__ import annotations

import threading

import pytest


def test_a_fact_that_comes_true_is_returned_as_it_is(until):
    facts = iter([None, 0, "", "here"])
    assert until(lambda: next(facts)) == "here"


def test_what_does_not_come_true_is_given_up_also_where_the_clock_stands_still(until, jobd_clock):
    with pytest.raises(AssertionError, match=r"it did not come true within 0\.01 s"):
        until(lambda: False, seconds=0.01)


def test_a_look_that_takes_its_time_is_counted_with_it(until):
    looks = []

    def look():
        looks.append(threading.Event().wait(0.02))

    with pytest.raises(AssertionError):
        until(look, seconds=0.04)
    assert len(looks) <= 3
