"""Rounds over what was interrupted: one that found nothing is not repeated until something has changed."""

from __future__ import annotations

import pytest

from jobd.engine.rounds import LONGEST, PAUSE, Rounds

BEGAN = 1_000.0


@pytest.fixture
def rounds():
    return Rounds()


def test_the_first_look_is_at_once_and_a_round_goes_on_without_a_pause(rounds):
    assert rounds.wait("a", BEGAN) == 0
    rounds.looked("a", BEGAN, last=200, found=False)
    assert (rounds.after, rounds.wait("a", BEGAN)) == (200, 0)
    rounds.looked("a", BEGAN, last=0, found=False)
    assert rounds.after == 0


def test_after_a_round_for_nothing_the_next_begins_when_something_has_changed_or_a_minute_has_passed(rounds):
    rounds.looked("a", BEGAN, last=0, found=False)
    assert rounds.wait("a", BEGAN) == LONGEST
    assert rounds.wait("a", BEGAN + LONGEST - 1) == 1
    assert rounds.wait("a", BEGAN + LONGEST) == 0
    assert rounds.wait("b", BEGAN + PAUSE) == 0


def test_however_much_changes_rounds_for_nothing_are_a_pause_apart(rounds):
    rounds.looked("a", BEGAN, last=0, found=False)
    assert rounds.wait("b", BEGAN) == pytest.approx(PAUSE)
    rounds.looked("b", BEGAN + PAUSE, last=0, found=False)
    assert rounds.wait("c", BEGAN + PAUSE) == pytest.approx(PAUSE)


def test_after_a_round_that_found_something_the_next_begins_at_once(rounds):
    rounds.looked("a", BEGAN, last=200, found=True)
    rounds.looked("a", BEGAN, last=0, found=False)
    assert rounds.wait("a", BEGAN) == 0
    rounds.looked("a", BEGAN, last=0, found=False)
    assert rounds.wait("a", BEGAN) == LONGEST


def test_what_changes_while_a_round_is_under_way_is_a_reason_for_another(rounds):
    rounds.looked("a", BEGAN, last=200, found=False)
    rounds.looked("b", BEGAN, last=0, found=False)
    assert rounds.wait("b", BEGAN + PAUSE) == 0
