"""The watchlist of the examples: one job a night over what is on it, and of each page one result for each day."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from jobd import cli
from jobd.store.invariants import check

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "watchlist.py"


class Site:
    """Pages as files, which the program opens by their addresses."""

    def __init__(self, folder):
        self._folder = folder

    def url(self, name):
        return (self._folder / name).as_uri()

    def write(self, name, text):
        (self._folder / name).write_text(text)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    for name in ("prices", "news", "terms"):
        site.write(name, f"{name} of today")
    return site


@pytest.fixture
def program(path, monkeypatch, jobd_clock):
    monkeypatch.setenv("JOBD_DB", str(path))
    jobd_clock.move_to("2026-12-01T12:00+01:00")
    program = runpy.run_path(str(PROGRAM))
    yield program
    assert check(program["app"].store) == []
    program["app"].close()


@pytest.fixture
def night(program, jobd_clock):
    """Let the next night pass, and return the job that it fired."""

    def pass_by(date):
        app = program["app"]
        jobd_clock.move_to(f"{date}T02:59+01:00")
        assert app.drain().counts == {}
        jobd_clock.move(minutes=1)
        app.drain()
        return app.jobs(limit=1)[0]

    return pass_by


def watchlist(action, *urls):
    # A call is a process of its own: the program is imported anew.
    sys.modules.pop(PROGRAM.stem, None)
    assert cli.call(["--app", str(PROGRAM), "watchlist", action, "page", *urls]) == 0


def seen(job):
    return {item.key.rpartition("/")[2]: item.status for item in job.items()}


def test_each_night_one_job_looks_at_what_is_on_the_list_by_then(program, site, night):
    app = program["app"]
    watchlist("add", site.url("prices"), site.url("news"))
    first = night("2026-12-02")
    assert (first.status, seen(first)) == ("completed", {"news": "completed", "prices": "completed"})
    watchlist("add", site.url("terms"))
    watchlist("remove", site.url("news"))
    second = night("2026-12-03")
    assert (second.status, seen(second)) == ("completed", {"prices": "completed", "terms": "completed"})
    assert [job.id for job in app.jobs()] == [second.id, first.id]


def test_the_results_of_a_page_are_kept_by_day_and_say_when_it_changed(program, site, night, capsys):
    app, url = program["app"], site.url("prices")
    watchlist("add", url, site.url("terms"))
    for date, text in (("2026-12-02", "1"), ("2026-12-03", "1"), ("2026-12-04", "2")):
        site.write("prices", text)
        night(date)
    history = [(result.period, result.value["changed"]) for result in app.results("page", key=url)]
    assert history == [("2026-12-04", True), ("2026-12-03", False), ("2026-12-02", False)]
    lines = program["report"]()
    assert lines == [
        f"{url}  completed  changed: 2026-12-04",
        f"{site.url('terms')}  completed  changed: -",
    ]


def test_a_page_that_is_looked_at_by_hand_has_still_one_result_for_its_day(program, site, night, jobd_clock):
    app, url = program["app"], site.url("prices")
    watchlist("add", url)
    night("2026-12-02")
    jobd_clock.move(hours=9)
    by_hand = app.submit("page", [url])
    app.drain()
    assert by_hand.refresh().item(url).error == "its day 2026-12-02 is taken by 1:#1"
    assert [result.period for result in app.results("page", key=url)] == ["2026-12-02"]


def test_nights_without_a_daemon_are_made_up_for_by_one_job(program, site, night, jobd_clock):
    app = program["app"]
    watchlist("add", site.url("prices"))
    first = night("2026-12-02")
    jobd_clock.move_to("2026-12-06T12:00+01:00")
    app.drain()
    assert len(app.jobs()) == 2
    assert app.jobs(limit=1)[0].id == first.id + 1
    assert [result.period for result in app.results("page")] == ["2026-12-06", "2026-12-02"]
