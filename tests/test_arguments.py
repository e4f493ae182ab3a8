"""What names no job, no item and no page, said in one line before the database sees it."""

import datetime as dt

import pytest

from jobd import NotFound, UsageError
from jobd.store.views import iso

SURROGATE = "\ud800"
BEYOND = 2**70
SECONDS = 20
ZONES = [dt.timezone(dt.timedelta(hours=hours)) for hours in (-12, 14)]
ENDS = [dt.datetime.max, dt.datetime.min]  # noqa: DTZ901 - local ones too


@pytest.fixture
def job(app):
    @app.task
    def echo(value):
        return value

    return echo.submit(["a", "b"], key="known")


@pytest.mark.parametrize(
    "look",
    [
        lambda app, job: app.job(f"={SURROGATE}"),
        lambda app, job: app.job(BEYOND),
        lambda app, job: app.job(-BEYOND),
        lambda app, job: app.job(10**5000),
        lambda app, job: app.job(str(BEYOND)),
        lambda app, job: app.job("=a\0b"),
        lambda app, job: job.item(SURROGATE),
        lambda app, job: job.item("a\0"),
        lambda app, job: job.item(f"#{BEYOND}"),
        lambda app, job: job.output(SURROGATE),
    ],
)
def test_what_cannot_be_stored_names_nothing(app, job, look):
    with pytest.raises(NotFound) as caught:
        look(app, job)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda app, job: app.job(True), "not a job: True"),
        (lambda app, job: app.job(1.0), "not a job: 1.0"),
        (lambda app, job: app.job(None), "not a job: None"),
        (lambda app, job: app.job(f"1{SURROGATE}"), "not a job: '1.ud800'"),
        (lambda app, job: app.jobs(key=SURROGATE), "key: a lone surrogate"),
        (lambda app, job: app.jobs(task=SURROGATE), "task: a lone surrogate"),
        (lambda app, job: app.jobs(task=7), "task: not text: 7"),
        (lambda app, job: app.jobs(external=SURROGATE), "external: a lone surrogate"),
        (lambda app, job: app.jobs(status=SURROGATE), "unknown status"),
        (lambda app, job: app.jobs(limit=-1), "limit: not from 0"),
        (lambda app, job: app.jobs(limit=BEYOND), "limit: not from 0"),
        (lambda app, job: app.jobs(limit=None), "limit: not a whole number"),
        (lambda app, job: app.jobs(limit=True), "limit: not a whole number"),
        (lambda app, job: app.jobs(before=BEYOND), "before: not from 0"),
        (lambda app, job: app.jobs(since=ENDS[0].replace(tzinfo=dt.UTC)), "too far from now"),
        (lambda app, job: app.results("echo", key=SURROGATE), "key: a lone surrogate"),
        (lambda app, job: app.results(SURROGATE), "task: a lone surrogate"),
        (lambda app, job: app.results("echo", limit=-1), "limit: not from 0"),
        (lambda app, job: app.submit(7), "task: not text: 7"),
        (lambda app, job: job.results(key=SURROGATE), "key: a lone surrogate"),
        (lambda app, job: job.items(key=SURROGATE), "key: a lone surrogate"),
        (lambda app, job: job.items(after=BEYOND), "after: not from 0"),
        (lambda app, job: job.items(limit=-5), "limit: not from 0"),
        (lambda app, job: job.item(7), "an item: not text: 7"),
        (lambda app, job: job.events(limit=-1), "limit: not from 0"),
        (lambda app, job: job.errors(limit=-1), "limit: not from 0"),
        (lambda app, job: job.errors(keys=-1), "keys: not from 0"),
        (lambda app, job: job.cancel(7), "reason: not text: 7"),
        (lambda app, job: app.submit("echo", target=object()), "target: not text"),
    ],
)
def test_what_cannot_be_meant_is_refused(app, job, ask, says):
    with pytest.raises(UsageError, match=says) as caught:
        ask(app, job)
    str(caught.value).encode()
    assert [one.id for one in app.jobs()] == [job.id]
    assert job.refresh().status == "queued"


def test_a_limit_of_0_and_a_page_before_all_are_empty(app, job):
    assert app.jobs(limit=0) == app.jobs(before=0) == app.jobs(task="echo", before=0) == []
    assert job.items(limit=0) == job.events(limit=0) == job.errors(limit=0) == []


@pytest.mark.parametrize(("reason", "kept"), [(SURROGATE, "\\ud800"), ("a\0b", "a\\x00b"), ("café", "café"), ("", "")])
def test_a_reason_is_kept_as_the_database_can_hold_it(job, reason, kept):
    job.cancel(reason)
    assert next(event for event in job.events() if event.name == "cancel").message == kept


@pytest.mark.parametrize(("target", "kept"), [(f"./{SURROGATE}.py:f", "./\\ud800.py:f"), ("a\0b", "a\\x00b")])
def test_a_target_is_kept_as_the_database_can_hold_it(app, target, kept):
    assert app.submit("echo", ["a"], target=target).target == kept


@pytest.mark.parametrize("at", [*ENDS, *(end.replace(tzinfo=zone) for end in ENDS for zone in (dt.UTC, *ZONES))])
def test_a_time_at_the_ends_of_the_calendar_is_refused(app, at):
    with pytest.raises(UsageError):
        app.submit("echo", ["a"], not_before=at)


@pytest.mark.parametrize("year", [2, 9998])
@pytest.mark.parametrize("zone", ZONES)
def test_the_farthest_time_that_is_taken_is_one_in_every_zone(app, year, zone):
    job = app.submit("echo", ["a"], not_before=dt.datetime(year, 6, 1, tzinfo=dt.UTC))
    shown = dt.datetime.fromisoformat(iso(job.not_before))
    assert shown.astimezone(zone).year == year


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(float("nan"), None, None), (1, {1}, None), (1, 2, "x" * 5000), (2**64, None, None), (1, 2, SURROGATE)],
)
def test_progress_that_cannot_be_shown_fails_no_item_and_is_said_once(app, done, total, text):
    @app.task
    def tell(value, ctx):
        ctx.progress(done, total, text)
        ctx.progress(done, total, text)
        ctx.progress(1, 2, "seen")
        return value

    with app.daemon():
        job = tell.submit(["a"]).wait(SECONDS)
    assert job.status == "completed"
    assert job.output("a").text.count("ctx.progress is not shown: progress is") == 1
    assert job.item("a").progress == [1, 2, "seen"]
