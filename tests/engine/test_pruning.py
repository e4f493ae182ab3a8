"""The daemon prunes by itself, when asked, and for whom it was asked; and goes on living while it does."""

from __future__ import annotations

import pytest

from jobd import NotFound, UsageError, clock
from jobd.engine import asking
from jobd.engine.passes import PASSES
from jobd.maintenance.report import Report
from jobd.process import myself
from jobd.store import daemons, vacuum

DAY = 86_400_000


@pytest.fixture
def ended(rows):
    """Add a job that ended so many days ago, and return its id."""

    def add(days, status="completed", items=1):
        return rows.job([status] * items, status=status, completed_at=clock.now() - days * DAY)

    return add


def test_a_daemon_prunes_at_its_beat_and_removes_what_it_asked_for(make_app, rows, ended, until):
    app = make_app(prune_every="20ms", keep_completed="1d")
    with app.daemon():
        first = ended(2, items=3)
        until(lambda: not rows.all("select 1 from jobs where id = ?", first))
        stays = ended(0.5)
        second = ended(2)
        until(lambda: not rows.all("select 1 from jobs where id = ?", second))
    assert rows.all("select id from jobs") == [(stays,)]
    assert rows.all("select distinct job_id from job_items") == [(stays,)]


def test_a_daemon_that_never_lives_as_long_as_the_beat_prunes_at_its_start_once_in_that_time(app, rows, ended, until):
    old = ended(99)
    with app.daemon():
        until(lambda: not rows.all("select 1 from jobs where id = ?", old))
        until(lambda: rows.one("select finished_at from passes where name = 'prune'"))
    (began,) = rows.all("select started_at from passes where name = 'prune'")
    with app.daemon():
        assert asking.ask(app.store, "recover")
    assert rows.all("select started_at from passes where name = 'prune'") == [began]
    rows.change("update passes set started_at = started_at - 3600000 where name = 'prune'")
    with app.daemon():
        until(lambda: rows.one("select started_at from passes where name = 'prune'") >= began[0])


def test_pages_go_back_to_the_file_system_once_the_rows_are_gone(make_app, rows, ended, until, monkeypatch):
    monkeypatch.setattr(vacuum, "_SPARE_PAGES", 2)
    app = make_app(keep_completed="1d")
    job_id = ended(2)
    rows.change(
        "insert into item_output (item_id, attempt, text) select id, 1, hex(zeroblob(2000000)) from job_items"
        " where job_id = ?", job_id,
    )  # fmt: skip
    before = rows.one("pragma page_count")
    with app.daemon():
        until(lambda: rows.one("pragma page_count") < before / 4)
    assert rows.all("select id from jobs") == []


# -- asked for --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alive", [False, True], ids=["without a daemon", "beside a daemon"])
def test_pruning_by_hand_says_what_it_would_do_and_does_it(app, rows, ended, until, alive):
    with app.daemon() if alive else pytest.MonkeyPatch.context():
        if alive:
            until(lambda: rows.all("select 1 from passes where name = 'prune' and finished_at is not null"))
        old, older = ended(4, "failed", items=2), ended(6, "cancelled")
        ended(1)
        said = app.prune("3d", check_only=True)
        assert said.check_only
        assert rows.one("select count(*) from jobs where deleted_at is not null") == 0
        did = app.prune("3d")
        assert did.changes == said.changes
        assert {change.job_id for change in did.changes} == {old, older}
        assert did.counts == said.counts == {"removed": 2, "items": 3}
        until(lambda: rows.one("select count(*) from jobs") == 1)
        assert app.prune("3d").changes == []


def test_an_age_that_is_asked_for_is_not_that_of_the_next_beat(app, rows, ended, until):
    with app.daemon():
        until(lambda: rows.all("select 1 from passes where name = 'prune' and finished_at is not null"))
        app.prune(1)
        ended(4)
        assert asking.ask(app.store, "prune").changes == []


def test_without_a_daemon_the_progress_of_the_removal_is_told(app, ended):
    ended(31, items=5)
    ended(31, items=2)
    told = []
    app.prune(progress=lambda *how_far: told.append(how_far))
    assert told[-1] == (7, 7)


@pytest.mark.parametrize("age", ["soon", -1, True, float("nan"), 10**9, "forever"])
def test_what_is_no_age_is_refused(app, age):
    app.writing()
    with pytest.raises(UsageError, match="not an age"):
        app.prune(age)


def test_where_there_is_no_database_there_is_nothing_to_prune(tmp_path):
    from jobd import Jobd

    with pytest.raises(NotFound):
        Jobd(tmp_path / "none.db").prune()


# -- options of a request ---------------------------------------------------------------------------------------------


def test_a_request_is_run_with_its_options_and_a_beat_without(store):
    daemons.request(store, "prune", now=1, options={"older_than_ms": 5})
    assert daemons.begin_pass(store, "prune", now=2) == {"older_than_ms": 5}
    daemons.end_pass(store, "prune", "mine", now=3)
    assert daemons.answered(store, "prune", {"older_than_ms": 5}) == "mine"
    assert daemons.begin_pass(store, "prune", now=4) == {}


def test_a_request_that_came_while_a_beat_ran_keeps_its_options(store):
    assert daemons.begin_pass(store, "prune", now=1) == {}
    daemons.request(store, "prune", now=2, options={"older_than_ms": 5})
    daemons.end_pass(store, "prune", "the beat's", now=3)
    assert daemons.answered(store, "prune", {"older_than_ms": 5}) is None
    assert daemons.begin_pass(store, "prune", now=4) == {"older_than_ms": 5}


def test_a_request_that_a_daemon_left_in_the_middle_keeps_its_options(store):
    daemons.request(store, "prune", now=1, options={"older_than_ms": 5})
    daemons.begin_pass(store, "prune", now=2)
    daemons.register(store, myself(), tasks=[], version="1", now=3)
    assert daemons.begin_pass(store, "prune", now=4) == {"older_than_ms": 5}


def test_the_report_of_a_run_with_other_options_is_nobody_elses(store):
    daemons.request(store, "prune", now=1, options={"older_than_ms": 5})
    daemons.request(store, "prune", now=2)
    daemons.begin_pass(store, "prune", now=3)
    daemons.end_pass(store, "prune", "theirs", now=4)
    assert daemons.answered(store, "prune") == "theirs"
    with pytest.raises(daemons.OtherOptions):
        daemons.answered(store, "prune", {"older_than_ms": 5})


def test_who_was_answered_with_anothers_report_asks_again(app, monkeypatch):
    """Two people ask at once: each gets the report of a run with the options that he gave."""
    real, ran = PASSES["prune"], []

    def told(store, at):
        ran.append(dict(at.options))
        return Report("prune", check_only=False, counts=dict(at.options))

    request = daemons.request

    def overtaken(store, name, **kwargs):
        request(store, name, **kwargs)
        if kwargs["options"] == {"older_than_ms": 1} and {"older_than_ms": 2} not in ran:
            request(store, name, now=1, options={"older_than_ms": 2})

    with app.daemon():
        monkeypatch.setitem(PASSES, "prune", real._replace(run=told))
        monkeypatch.setattr(asking.daemons, "request", overtaken)
        assert asking.ask(app.store, "prune", {"older_than_ms": 1}).counts == {"older_than_ms": 1}
    assert {"older_than_ms": 2} in ran


# -- while it takes its time ------------------------------------------------------------------------------------------


def test_a_daemon_says_that_it_lives_while_a_pass_takes_long(make_app, rows, monkeypatch, until):
    app = make_app(heartbeat="10ms", prune_every="1h")
    real, beats = PASSES["prune"], []

    def long(store, at):
        began = rows.one("select heartbeats from daemons")
        while rows.one("select heartbeats from daemons") < began + 3 and at.go_on():
            pass
        beats.append(rows.one("select heartbeats from daemons") - began)
        return Report("prune", check_only=False)

    with app.daemon():
        monkeypatch.setitem(PASSES, "prune", real._replace(run=long))
        asking.ask(app.store, "prune")
    assert beats[-1] >= 3
