"""What rings the passes: each in its time, whatever the others do and whatever the clock does."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import types
import zoneinfo

import pytest

from jobd.maintenance.scheduler import Scheduler

SECONDS = 20
NOON = dt.datetime(2026, 10, 25, 12, tzinfo=dt.UTC)


@pytest.fixture
def clock(jobd_clock):
    jobd_clock.move_to(NOON)
    return jobd_clock


@pytest.fixture
def running():
    """Run a scheduler in a thread of its own, and stop it at the end."""
    started = []

    def run(scheduler):
        thread = threading.Thread(target=scheduler.run, daemon=True)
        thread.start()
        started.append((scheduler, thread))
        return thread

    yield run
    for scheduler, thread in started:
        scheduler.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()


def seconds(count):
    return dt.timedelta(seconds=count)


def test_each_beat_rings_every_so_many_seconds(clock):
    scheduler, rung = Scheduler(), []
    scheduler.every(5, "heart", lambda: rung.append("heart"))
    scheduler.every(60, "recover", lambda: rung.append("recover"))
    for _ in range(120):
        clock.move(seconds=1)
        scheduler.run_pending()
    assert rung.count("heart") == 24
    assert rung.count("recover") == 2


def test_none_rings_before_its_first_time(clock):
    scheduler, rung = Scheduler(), []
    for name, every in (("one", 1), ("five", 5)):
        scheduler.every(every, name, lambda name=name: rung.append(name))
    scheduler.run_pending()
    assert rung == []


def test_a_beat_that_raises_starves_no_other_and_rings_again(clock, caplog):
    scheduler, rung = Scheduler(), []

    def fails():
        rung.append("fails")
        raise RuntimeError("no")

    scheduler.every(5, "fails", fails)
    scheduler.every(5, "works", lambda: rung.append("works"))
    for _ in range(2):
        clock.move(seconds=5)
        scheduler.run_pending()
    assert rung == ["fails", "works"] * 2
    assert [record.getMessage() for record in caplog.records] == ["the pass fails failed"] * 2


@pytest.mark.parametrize("back", [3_600, 7_200, 56 * 365 * 86_400], ids=["an hour", "two hours", "to 1970"])
def test_a_clock_that_goes_back_silences_no_beat(clock, back):
    """An hour of autumn, or a clock that was wrong: the next ring is one period away, not an hour and one."""
    scheduler, rung = Scheduler(), []
    scheduler.every(5, "heart", lambda: rung.append("heart"))
    clock.move(seconds=5)
    scheduler.run_pending()
    clock.move_to(NOON - seconds(back))
    assert scheduler._idle() <= 5
    scheduler.run_pending()
    clock.move(seconds=5)
    scheduler.run_pending()
    clock.move(seconds=5)
    scheduler.run_pending()
    assert len(rung) == 3


@pytest.mark.parametrize("forward", [3_600, 8 * 3_600, 365 * 86_400])
def test_a_clock_that_jumps_ahead_rings_once(clock, forward):
    scheduler, rung = Scheduler(), []
    scheduler.every(5, "heart", lambda: rung.append("heart"))
    clock.move(seconds=forward)
    for _ in range(3):
        scheduler.run_pending()
    assert len(rung) == 1
    clock.move(seconds=5)
    scheduler.run_pending()
    assert len(rung) == 2


class LocalTime(dt.datetime):
    """The naive local time of a zone, as the operating system gives it, moved by hand in UTC."""

    at = NOON
    zone = zoneinfo.ZoneInfo("Europe/Berlin")

    @classmethod
    def now(cls, tz=None):
        assert tz is None
        return cls.at.astimezone(cls.zone).replace(tzinfo=None)


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"], ids=["the short night", "the long night"])
def test_in_the_nights_in_which_the_clocks_change_no_beat_is_silent_or_doubled(monkeypatch, night):
    midnight = dt.datetime.fromisoformat(f"{night}T00:00:00+00:00")
    monkeypatch.setattr(LocalTime, "at", midnight - seconds(3_600))
    for module in ("schedule.datetime", "jobd.maintenance.scheduler.dt"):
        monkeypatch.setattr(module, types.SimpleNamespace(datetime=LocalTime, timedelta=dt.timedelta))
    offset = LocalTime.at.astimezone(LocalTime.zone).utcoffset()
    scheduler, rung = Scheduler(), []
    scheduler.every(60, "recover", lambda: rung.append(LocalTime.at))
    for _ in range(4 * 360):
        LocalTime.at += seconds(10)
        scheduler.run_pending()
    assert LocalTime.at.astimezone(LocalTime.zone).utcoffset() != offset
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(rung)]
    # Where the clock leaps ahead what is not due yet rings early, once; where it goes back, a period late, once.
    assert max(gaps) <= 120
    assert sum(gap > 60 for gap in gaps) <= 1
    assert sum(gap < 60 for gap in gaps) <= 1
    assert 239 <= len(rung) <= 241


def test_less_than_a_second_is_kept_as_it_is(running):
    scheduler, rung = Scheduler(), threading.Semaphore(0)
    scheduler.every(0.01, "heart", rung.release)
    running(scheduler)
    for _ in range(10):
        assert rung.acquire(timeout=SECONDS)


def test_what_is_asked_for_rings_at_once(running):
    scheduler, rung = Scheduler(), threading.Semaphore(0)
    scheduler.every(3_600, "recover", rung.release)
    running(scheduler)
    for _ in range(3):
        scheduler.ask("recover")
        assert rung.acquire(timeout=SECONDS)


def test_what_is_asked_for_before_it_runs_rings_when_it_does(running):
    scheduler, rung = Scheduler(), threading.Semaphore(0)
    scheduler.every(3_600, "recover", rung.release)
    scheduler.ask("recover")
    scheduler.ask("recover")
    running(scheduler)
    assert rung.acquire(timeout=SECONDS)
    assert not rung.acquire(blocking=False)


def test_what_is_asked_for_while_it_rings_rings_again(running):
    scheduler, began, go_on = Scheduler(), threading.Semaphore(0), threading.Semaphore(0)

    def recover():
        began.release()
        assert go_on.acquire(timeout=SECONDS)

    scheduler.every(3_600, "recover", recover)
    running(scheduler)
    scheduler.ask("recover")
    assert began.acquire(timeout=SECONDS)
    scheduler.ask("recover")
    go_on.release(2)
    assert began.acquire(timeout=SECONDS)


def test_a_beat_may_ask_for_another(running):
    scheduler, rung = Scheduler(), threading.Event()
    scheduler.every(3_600, "second", rung.set)
    scheduler.every(3_600, "first", lambda: scheduler.ask("second"))
    running(scheduler)
    scheduler.ask("first")
    assert rung.wait(SECONDS)


def test_what_nobody_knows_costs_the_known_nothing(running, caplog):
    scheduler, rung = Scheduler(), threading.Event()
    scheduler.every(3_600, "known", rung.set)
    thread = running(scheduler)
    scheduler.ask("unknown")
    scheduler.ask("known")
    assert rung.wait(SECONDS)
    assert thread.is_alive()


def test_a_stop_returns_at_once_however_far_the_next_beat(running):
    scheduler = Scheduler()
    scheduler.every(3_600, "recover", lambda: None)
    thread = running(scheduler)
    scheduler.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_stop_waits_for_the_beat_it_is_in(running):
    scheduler, began, go_on, ended = Scheduler(), threading.Event(), threading.Event(), []

    def recover():
        began.set()
        assert go_on.wait(SECONDS)
        ended.append(True)

    scheduler.every(3_600, "recover", recover)
    thread = running(scheduler)
    scheduler.ask("recover")
    assert began.wait(SECONDS)
    scheduler.stop()
    assert thread.is_alive()
    go_on.set()
    thread.join(SECONDS)
    assert ended == [True]


def test_the_program_that_embeds_it_keeps_its_own_schedule():
    import schedule

    scheduler = Scheduler()
    scheduler.every(5, "heart", lambda: None)
    assert schedule.get_jobs() == []
