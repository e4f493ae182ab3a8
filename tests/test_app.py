"""The facade: what a program embeds, over the real engine and real files."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jobd
from jobd import (
    ChangedInput,
    DaemonRunning,
    DuplicateKeys,
    InvalidItem,
    Jobd,
    NotFound,
    StoreUnusable,
    UsageError,
    clock,
)

SECONDS = 20
NOON = dt.datetime(2031, 5, 6, 12, tzinfo=dt.UTC)


@pytest.fixture
def bare(path):
    """An app whose file nobody has made yet."""
    bare = Jobd(path)
    yield bare
    bare.close()


@pytest.fixture
def echo(app):
    @app.task
    def echo(value):
        return value

    return echo


# -- the package ------------------------------------------------------------------------------------------------------


IMPORTS = """
import json, sys
import jobd
package = sorted(sys.modules)
import jobd.app
print(json.dumps([package, sorted(sys.modules)]))
"""


def test_importing_jobd_loads_no_database_and_who_only_looks_no_engine_that_runs():
    said = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True).stdout
    package, app = map(set, json.loads(said))
    assert "jobd" in package
    assert not package & {"peewee", "sqlite3", "jobd.app", "jobd.engine"}
    assert {"jobd.app", "sqlite3", "jobd.engine"} <= app
    assert not app & {"jobd.engine.daemon", "peewee", "psutil", "schedule", "rich"}


def test_every_public_name_is_there():
    assert {name for name in jobd.__all__ if not hasattr(jobd, name)} == set()
    assert set(jobd.__all__) <= set(dir(jobd))
    with pytest.raises(AttributeError, match="'Jobs'"):
        jobd.Jobs  # noqa: B018 - the look itself is what raises


# -- the database -----------------------------------------------------------------------------------------------------


def test_the_constructor_opens_and_creates_nothing(tmp_path, bare):
    bare.task(lambda value: value, name="echo")
    assert bare.path == str(tmp_path / "jobs.db")
    assert repr(bare) == f"<Jobd {tmp_path / 'jobs.db'}>"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "read",
    [
        lambda app: app.jobs(),
        lambda app: app.job(1),
        lambda app: app.job("@last"),
        lambda app: app.results("echo"),
        lambda app: app.recover(),
        lambda app: app.doctor(),
    ],
)
def test_reading_never_creates_a_file(tmp_path, bare, read):
    with pytest.raises(NotFound, match="there is no jobd file at"):
        read(bare)
    assert list(tmp_path.iterdir()) == []


def test_who_runs_a_file_that_is_not_there_is_nobody(tmp_path, bare):
    assert bare.daemon_status().alive is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [str, Path, lambda path: f"sqlite:///{path}"])
def test_a_database_is_a_path_or_an_address(path, form):
    app = Jobd(form(path))
    app.submit("echo", [1])
    assert path.stat().st_mode & 0o777 == 0o600
    app.close()


def test_an_address_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="unknown kind of database: mysql"):
        Jobd("mysql://host/jobs").submit("echo", [1])


def test_a_folder_that_is_not_there_is_not_made_for_a_named_file(tmp_path):
    with pytest.raises(StoreUnusable, match="No such file"):
        Jobd(tmp_path / "typo" / "jobs.db").submit("echo", [1])


def test_without_a_name_the_database_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBD_DB", str(tmp_path / "other.db"))
    assert Jobd().path == str(tmp_path / "other.db")
    assert Jobd(tmp_path / "named.db").path == str(tmp_path / "named.db")


def test_else_it_lies_in_the_users_data_folder_that_is_made_when_something_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    app = Jobd()
    with pytest.raises(NotFound):
        app.jobs()
    assert list(tmp_path.iterdir()) == []
    app.submit("echo", [1])
    assert Path(app.path).is_file()
    assert Path(app.path).parent.stat().st_mode & 0o777 == 0o700
    app.close()


def test_another_database_can_be_named_before_the_first_use(tmp_path, bare):
    bare.use(tmp_path / "second.db")
    bare.submit("echo", [1])
    assert not (tmp_path / "jobs.db").exists()
    with pytest.raises(UsageError, match="is in use already"):
        bare.use(tmp_path / "third.db")
    assert bare.path == str(tmp_path / "second.db")


def test_the_database_can_be_asked_directly(app, echo):
    echo.submit([1, 2])
    assert app.database.execute_sql("select count(*) from job_items").fetchone() == (2,)


def test_settings_are_those_of_the_keywords(path):
    assert Jobd(path, grace="5m", workers=3).settings.grace == 300
    with pytest.raises(UsageError, match="unknown setting 'worker'"):
        Jobd(path, worker=3)


def test_a_closed_app_opens_again(app, echo):
    echo.submit([1], key="k")
    app.close()
    assert app.job("=k").counts.total == 1


# -- submitting -------------------------------------------------------------------------------------------------------


def test_a_task_can_be_submitted_by_its_name(app, echo):
    job = app.submit("echo", [1, 2], target="./program.py:echo")
    assert (job.task, job.target, job.counts.total) == ("echo", "./program.py:echo", 2)
    assert app.submit(echo, [1]).task == "echo"
    assert app.submit("unknown here", [1]).task == "unknown here"


def test_no_items_is_one_run_and_an_empty_list_is_none(app, echo):
    with app.daemon():
        once = echo.submit().wait(SECONDS)
    assert [(item.key, item.payload) for item in once.items()] == [("echo", None)]
    none = echo.submit([])
    assert (none.status, none.progress, none.warnings) == ("completed", None, ("no items",))


@pytest.mark.parametrize("items", ["a.txt", b"a.txt", {"a": 1}])
def test_one_thing_in_place_of_items_is_refused(echo, items):
    with pytest.raises(TypeError):
        echo.submit(items)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"item_keys": "id"}, "did you mean item_key?"),
        ({"prioritiy": 3}, "did you mean priority?"),
        ({"afer": 3}, "did you mean after?"),
        ({"retry": 3}, ""),
    ],
)
def test_an_unknown_keyword_of_a_submission_is_refused_and_writes_nothing(app, echo, options, hint):
    with pytest.raises(UsageError, match="unknown keyword of a submission") as caught:
        echo.submit([1], **options)
    assert hint in caught.value.hint
    assert app.jobs() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": True}, "priority: not a whole number"),
        ({"priority": 1.5}, "priority: not a whole number"),
        ({"priority": 2**63}, "priority: not a whole number"),
        ({"not_before": "noon"}, "not a time"),
        ({"not_before": 17}, "not a time"),
        ({"tolerance": "half"}, "not a tolerance"),
        ({"changed": "drop"}, "changed: not 'drop'"),
        ({"duplicates": "keep"}, "duplicates: not 'keep'"),
        ({"params": {1, 2}}, "params is not JSON"),
        ({"params": float("nan")}, "params is not JSON"),
        ({"key": 7}, "key: not text"),
        ({"key": ""}, "key: the key is empty"),
        ({"key": "a\0"}, "key: the key has a NUL"),
    ],
)
def test_a_keyword_that_cannot_be_meant_is_refused(app, echo, options, says):
    with pytest.raises(UsageError, match=says):
        echo.submit([1], **options)
    assert app.jobs() == []


def test_a_bad_item_is_refused_with_its_position(app, echo):
    with pytest.raises(InvalidItem) as caught:
        echo.submit(["a", "b", None])
    assert caught.value.position == 2
    with pytest.raises(DuplicateKeys):
        echo.submit([1, "1"])
    assert app.jobs() == []
    assert echo.submit([1, "1"], duplicates="skip").added == 1


def test_the_same_key_again_adds_what_is_new_and_refuses_what_changed(app):
    @app.task
    def load(row):
        return row["n"]

    first = load.submit([{"id": "a", "n": 1}], key="k", item_key="id")
    with pytest.raises(ChangedInput) as caught:
        load.submit([{"id": "a", "n": 2}], key="k", item_key=lambda row: row["id"])
    assert caught.value.keys == ("a",)
    load.submit([{"id": "a", "n": 3}], key="k", item_key="id", changed="requeue")
    assert [item.payload["n"] for item in first.items()] == [3]


def test_params_reach_every_handler(app):
    @app.task
    def scale(value, ctx):
        return value * ctx.params["by"]

    with app.daemon():
        job = scale.submit([1, 2, 3], params={"by": 10}).wait(SECONDS)
    assert [result.value for result in job.results()] == [10, 20, 30]


def test_a_higher_priority_runs_first(app):
    order = []
    note = app.task(order.append, name="note")
    jobs = [note.submit([name], priority=priority) for name, priority in (("low", -1), ("usual", 0), ("high", 5))]
    with app.daemon(workers=1):
        for job in jobs:
            job.wait(SECONDS)
    assert order == ["high", "usual", "low"]


def test_a_time_before_which_nothing_starts_is_kept_in_utc(echo):
    assert echo.submit([1], not_before=NOON).not_before == 1_935_835_200_000
    local = NOON.astimezone().replace(tzinfo=None)
    assert echo.submit([1], not_before=local).not_before == 1_935_835_200_000


def test_nothing_starts_before_its_time(app, echo):
    later = dt.datetime.now(tz=dt.UTC) + dt.timedelta(hours=1)
    with app.daemon():
        job = echo.submit([1], not_before=later)
        echo.submit([1]).wait(SECONDS)
        assert job.refresh().status == "queued"


def test_the_tolerance_of_a_submission_comes_before_the_tasks(app):
    @app.task(tolerance=1)
    def odd(value):
        if value % 2 == 0:
            raise ValueError(value)

    with app.daemon():
        within, beyond = odd.submit([1, 2, 3]), odd.submit([1, 2, 3], tolerance=0)
        percent = odd.submit([1, 2, 3], tolerance="34%")
        statuses = [job.wait(SECONDS).status for job in (within, beyond, percent)]
    assert statuses == ["completed", "failed", "completed"]


def test_history_names_who_did_it(app, echo):
    echo.submit([1])
    app.actor = "cli"
    job = echo.submit([2]).cancel()
    assert {event.actor for event in app.job(1).events()} == {"python"}
    assert {event.actor for event in job.events()} == {"cli"}


# -- looking ----------------------------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_id_its_key_or_its_place(app, echo):
    first, last = echo.submit([1], key="first"), echo.submit([2])
    assert [app.job(name).id for name in (first.id, str(first.id), "=first", "@last")] == [1, 1, 1, last.id]
    for nobody in (99, "99", "=nobody", "@failed"):
        with pytest.raises(NotFound):
            app.job(nobody)
    with pytest.raises(UsageError, match="not a job"):
        app.job("first")


def test_jobs_are_listed_newest_first_and_filtered(app, echo):
    other = app.task(lambda value: 1 / value, name="other")
    with app.daemon():
        done, bad = echo.submit([1], key="k").wait(SECONDS), other.submit([0]).wait(SECONDS)
    left = echo.submit([1])

    def ids(**filters):
        return [job.id for job in app.jobs(**filters)]

    assert ids() == [left.id, bad.id, done.id]
    assert ids(limit=1) == [left.id]
    assert ids(before=bad.id) == [done.id]
    assert ids(status="failed") == ids(task=other) == ids(task="other") == [bad.id]
    assert ids(status="queued") == [left.id]
    assert ids(key="k") == [done.id]
    assert ids(since=dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) == ids()
    assert ids(since=dt.datetime(2100, 1, 1, tzinfo=dt.UTC)) == []
    with pytest.raises(UsageError, match="unknown status"):
        ids(status="done")


def test_the_results_of_a_task_are_the_history_of_its_keys(app, echo):
    with app.daemon():
        first, second = echo.submit(["a", "b"]).wait(SECONDS), echo.submit(["a"]).wait(SECONDS)
    assert [(result.job_id, result.value) for result in app.results("echo", key="a")] == [
        (second.id, "a"),
        (first.id, "a"),
    ]
    assert len(app.results(echo)) == 3
    assert len(app.results(echo, limit=1)) == 1


# -- the daemon in this process ---------------------------------------------------------------------------------------


def test_the_daemon_runs_while_its_block_does(app, echo):
    assert app.daemon_status().alive is False
    with app.daemon(workers=2) as daemon:
        status = app.daemon_status()
        assert (status.alive, status.id, status.pid, status.tasks) == (True, daemon.id, os.getpid(), ("echo", "shell"))
        assert echo.submit([1]).wait(SECONDS).status == "completed"
    assert app.daemon_status().alive is False


@pytest.mark.usefixtures("refused_at_once")
def test_a_second_daemon_of_the_same_file_is_refused(app, path):
    with app.daemon(), pytest.raises(DaemonRunning, match=f"pid {os.getpid()}"), Jobd(path).daemon():
        pytest.fail("two daemons on one file")


def test_one_app_can_run_its_daemon_again(app, echo):
    for _ in range(2):
        with app.daemon():
            assert echo.submit([1]).wait(SECONDS).status == "completed"


def test_leaving_finishes_what_runs_and_keeps_the_queue(app, held, gate):
    with app.daemon(workers=1) as daemon:
        job = held.submit(["runs", "waits"])
        assert gate.entered.wait(SECONDS)
        daemon.stop()
        gate.opened.set()
    assert [item.status for item in job.items()] == ["completed", "queued"]
    assert job.refresh().counts.running == 0


def test_leaving_after_the_time_to_drain_gives_back_what_runs(make_app, gate):
    app = make_app(drain=0.02)

    @app.task
    def held(value):
        gate.pass_through()

    with app.daemon(workers=1):
        job = held.submit([1])
        assert gate.entered.wait(SECONDS)
    assert job.refresh().counts.queued == 1
    assert "release" in [event.name for event in job.events(items=True)]


def test_an_exception_in_the_block_is_what_leaves_it(app, echo):
    with pytest.raises(ZeroDivisionError), app.daemon():
        1 / 0  # noqa: B018
    assert app.daemon_status().alive is False


def test_an_interrupt_while_it_drains_leaves_at_once(app, held, gate, monkeypatch):
    from jobd.engine.daemon import Daemon

    real, calls = Daemon.join, []

    def interrupted(self, timeout=None):
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(self, timeout)

    monkeypatch.setattr(Daemon, "join", interrupted)
    job = held.submit([1])
    with pytest.raises(KeyboardInterrupt), app.daemon(workers=1):
        assert gate.entered.wait(SECONDS)
    assert len(calls) == 2
    assert job.refresh().counts.queued == 1


def test_a_daemon_whose_file_was_replaced_leaves_and_its_block_says_why(path, echo_app):
    app, _ = echo_app

    def replace(daemon):
        until_it_beats(app)
        path.rename(path.with_suffix(".moved"))
        assert daemon.join(SECONDS)

    with pytest.raises(StoreUnusable, match=str(path)), app.daemon() as daemon:
        replace(daemon)
    assert not path.exists()


def until_it_beats(app):
    """Wait until the daemon's own thread looks after the file."""
    deadline = clock.awake() + SECONDS
    while not app.database.execute_sql("select max(heartbeats) from daemons").fetchone()[0]:
        assert clock.awake() < deadline


@pytest.fixture
def echo_app(make_app):
    """An app whose daemon looks at its file many times a second."""
    app = make_app(heartbeat=0.02)
    return app, app.task(lambda value: value, name="echo")


def test_the_embedded_daemon_touches_no_signal_handler(app):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with app.daemon():
        assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("workers", [0, -1, 1.5, "many", True])
def test_workers_are_counted_from_one(app, workers):
    with pytest.raises(UsageError, match="not a whole number"), app.daemon(workers=workers):
        pytest.fail("no daemon has so many workers")


# -- the daemon in the foreground -------------------------------------------------------------------------------------


def interrupt_when(ready, *numbers, then=lambda: None):
    """Send the signals to this process once ``ready`` says so, each after the one before was noticed."""

    def send():
        assert ready.wait(SECONDS)
        for number in numbers:
            os.kill(os.getpid(), number)
        then()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_finishes_what_runs(app, held, gate, number, monkeypatch):
    from jobd.engine.daemon import Daemon

    # What runs goes on only once the daemon was asked to stop.
    real = Daemon.stop
    monkeypatch.setattr(Daemon, "stop", lambda self, **how: (real(self, **how), gate.opened.set())[0])
    before = signal.getsignal(number)
    job = held.submit(["runs", "waits"])
    sender = interrupt_when(gate.entered, number)
    app.run(workers=1)
    sender.join(SECONDS)
    assert [item.status for item in job.items()] == ["completed", "queued"]
    assert signal.getsignal(number) == before
    assert app.daemon_status().alive is False


def test_a_second_signal_leaves_at_once(app, held, gate):
    job = held.submit([1])
    sender = interrupt_when(gate.entered, signal.SIGTERM, signal.SIGINT)
    app.run(workers=1)
    sender.join(SECONDS)
    assert job.refresh().counts.queued == 1


def test_a_first_signal_before_there_is_a_daemon_is_one_like_any_other(app, echo, monkeypatch):
    make = app._daemon

    def made(*given, **how):
        os.kill(os.getpid(), signal.SIGINT)
        return make(*given, **how)

    monkeypatch.setattr(app, "_daemon", made)
    try:
        app.run(workers=1)
    except KeyboardInterrupt:
        pytest.fail("it was not listened to")
    runner = app.daemon_status()
    assert (runner.alive, runner.pid) == (False, os.getpid()), "it has started, and left in order"


def test_a_second_one_does_not_wait_for_a_daemon(app, monkeypatch):
    def made(*given, **how):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(app, "_daemon", made)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        app.run(workers=1)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_signal_that_is_ignored_is_left_so(app, gate):
    @app.task
    def look(value):
        gate.entered.set()
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = look.submit([1])
        interrupt_when(gate.entered, signal.SIGINT, signal.SIGTERM)
        app.run(workers=1)
        assert [result.value for result in job.results()] == [True]
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("refused_at_once")
def test_signal_handlers_are_given_back_when_it_cannot_start(app, path):
    before = signal.getsignal(signal.SIGTERM)
    with Jobd(path).daemon(), pytest.raises(DaemonRunning):
        app.run()
    assert signal.getsignal(signal.SIGTERM) == before


def test_run_raises_why_the_daemon_left_by_itself(path, echo_app):
    app, echo = echo_app
    job = echo.submit([1])

    def replace():
        job.wait(SECONDS, wait_for_daemon=True)
        until_it_beats(app)
        path.rename(path.with_suffix(".moved"))

    # Not the main thread, where no signal handler may be set.
    caught = []

    def run():
        try:
            app.run()
        except StoreUnusable as error:
            caught.append(error)

    threads = [threading.Thread(target=target, daemon=True) for target in (run, replace)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert str(path) in str(caught[0])


PROGRAM = """
app = Jobd(path)

@app.task
def echo(value):
    return value

app.run()
"""


def test_a_program_that_runs_leaves_with_0_on_sigterm(app, program, echo):
    runs = program(PROGRAM)
    job = echo.submit([1, 2, 3]).wait(SECONDS, wait_for_daemon=True)
    assert app.daemon_status().pid == runs.pid
    runs.signal(signal.SIGTERM)
    assert runs.leaves() == 0
    assert job.status == "completed"


# -- mending ----------------------------------------------------------------------------------------------------------

CRASH = """
app = Jobd(path)

@app.task
def echo(value):
    os._exit(9)

with app.daemon(workers=1):
    echo.submit([1]).wait()
"""


@pytest.fixture
def crashed(program):
    """A file with a running item whose daemon is gone."""
    assert program(CRASH).leaves() == 9


def test_recover_says_what_it_would_do_and_does_it(app, crashed):
    would = app.recover(check_only=True)
    assert [(change.from_status, change.to_status, change.evidence) for change in would.changes] == [
        ("running", "queued", "its daemon is gone")
    ]
    assert app.job(1).counts.running == 1
    did = app.recover()
    assert [change.to_status for change in did.changes] == ["queued"]
    assert app.job(1).counts.running == 0
    assert app.recover().changes == []
    assert app.daemon_status().alive is False


def test_a_live_daemon_is_asked_to_recover(app, echo):
    with app.daemon():
        echo.submit([1]).wait(SECONDS)
        assert app.recover(check_only=True).changes == []
        report = app.recover()
    assert (report.name, report.check_only, report.changes) == ("recover", False, [])


def test_the_next_daemon_runs_what_a_crash_left(app, echo, crashed):
    with app.daemon():
        assert app.job(1).wait(SECONDS).status == "completed"
    assert app.job(1).items()[0].interruptions == 1


def test_recover_finishes_a_cancel_that_was_only_requested(app, echo, path):
    from jobd.store import steer

    job = echo.submit([1, 2])
    steer.request_cancel(app.store, job.id, now=clock.now(), actor="test")
    app.recover()
    assert job.refresh().status == "cancelled"


def test_doctor_finds_a_good_file_good_and_names_who_holds_it(app, echo):
    echo.submit([1])
    assert app.doctor().exit_code == 0
    with app.daemon():
        text = next(check.text for check in app.doctor().checks if check.name == "lock")
    assert text.startswith(f"held by pid {os.getpid()}")


def test_doctor_names_a_rule_that_is_broken(app, echo):
    job = echo.submit([1])
    app.database.execute_sql("update jobs set items_completed = 1 where id = ?", (job.id,))
    found = app.doctor()
    assert found.exit_code == 1
    assert any(check.level == "broken" for check in found.checks)


# -- unique tasks, data and the watchlist -----------------------------------------------------------------------------


def test_a_submission_keeps_with_its_job_how_its_task_is_unique_and_whether_it_refreshes(app):
    @app.task(unique="day", zone="Asia/Tokyo")
    def work(value):
        return value

    jobs = [work.submit([1]), work.submit([1], refresh=True), work.submit([1], refresh=False)]
    policies = [
        json.loads(
            app.store.read(lambda c, i=job.id: c.execute("select policy from jobs where id=?", (i,)).fetchone()[0])
        )
        for job in jobs
    ]
    once = {"unique": "day", "zone": "Asia/Tokyo"}
    assert policies == [once, {**once, "refresh": True}, once]


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_refresh_that_is_not_true_or_false_is_refused(app, echo, value):
    with pytest.raises(UsageError, match="refresh: not true or false"):
        echo.submit([1], refresh=value)


def test_a_refresh_of_what_is_not_unique_is_refused_and_of_what_is_not_known_here_is_not(app, echo):
    with pytest.raises(UsageError, match="refresh: echo is not unique"):
        echo.submit([1], refresh=True)
    assert app.submit("elsewhere", [1], refresh=True).status == "queued"


def test_the_history_of_a_key_has_pages_and_its_data_on_demand(app):
    @app.task
    def work(value, ctx):
        ctx.save_data(str(ctx.job_id).encode())

    for _ in range(3):
        work.submit(["a", "b"])
    app.drain()
    first = app.results(work, key="a", limit=2)
    rest = app.results(work, key="a", limit=2, before=first[-1].item_id)
    assert [(result.job_id, result.data()) for result in first + rest] == [(3, b"3"), (2, b"2"), (1, b"1")]
    assert [result.data() for result in app.job(2).results()] == [b"2", b"2"]
    for before in (-1, 2**63, "7", True):
        with pytest.raises(UsageError):
            app.results(work, before=before)


def test_the_watchlist_of_an_app_holds_keys_of_its_tasks(app, echo):
    assert app.watchlist.add(echo, "a", 7, "a") == 2
    assert app.watchlist.add("echo", "a", "b") == 1
    assert app.watchlist.keys(echo) == ["7", "a", "b"]
    echo.submit(app.watchlist.keys(echo))
    app.drain()
    assert {entry.last_status for entry in app.watchlist.entries()} == {"completed"}
    assert app.watchlist.remove(echo, "a", "z") == 1
    assert [entry.key for entry in app.watchlist.entries("echo")] == ["7", "b"]
    assert app.watchlist.entries("other") == []


@pytest.mark.parametrize("key", ["", "a\0", "\ud800", None, 1.5, True, b"a", "x" * 5_000])
def test_what_no_item_can_have_as_its_key_is_not_watched(app, echo, key):
    with pytest.raises(UsageError, match="not a key"):
        app.watchlist.add(echo, "good", key)
    assert app.watchlist.entries() == []


def test_a_task_that_nobody_knows_is_not_watched_and_one_that_only_the_file_knows_is(app):
    with pytest.raises(NotFound, match="nobody knows a task 'elsewhere'"):
        app.watchlist.add("elsewhere", "a")
    app.submit("elsewhere", ["a"])
    assert app.watchlist.add("elsewhere", "a") == 1


def test_looking_at_the_watchlist_makes_no_file(bare, path):
    assert bare.watchlist.entries() == []
    with pytest.raises(NotFound):
        bare.watchlist.remove("work", "a")
    assert not path.exists()
