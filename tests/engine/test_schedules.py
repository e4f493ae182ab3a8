"""What a program schedules: each slot fires once ever, whatever the daemon, the night and the clock do."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from zoneinfo import ZoneInfo

import pytest

from jobd import Conflict, Jobd, NotFound, UsageError, clock
from jobd.errors import DuplicateKeys, InvalidItem
from jobd.maintenance.fire import fire
from jobd.maintenance.scheduler import Scheduler
from jobd.schedules import declared
from jobd.store import firing
from jobd.store.firing import fire_slot
from jobd.store.sqlite import SqliteStore

SECONDS = 20
BERLIN = ZoneInfo("Europe/Berlin")
DAILY = {"cron": "30 2 * * *", "zone": "Europe/Berlin"}


def at(text, fold=0):
    """A time of Berlin."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


def iso(text):
    return at(text).astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.fixture
def begin(jobd_clock):
    """Set the clock to a time of Berlin."""

    def move(text):
        jobd_clock.move_to(at(text))

    move("2026-03-10T12:00")
    return move


@pytest.fixture
def ran():
    return []


@pytest.fixture
def program(make_app, ran):
    """Return an app whose task is scheduled: each call is the program started anew."""

    def start(**schedule):
        app = make_app()

        @app.task
        def work(value, ctx):
            ran.append((ctx.job_id, value))

        if schedule:
            app.schedule(work, **schedule)
        return app

    return start


def jobs(app):
    return [job.key for job in reversed(app.jobs(limit=500))]


def messages(job, name):
    return [event.message for event in job.events() if event.name == name]


# -- a year -----------------------------------------------------------------------------------------------------------


def test_in_a_year_of_nights_asleep_each_local_day_has_its_one_firing(path, tmp_path, jobd_clock, store):
    store.close()
    witness = tmp_path / "witness"

    def start():
        app = Jobd(path)

        @app.schedule(**DAILY, catch_up="once")
        @app.task
        def nightly(value):
            with witness.open("a") as lines:
                lines.write(f"{jobd_clock.now.astimezone(BERLIN):%Y-%m-%d}\n")

        return app

    jobd_clock.move_to(at("2026-01-01T12:00"))
    app = start()
    app.drain()
    day = dt.date(2026, 1, 1)
    while day < dt.date(2026, 12, 31):
        if day.weekday() == 0:
            app.close()
            app = start()
        for hour in (15, 22):
            jobd_clock.move_to(at(f"{day}T{hour}:00"))
            app.drain()
        jobd_clock.suspend(hours=9)
        app.drain()
        day += dt.timedelta(days=1)
    counts = Counter(witness.read_text().split())
    days = [str(dt.date(2026, 1, 2) + dt.timedelta(days=number)) for number in range(364)]
    assert counts == dict.fromkeys(days, 1)
    assert {"2026-03-29", "2026-10-25"} <= counts.keys()
    assert app.doctor().exit_code == 0
    app.close()


@pytest.mark.parametrize(("day", "slot"), [("2026-03-29", "2026-03-29T03:00"), ("2026-10-25", "2026-10-25T02:30")])
def test_awake_through_an_odd_night_it_fires_at_its_slot(program, ran, begin, jobd_clock, day, slot):
    before = dt.date.fromisoformat(day) - dt.timedelta(days=1)
    begin(f"{before}T23:00")
    app = program(**DAILY)
    app.drain()
    until = at(f"{day}T08:00").timestamp()
    while jobd_clock.now.timestamp() < until:
        jobd_clock.move(minutes=10)
        fired = len(ran)
        app.drain()
        if len(ran) > fired:
            assert jobd_clock.now.timestamp() == at(slot).timestamp()
    assert jobs(app) == [f"schedule work at {iso(slot)}"]


# -- slots ------------------------------------------------------------------------------------------------------------


def test_a_slot_is_fired_once_and_says_when_the_next_is(program, ran, begin, jobd_clock):
    app = program(**DAILY)
    drained = app.drain()
    assert (ran, drained.next_due) == ([], int(at("2026-03-11T02:30").timestamp() * 1000))
    begin("2026-03-11T02:30")
    assert app.drain().next_due == int(at("2026-03-12T02:30").timestamp() * 1000)
    app.drain()
    app.tick()
    assert jobs(app) == ["schedule work at 2026-03-11T01:30:00.000Z"]
    assert len(ran) == 1
    assert app.job("@last").events()[0].actor == "schedule work"
    assert messages(app.job("@last"), "catch_up") == []


def test_whatever_was_missed_is_one_firing_that_says_so(program, ran, begin):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-20T09:00")
    app.drain()
    app.drain()
    assert jobs(app) == [f"schedule work at {iso('2026-03-20T02:30')}"]
    late = f"the slot of {iso('2026-03-20T02:30')}, late by 6 h 30 m; those since {iso('2026-03-11T02:30')} were missed"
    assert messages(app.job("@last"), "catch_up") == [late]


def test_who_skips_what_was_missed_fires_only_in_time(program, ran, begin, jobd_clock):
    app = program(**DAILY, catch_up="skip")
    app.drain()
    begin("2026-03-20T02:31:01")
    app.drain()
    (entry,) = app.schedules.entries()
    assert (jobs(app), entry.skipped_why) == ([], "it was missed, 1 m 1 s ago")
    begin("2026-03-21T02:31")
    app.drain()
    assert jobs(app) == [f"schedule work at {iso('2026-03-21T02:30')}"]


def test_a_length_of_time_is_a_grid_that_no_late_firing_moves(program, begin, jobd_clock):
    app = program(every="10m")
    app.drain()
    began = clock.now()
    for minutes in (10, 13, 7, 35):
        jobd_clock.move(minutes=minutes)
        app.drain()
    slots = [int(dt.datetime.fromisoformat(key.split(" at ")[1]).timestamp() * 1000) - began for key in jobs(app)]
    assert slots == [600_000, 1_200_000, 1_800_000, 3_600_000]


def test_a_slot_stays_fired_when_its_job_is_deleted(program, begin):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    app.job("@last").delete()
    app.drain()
    assert jobs(app) == []


def test_a_job_has_the_items_and_params_of_its_schedule(make_app, begin):
    app, seen = make_app(), []

    @app.task(tolerance=1)
    def work(value, ctx):
        seen.append((value, ctx.params))

    app.schedule(work, items=["a", {"b": 1}], params={"p": 2}, **DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    assert seen == [("a", {"p": 2}), ({"b": 1}, {"p": 2})]


def test_the_watchlist_is_taken_as_it_is_when_it_fires(program, ran, begin):
    app = program()
    app.schedule(app.tasks["work"], items=app.watchlist, **DAILY)
    app.drain()
    app.watchlist.add("work", "b", 'ä"')
    begin("2026-03-11T02:30")
    app.drain()
    app.watchlist.remove("work", "b")
    begin("2026-03-12T02:30")
    app.drain()
    assert [value for _, value in ran] == ["b", 'ä"', 'ä"']
    assert app.watchlist.entries()[0].last_status == "completed"


# -- while the former runs --------------------------------------------------------------------------------------------


def test_while_the_former_job_has_not_ended_a_slot_is_left_out(program, ran, begin, jobd_clock):
    app = program(every="10m")
    app.drain()
    jobd_clock.move(minutes=10)
    app.tick()
    for _ in range(3):
        jobd_clock.move(minutes=10)
        app.tick()
    (job,) = app.jobs()
    assert len(messages(job, "skip_slot")) == 1
    (entry,) = app.schedules.entries()
    assert entry.skipped_why == f"job {job.id}, which work fired last, is still queued"
    app.drain()
    jobd_clock.move(minutes=10)
    app.drain()
    assert len(jobs(app)) == 2
    assert app.doctor().exit_code == 0


@pytest.mark.parametrize("ended", [True, False])
def test_whether_the_former_has_ended_is_asked_in_the_transaction_that_fires(
    program, begin, jobd_clock, monkeypatch, ended
):
    app = program(every="10m")
    app.drain()
    jobd_clock.move(minutes=10)
    app.tick()
    (job,) = app.jobs()
    jobd_clock.move(minutes=10)
    if not ended:
        job.cancel()
    write, first = app.store.write, []

    def meanwhile(work, **options):
        if not first:
            first.append(1)
            job.cancel() if ended else job.resume()
        return write(work, **options)

    schedules = declared(app)
    monkeypatch.setattr(app.store, "write", meanwhile)
    fired = fire_slot(app.store, schedules["work"], now=clock.now(), reached=lambda _: None)
    assert first
    assert (fired.why is None) == ended
    assert len(app.jobs()) == (2 if ended else 1)


# -- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def slot_due(program, begin, path):
    """A schedule whose slot is due, and two stores on its file."""
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    stores = SqliteStore(path), SqliteStore(path)
    yield app, stores, declared(app)["work"]
    for store in stores:
        store.close()


def test_of_two_who_look_at_once_the_slower_finds_the_slot_fired(slot_due, monkeypatch):
    app, (slow, quick), schedule = slot_due
    write, answers = slow.write, []

    def overtaken(work, **options):
        if not answers:
            answers.append(fire_slot(quick, schedule, now=clock.now(), reached=lambda _: None))
        return write(work, **options)

    monkeypatch.setattr(slow, "write", overtaken)
    assert fire_slot(slow, schedule, now=clock.now(), reached=lambda _: None) is None
    assert answers[0].job_id == 1
    assert len(app.jobs()) == 1


def test_who_fires_holds_the_lock_until_the_row_has_moved_on(slot_due):
    app, (quick, slow), schedule = slot_due
    inside, answers = threading.Event(), []

    def second():
        assert inside.wait(SECONDS)
        try:
            answers.append(fire_slot(slow, schedule, now=clock.now(), reached=lambda _: None))
        finally:
            slow.close()

    thread = threading.Thread(target=second)
    thread.start()
    looked = slow.read
    waiting = threading.Event()
    slow.read = lambda work: (looked(work), waiting.set())[0]

    def reached(point):
        if point == "fire.before_commit":
            inside.set()
            assert waiting.wait(SECONDS)

    assert fire_slot(quick, schedule, now=clock.now(), reached=reached).job_id == 1
    thread.join(SECONDS)
    assert answers == [None]
    assert len(app.jobs()) == 1


@pytest.mark.parametrize("point", ["fire.before_commit", "fire.after_commit"])
def test_killed_around_the_commit_the_slot_has_its_one_job(program, ran, begin, jobd_crash, point):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    with jobd_crash(point):
        app.drain()
        pytest.fail("the block goes on after the crash")
    assert len(app.jobs()) == (point == "fire.after_commit")
    app = program(**DAILY)
    app.drain()
    assert len(app.jobs()) == len(ran) == 1
    assert app.doctor().exit_code == 0


def test_a_daemon_that_is_killed_around_the_commit_leaves_the_slot_to_the_next(
    program, ran, begin, jobd_crash, until, jobd_clock
):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    with jobd_crash("fire.before_commit"), app.daemon() as daemon:
        until(lambda: daemon.join(0))
    assert app.jobs() == []
    app.drain()
    assert len(ran) == 1


@pytest.mark.parametrize("point", ["fire.before_commit", "fire.after_commit", None])
def test_a_job_of_many_items_is_no_long_transaction(program, begin, jobd_crash, monkeypatch, point):
    monkeypatch.setattr(firing, "CHUNK", 2)
    app = program(**DAILY, items=range(5))
    app.drain()
    begin("2026-03-11T02:30")
    submit, inside = firing.submit, []

    def told(store, *arguments, **options):
        inside.append(store.holds_transaction())
        return submit(store, *arguments, **options)

    monkeypatch.setattr(firing, "submit", told)
    if point:
        with jobd_crash(point):
            app.drain()
    app.drain()
    assert inside == [False]
    assert [job.counts.completed for job in app.jobs()] == [5]
    assert app.schedules.entries()[0].last_job_id == 1


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_put_back_fires_no_slot_again(program, begin, jobd_clock):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    for text in ("2026-03-11T00:40", "2026-03-11T02:30", "2026-03-11T02:40"):
        begin(text)
        app.drain()
    assert len(app.jobs()) == 1
    begin("2026-03-12T02:30")
    app.drain()
    assert len(app.jobs()) == 2


def test_a_slot_that_comes_again_with_the_clock_stays_fired_without_its_job(program, begin):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    app.job("@last").delete()
    begin("2026-03-11T01:30")
    app.schedules.pause("work")
    app.schedules.unpause("work")
    begin("2026-03-11T02:30")
    app.drain()
    assert app.jobs() == []
    begin("2026-03-12T02:30")
    app.drain()
    assert len(app.jobs()) == 1


def test_a_clock_that_was_wrong_for_a_while_costs_no_day(program, begin):
    app = program(**DAILY)
    app.drain()
    begin("2031-05-05T12:00")
    app.drain()
    begin("2026-03-11T01:00")
    app.drain()
    for day in range(11, 14):
        begin(f"2026-03-{day}T02:30")
        app.drain()
    assert jobs(app)[1:] == [f"schedule work at {iso(f'2026-03-{day}T02:30')}" for day in range(11, 14)]


def test_a_clock_that_starts_in_1970_and_is_put_right_fires_nothing_again(program, begin):
    app = program(**DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    for text in ("1970-01-02T00:00", "1970-01-02T03:00", "2026-03-11T08:00"):
        begin(text)
        app.drain()
    assert [key for key in jobs(app) if "2026" in key] == [f"schedule work at {iso('2026-03-11T02:30')}"]


# -- the program ------------------------------------------------------------------------------------------------------


def test_a_changed_schedule_takes_its_row_over_and_counts_from_now(program, begin):
    program(**DAILY).drain()
    begin("2026-03-11T12:00")
    app = program(cron="0 3 * * *", zone="Europe/Berlin", items=["x"], catch_up="skip")
    app.drain()
    (entry,) = app.schedules.entries()
    assert (entry.spec, entry.catch_up, entry.next_at) == (
        "0 3 * * *", "skip", int(at("2026-03-12T03:00").timestamp() * 1000),
    )  # fmt: skip
    assert jobs(app) == []


def test_other_items_alone_move_no_slot(program, ran, begin):
    program(**DAILY).drain()
    begin("2026-03-11T12:00")
    app = program(**DAILY, items=["x"])
    app.drain()
    assert [value for _, value in ran] == ["x"]


def test_a_schedule_whose_code_is_gone_does_not_fire_and_is_shown_so(program, begin):
    program(**DAILY).drain()
    begin("2026-03-12T12:00")
    app = program()
    app.drain()
    assert app.jobs() == []
    with app.daemon():
        assert [entry.state for entry in app.schedules.entries()] == ["unknown"]
        with pytest.raises(Conflict, match="its code is not in the program"):
            app.schedules.run("work")
    again = program(**DAILY)
    with again.daemon():
        assert [entry.state for entry in again.schedules.entries()] == ["ok"]
    assert [entry.state for entry in again.schedules.entries()] == ["no_daemon"]


def test_paused_it_does_not_fire_and_what_passed_meanwhile_is_not_made_up_for(program, begin):
    app = program(**DAILY)
    assert app.schedules.pause("work")
    assert not app.schedules.pause("work")
    begin("2026-03-14T12:00")
    assert app.drain().next_due is None
    assert app.schedules.unpause("work")
    assert not app.schedules.unpause("work")
    assert app.drain().next_due == int(at("2026-03-15T02:30").timestamp() * 1000)
    assert app.jobs() == []
    for act in (app.schedules.pause, app.schedules.unpause, app.schedules.run, app.schedules.preview):
        with pytest.raises(NotFound):
            act("other")


def test_by_hand_it_runs_apart_from_its_slots_and_not_twice_at_once(program, ran, begin):
    app = program(**DAILY)
    job = app.schedules.run("work")
    assert job.key.startswith("schedule work by hand at 2026-03-10T11:00")
    with pytest.raises(Conflict, match="is still queued"):
        app.schedules.run("work")
    app.drain()
    begin("2026-03-11T02:30")
    app.drain()
    assert len(ran) == 2
    with app.daemon():
        begin("2026-03-11T05:00")
        assert app.schedules.run("work").wait(SECONDS).status == "completed"


def test_one_that_cannot_be_fired_keeps_no_other_from_it(program, begin, monkeypatch):
    app = program(**DAILY)
    app.schedule(app.tasks["work"], name="second", **DAILY)
    app.drain()
    begin("2026-03-11T02:30")
    submit = firing.submit

    def refuses(store, submission, *arguments, **options):
        if "schedule work" in submission.key:
            raise Conflict("no")
        return submit(store, submission, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(firing, "submit", refuses)
        report = fire(app.store, declared=declared(app), now=clock.now())
    assert report.stays == {"schedule work: no": 1}
    assert jobs(app) == [f"schedule second at {iso('2026-03-11T02:30')}"]
    app.drain()
    assert len(app.jobs()) == 2


def test_a_look_changes_nothing(program, begin):
    app = program(**DAILY)
    assert fire(app.store, declared=declared(app), now=clock.now(), check_only=True).changes == []
    assert app.store.read(lambda c: c.execute("select count(*) from schedules").fetchone()) == (0,)
    app.drain()
    begin("2026-03-11T02:30")
    (change,) = fire(app.store, declared=declared(app), now=clock.now(), check_only=True).changes
    assert change.json() == {
        "job_id": None, "item_id": None, "key": None, "from_status": None, "to_status": "queued",
        "evidence": f"schedule work: the slot of {iso('2026-03-11T02:30')}",
    }  # fmt: skip
    assert app.jobs() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, UsageError),
        ({"every": "1h", "cron": "* * * * *"}, UsageError),
        ({"every": "1h", "zone": "Nowhere"}, UsageError),
        ({"every": "1h", "catch_up": "twice"}, UsageError),
        ({"every": "1h", "evrey": 1}, UsageError),
        ({"every": "1h", "name": ""}, UsageError),
        ({"every": "1h", "name": "n" * 256}, UsageError),
        ({"every": "1h", "items": [1, "1"]}, DuplicateKeys),
        ({"every": "1h", "items": [None]}, InvalidItem),
        ({"every": "1h", "items": "abc"}, TypeError),
        ({"every": "1h", "params": object()}, UsageError),
        ({"cron": "0 0 30 2 *"}, UsageError),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_declared(program, options, error):
    app = program()
    with pytest.raises(error):
        app.schedule(app.tasks["work"], **options)
    assert app.schedules.entries() == []


def test_two_of_one_name_and_what_is_no_task_are_refused(program, make_app):
    app = program(every="1h")
    with pytest.raises(UsageError, match="already"):
        app.schedule(app.tasks["work"], every="2h")
    with pytest.raises(UsageError, match="not a task"):
        app.schedule(every="1h")(lambda value: value)
    with pytest.raises(UsageError, match="not a task"):
        make_app().schedule(app.tasks["work"], every="1h")


# -- the daemon -------------------------------------------------------------------------------------------------------


def test_the_scheduler_sleeps_until_the_next_is_due(jobd_clock):
    scheduler, rung, due = Scheduler(), [], {"at": clock.now() + 2_000}
    scheduler.every(5, "heart", lambda: None)

    def seconds():
        return None if due["at"] is None else (due["at"] - clock.now()) / 1000

    scheduler.as_due("fire", lambda: (rung.append(clock.now()), due.update(at=None)), seconds)
    assert scheduler._idle() == 2.0
    jobd_clock.move(seconds=1.9)
    scheduler.run_pending()
    assert (rung, scheduler._idle()) == ([], pytest.approx(0.1))
    jobd_clock.move(seconds=0.1)
    scheduler.run_pending()
    assert rung == [clock.now()]
    assert scheduler._idle() == pytest.approx(3.0)


def test_a_daemon_fires_when_the_time_comes_and_again(program, begin, jobd_clock, until, rows):
    app = program(**DAILY)
    with app.daemon():
        until(lambda: rows.one("select count(*) from schedules"))
        for day in (11, 12):
            jobd_clock.move_to(at(f"2026-03-{day}T02:30"))
            until(lambda day=day: len(app.jobs(status="completed")) == day - 10)
        # The lid closed, and nobody was awake at the slot.
        jobd_clock.suspend(hours=33)
        until(lambda: len(app.jobs(status="completed")) == 3)
    assert jobs(app) == [f"schedule work at {iso(f'2026-03-{day}T02:30')}" for day in (11, 12, 13)]


def test_what_is_declared_or_unpaused_beside_a_running_daemon_fires_too(program, begin, jobd_clock, until, rows):
    app = program()
    with app.daemon():
        app.schedule(app.tasks["work"], every="1h")
        until(lambda: rows.one("select count(*) from schedules"))
        app.schedules.pause("work")
        jobd_clock.move(hours=5)
        app.schedules.unpause("work")
        jobd_clock.move(hours=1)
        until(lambda: len(app.jobs(status="completed")) == 1)
    assert len(app.jobs()) == 1


def test_a_program_without_schedules_pays_nothing_for_them(app, jobd_clock, monkeypatch):
    @app.task
    def work(value):
        pass

    work.submit([1])
    app.drain()
    assert app.store.read(lambda c: c.execute("select name from passes where name = 'fire'").fetchall()) == []
