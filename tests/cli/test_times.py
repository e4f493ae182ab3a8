"""Times as people read and type them."""

import datetime as dt

import pytest

from jobd.cli import times
from jobd.errors import UsageError


@pytest.fixture(autouse=True)
def berlin(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


def test_a_time_of_today_is_shown_without_its_date():
    assert times.short("2026-11-21T11:00:03.250Z", NOW) == "12:00:03"
    assert times.short("2026-11-20T11:00:03.250Z", NOW) == "2026-11-20 12:00:03"
    assert times.short(None, NOW) == "-"
    assert times.zone(NOW) == "CET"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.4, "0s"), (-5, "0s"), (59, "59s"), (252, "4m12s"), (3599, "59m"), (7300, "2h01m"), (86400, "1d")],
)
def test_an_age_is_in_its_largest_units(seconds, shown):
    assert times.age(seconds) == shown


@pytest.mark.parametrize(("milliseconds", "shown"), [(None, "-"), (2, "2 ms"), (4900, "4.9 s"), (200_000, "3m20s")])
def test_a_length_is_short(milliseconds, shown):
    assert times.length(milliseconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(2, "0:02"), (760, "12:40"), (11100, "3:05:00"), (None, "-")])
def test_a_remaining_time_is_a_clock(seconds, shown):
    assert times.clock(seconds) == shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("18:30", "2026-11-21T17:30:00+00:00"),
        ("9:05", "2026-11-22T08:05:00+00:00"),
        ("2026-12-01T03:00", "2026-12-01T02:00:00+00:00"),
        ("2026-07-01T03:00", "2026-07-01T01:00:00+00:00"),
        ("2026-12-01T03:00+05:30", "2026-11-30T21:30:00+00:00"),
        ("2026-12-01T03:00:00Z", "2026-12-01T03:00:00+00:00"),
    ],
)
def test_a_typed_time_is_local_unless_it_carries_an_offset(typed, meant):
    assert times.moment(typed, NOW).astimezone(dt.UTC).isoformat() == meant


@pytest.mark.parametrize("typed", ["", "soon", "25:00", "18:30:99", "2026-13-01", "1\x00", "9" * 50])
def test_what_is_no_time_is_refused_with_an_example(typed):
    with pytest.raises(UsageError) as caught:
        times.moment(typed, NOW)
    assert caught.value.hint is not None


def test_since_takes_a_span_or_a_time():
    assert times.since("2h", NOW) == NOW - dt.timedelta(hours=2)
    assert times.since("2026-11-20", NOW).astimezone(dt.UTC).isoformat() == "2026-11-19T23:00:00+00:00"
    with pytest.raises(UsageError):
        times.since("yesterday", NOW)
