"""Unique tasks in a daemon: what the handler sees of it, and where the day begins."""

from __future__ import annotations

import json
import threading

import pytest

from jobd import Skip, clock
from jobd.engine.claims import Claims

SECONDS = 20


def shown(job):
    return {item.key: (item.status, item.error) for item in job.refresh().items()}


def test_the_second_job_of_a_day_runs_only_what_the_first_has_not(app):
    ran = []

    @app.task(unique="day")
    def work(value):
        ran.append(value)
        if value == "bad":
            raise ValueError("no")

    with app.daemon():
        work.submit(["a", "bad"]).wait(SECONDS)
        job = work.submit(["a", "b", "bad"]).wait(SECONDS)
    assert sorted(ran) == ["a", "b", "bad", "bad"]
    assert shown(job)["a"][0] == "skipped"
    assert job.counts.skipped == 1


def test_the_loser_learns_it_where_it_saves_its_result_and_leaves_the_handler(app, gate):
    went_on = []

    @app.task(unique="day")
    def work(value, ctx):
        if ctx.params:
            gate.pass_through()
        ctx.save_result(ctx.job_id)
        went_on.append(ctx.job_id)

    with app.daemon(workers=2):
        loser = work.submit(["a"], params="wait")
        assert gate.entered.wait(SECONDS)
        winner = work.submit(["a"]).wait(SECONDS)
        gate.opened.set()
        loser.wait(SECONDS)
    assert went_on == [winner.id]
    assert shown(loser) == {"a": ("skipped", f"its day {_day(app)} is taken by 2:#2")}
    assert [result.value for result in app.results(work)] == [winner.id]


def test_a_handler_that_catches_it_may_say_what_it_likes_and_is_skipped_all_the_same(app, gate):
    @app.task(unique="day")
    def work(value, ctx):
        if ctx.params:
            gate.pass_through()
        try:
            ctx.save_result("saved")
        except Skip:
            return "mine"

    with app.daemon(workers=2):
        loser = work.submit(["a"], params="wait")
        assert gate.entered.wait(SECONDS)
        work.submit(["a"]).wait(SECONDS)
        gate.opened.set()
        assert shown(loser.wait(SECONDS))["a"][0] == "skipped"


def test_two_handlers_of_one_key_that_save_at_the_same_moment_have_one_winner(app):
    together = threading.Barrier(2)

    @app.task(unique="day")
    def work(value, ctx):
        together.wait(SECONDS)
        ctx.save_result(ctx.job_id)

    with app.daemon(workers=2):
        jobs = [work.submit(["a"]) for _ in range(2)]
        assert sorted(shown(job.wait(SECONDS))["a"][0] for job in jobs) == ["completed", "skipped"]
    assert len(app.results(work)) == 1


def test_the_day_is_that_on_which_the_attempt_began(jobd_app, jobd_clock):
    @jobd_app.task(unique="day")
    def work(value):
        jobd_clock.move(minutes=10)
        return value

    jobd_clock.move_to("2031-05-06T23:55")
    first = work.submit(["a"])
    jobd_app.drain()
    assert [result.period for result in first.results()] == ["2031-05-06"]
    second = work.submit(["a"])
    jobd_app.drain()
    assert [result.period for result in second.results()] == ["2031-05-07"]
    third = work.submit(["a"])
    jobd_app.drain()
    assert shown(third) == {"a": ("skipped", "its day 2031-05-07 is taken by 2:#2")}


@pytest.mark.parametrize(
    ("zone", "day"), [("UTC", "2031-03-30"), ("Asia/Tokyo", "2031-03-31"), ("America/New_York", "2031-03-30")]
)
def test_the_day_is_that_of_the_tasks_zone(jobd_app, jobd_clock, zone, day):
    @jobd_app.task(unique="day", zone=zone)
    def work(value):
        return value

    jobd_clock.move_to("2031-03-30T22:00")
    job = work.submit(["a"])
    jobd_app.drain()
    assert [result.period for result in job.results()] == [day]


def test_a_local_day_of_23_hours_is_one_day(jobd_app, jobd_clock):
    @jobd_app.task(unique="day", zone="Europe/Berlin")
    def work(value):
        return value

    periods = []
    # Daylight saving begins on 30 March 2031 at 01:00 UTC: that local day lasts from 23:00 to 22:00 UTC.
    for when in ("2031-03-29T22:59", "2031-03-29T23:01", "2031-03-30T21:59", "2031-03-30T22:01"):
        jobd_clock.move_to(when)
        job = work.submit(["a"])
        jobd_app.drain()
        periods.append([result.period for result in job.results()])
    assert periods == [["2031-03-29"], ["2031-03-30"], [], ["2031-03-31"]]


def test_what_a_drain_leaves_out_it_counts_as_skipped_and_leaves_nothing_due(jobd_app):
    @jobd_app.task(unique="day")
    def work(value):
        return value

    keys = [str(number) for number in range(1_100)]
    work.submit(keys)
    jobd_app.drain()
    job = work.submit([*keys, "new"])
    assert jobd_app.drain().counts == {"skipped": 1_100, "completed": 1}
    assert job.refresh().status == "completed"


def test_a_refresh_runs_again_and_the_newest_result_has_the_day(jobd_app):
    @jobd_app.task(unique="day")
    def work(value, ctx):
        return ctx.job_id

    for refresh in (False, True, False):
        work.submit(["a"], refresh=refresh)
        jobd_app.drain()
    assert [(r.value, r.period is None) for r in jobd_app.results(work, key="a")] == [(2, False), (1, True)]


def test_a_job_submitted_without_its_task_is_unique_to_the_daemon_and_says_so_afterwards(jobd_app, tmp_path):
    from jobd import Jobd

    @jobd_app.task(unique="day", zone="Europe/Berlin")
    def work(value):
        return value

    stranger = Jobd(jobd_app.path)
    stranger.submit("work", ["a"])
    stranger.submit("work", ["a"], refresh=True)
    jobd_app.drain()
    assert [result.period is None for result in jobd_app.results("work")] == [False, True]
    policy = jobd_app.store.read(lambda c: c.execute("select policy from jobs where id = 1").fetchone()[0])
    assert json.loads(policy) == {"unique": "day", "zone": "Europe/Berlin"}
    stranger.close()


def test_what_was_interrupted_runs_again_unless_its_day_is_taken_meanwhile(jobd_app, jobd_crash):
    @jobd_app.task(unique="day")
    def work(value):
        return value

    job = work.submit(["a", "b"])
    for _ in range(2):
        with jobd_crash("handler.before"):
            jobd_app.drain()
    other = work.submit(["a"], priority=1)
    jobd_app.drain()
    assert sorted([shown(job)["a"][0], shown(other)["a"][0]]) == ["completed", "skipped"]
    assert shown(job)["b"] == ("completed", None)
    assert jobd_app.doctor().exit_code == 0


def test_an_item_that_must_run_alone_and_need_not_run_at_all_keeps_nobody_waiting(app):
    @app.task(unique="day")
    def work(value):
        return value

    work.submit(["a"])
    app.drain()
    blamed, other = work.submit(["a"]), work.submit(["b"])
    app.store.write(lambda c: c.execute("update job_items set interruptions = 2 where job_id = ?", (blamed.id,)))
    claims = Claims(app.store, daemon_id=1, tasks=app.tasks, slots=2, unique=lambda: {"work": work.policy.once})
    claims.solitude.anybody = True
    claimed, skipped = app.store.write(lambda connection: claims.claim(connection, [], 100, clock.now()))
    assert ([item.job_id for item in claimed], skipped) == ([other.id], 1)
    assert shown(blamed)["a"][0] == "skipped"


def _day(app):
    return app.store.read(lambda c: c.execute("select period from results where period is not null").fetchone()[0])
