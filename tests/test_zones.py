"""Zones by name, and the days that begin in them."""

import datetime as dt
from zoneinfo import ZoneInfo, available_timezones

import pytest

from jobd import UsageError, zones


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia", "Africa/Monrovia"])
def test_a_day_is_the_local_one_on_both_sides_of_each_midnight(name):
    for number in range(0, 20_000, 13):
        midnight = dt.datetime(1973, 1, 1, tzinfo=ZoneInfo(name)) + dt.timedelta(days=number)
        at = int(midnight.timestamp() * 1000)
        for ms in (at - 1, at, at + 59_999):
            local = dt.datetime.fromtimestamp(ms / 1000, tz=ZoneInfo(name))
            assert zones.day(ms, name) == local.date().isoformat()


def test_in_every_zone_a_day_begins_with_a_minute_of_utc():
    for name in available_timezones():
        for year in (1973, 1999, 2026, 2037):
            offset = dt.datetime(year, 7, 1, tzinfo=ZoneInfo(name)).utcoffset()
            assert offset.total_seconds() % 60 == 0, name


def test_utc_needs_no_time_zone_data(monkeypatch):
    monkeypatch.setattr("zoneinfo.ZoneInfo", None)
    zones.zone.cache_clear()
    assert zones.checked("UTC") == "UTC"
    assert zones.day(0, "UTC") == "1970-01-01"


@pytest.mark.parametrize("name", ["Europe/Belrin", "", "../UTC", "/etc/localtime", "x\0", "\ud800", None, 3])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(UsageError, match="time zone"):
        zones.checked(name)
