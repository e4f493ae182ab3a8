"""When something recurs: also in the two odd nights of a year."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from jobd import UsageError, recurrence, zones

BERLIN = "Europe/Berlin"
HOUR = 3_600_000


def ms(text, zone=BERLIN, fold=0):
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def local(at, zone=BERLIN):
    return dt.datetime.fromtimestamp(at / 1000, tz=ZoneInfo(zone)).strftime("%d %H:%M %z")


def slots(cron, since, until, zone=BERLIN):
    recurs = recurrence.parse(cron, zone, 0)
    found, at = [], ms(since, zone)
    while (at := recurs.after(at)) < ms(until, zone):
        found.append(local(at, zone))
    return found


@pytest.mark.parametrize(
    ("cron", "found"),
    [
        ("30 2 * * *", ["29 03:00 +0200", "30 02:30 +0200"]),
        ("0 3 * * *", ["29 03:00 +0200", "30 03:00 +0200"]),
        # Each of them is left out, and the next minute is one.
        ("*/20 2 * * *", ["29 03:00 +0200", "30 02:00 +0200", "30 02:20 +0200", "30 02:40 +0200"]),
        ("15 */2 29 3 *", ["29 00:15 +0100", "29 03:00 +0200", *(f"29 {h:02d}:15 +0200" for h in range(4, 24, 2))]),
    ],
)
def test_what_spring_leaves_out_comes_at_the_next_minute_there_is(cron, found):
    assert slots(cron, "2026-03-28T23:59", "2026-03-30T03:01") == found


@pytest.mark.parametrize(
    ("cron", "found"),
    [
        ("30 2 * * *", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("*/30 2 25 10 *", ["25 02:00 +0200", "25 02:30 +0200"]),
        ("0 1-4 25 10 *", ["25 01:00 +0200", "25 02:00 +0200", "25 03:00 +0100", "25 04:00 +0100"]),
    ],
)
def test_what_autumn_has_twice_comes_once(cron, found):
    assert slots(cron, "2026-10-24T23:59", "2026-10-26T02:59") == found


def test_what_comes_in_every_hour_comes_in_each_hour_that_there_is():
    assert slots("30 * * * *", "2026-10-25T01:00", "2026-10-25T04:00") == [
        "25 01:30 +0200", "25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100",
    ]  # fmt: skip
    assert slots("30 * * * *", "2026-03-29T01:00", "2026-03-29T04:00") == ["29 01:30 +0100", "29 03:30 +0200"]


def test_a_midnight_that_spring_leaves_out_is_no_day_without_a_slot():
    zone = "America/Santiago"
    found = slots("0 */6 * * *", "2026-09-05T23:00", "2026-09-06T07:00", zone)
    assert found == ["06 01:00 -0300", "06 06:00 -0300"]


def test_behind_the_first_of_two_times_the_same_is_not_given_again():
    recurs = recurrence.parse("30 2 * * *", BERLIN, 0)
    second = ms("2026-10-25T02:10", fold=1)
    assert recurs.after(second) == ms("2026-10-26T02:30")
    assert recurs.latest(ms("2026-10-20T02:30"), second) == ms("2026-10-25T02:30", fold=0)


@pytest.mark.parametrize(
    "spec", ["30 2 * * *", "*/7 * * * *", "0 0 29 2 *", "0 9 * * MON#1", "59 23 31 12 *", "every 1h30m", "every 7s"]
)
@pytest.mark.parametrize("zone", [BERLIN, "America/Santiago", "Australia/Lord_Howe", "UTC"])
def test_the_latest_slot_is_the_one_before_the_next(spec, zone):
    began = ms("2023-01-01T05:06:07", zone)
    recurs = recurrence.parse(spec, zone, began)
    first = recurs.after(began)
    for at in range(ms("2026-03-27T23:17:31", zone), ms("2026-04-06T00:00", zone), 7 * HOUR + 61_001):
        latest = recurs.latest(first, at)
        following = recurs.after(at)
        assert latest <= at < following
        assert recurs.after(latest) == following
        assert recurs.latest(latest, at) == latest


def test_a_length_is_a_grid_that_no_late_look_moves():
    recurs = recurrence.parse("every 10m", "UTC", 1_000)
    found = [recurs.after(at) for at in (0, 1_000, 1_001, 601_000, 601_001, 3_000_000)]
    assert found == [601_000, 601_000, 601_000, 1_201_000, 1_201_000, 3_001_000]
    assert all(later > earlier for earlier, later in pairwise(sorted(set(found))))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("0 3 * * *", "every day at 03:00, Europe/Berlin"),
        ("0 8,20 * * *", "every day at 08:00 and 20:00, Europe/Berlin"),
        ("0 9 * * MON-FRI", "on Monday through Friday at 09:00, Europe/Berlin"),
        ("*/10 * * * *", "every 10th minute of every hour, Europe/Berlin"),
        ("every 10m", "every 10 minutes"),
        ("every 1h", "every hour"),
        ("every 1d12h", "every 1 day 12 hours"),
        ("every 1s500ms", "every 1 second 500 ms"),
    ],
)
def test_it_is_said_in_words(spec, words):
    assert recurrence.parse(spec, BERLIN, 0).words() == words


@pytest.mark.parametrize(
    ("value", "spec"), [("10m", "every 10m"), (5400, "every 1h30m"), (dt.timedelta(1), "every 1d")]
)
def test_a_length_has_one_spelling(value, spec):
    assert recurrence.every(value) == spec
    assert recurrence.every(spec.removeprefix("every ")) == spec


def test_cron_text_has_one_spelling():
    assert recurrence.cron("  0 3  * * mon-fri ") == "0 3 * * MON-FRI"


@pytest.mark.parametrize(
    "text",
    [
        "", "hourly", "0 3 * *", "0 3 * * * *", "60 3 * * *", "0 3 30 2 *", "0 0 31 2,4 MON#6", "* * * * 8", None, 3,
        "٣ 3 * * *", "5-1 * * * *", "*/0 * * * *", "0 3 LW-2 * *",
    ],
)  # fmt: skip
def test_what_is_no_cron_text_is_refused(text):
    with pytest.raises(UsageError, match=r"cron text|no time ever"):
        recurrence.cron(text)


@pytest.mark.parametrize("value", [0, "0s", "999ms", "often", None, True])
def test_what_is_no_length_is_refused(value):
    with pytest.raises(UsageError):
        recurrence.every(value)


@pytest.mark.parametrize(
    ("told", "link", "written", "name"),
    [
        ("Asia/Tokyo", BERLIN, BERLIN, "Asia/Tokyo"),
        (":America/New_York", BERLIN, "", "America/New_York"),
        ("CET-1CEST", BERLIN, "", BERLIN),
        ("", BERLIN, "Asia/Tokyo", BERLIN),
        ("", None, "Asia/Tokyo\n", "Asia/Tokyo"),
        ("", None, None, "UTC"),
        ("", None, "nonsense", "UTC"),
    ],
)
def test_the_machines_own_zone_is_found_by_name(tmp_path, monkeypatch, told, link, written, name):
    monkeypatch.setenv("TZ", told)
    clock, noted = tmp_path / "localtime", tmp_path / "timezone"
    if link:
        clock.symlink_to(tmp_path / "usr/share/zoneinfo" / link)
    else:
        clock.write_bytes(b"TZif")
    if written is not None:
        noted.write_text(written)
    monkeypatch.setattr(zones, "_LOCALTIME", str(clock))
    monkeypatch.setattr(zones, "_TIMEZONE", str(noted))
    assert zones.local() == name
