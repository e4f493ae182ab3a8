"""The pytest plugin: what a user's own suite is given, over the real engine and a real file."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import jobd
from jobd import Jobd, UsageError, clock
from jobd.engine import lock, points

ROOT = Path(jobd.__file__).parents[1]
GUIDE = (ROOT / "docs" / "testing.md").read_text()
SECONDS = 20
# Plugins of our own suite, which cost more than the suites that are run here.
NOT_HIS = [
    word for name in ("hypothesispytest", "xdist", "xdist.looponfail", "timeout") for word in ("-p", f"no:{name}")
]


@pytest.fixture
def suite(tmp_path):
    """Run a suite of a user's own in a process of its own, with the plugin as an installed jobd brings it."""

    def run(test, settings="", **files):
        folder = tmp_path / "suite"
        folder.mkdir()
        (folder / "test_own.py").write_text(textwrap.dedent(test))
        (folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{settings}\n")
        for name, text in files.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text))
        plugin = () if _installed() else ("-p", "jobd.testing")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NOT_HIS, *plugin],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def _installed():
    from importlib.metadata import entry_points

    return any(point.value == "jobd.testing" for point in entry_points(group="pytest11"))


@pytest.fixture
def ship(jobd_app):
    shipped = []

    @jobd_app.task
    def ship(order):
        shipped.append(order)
        return order

    ship.shipped = shipped
    return ship


# -- what is documented -----------------------------------------------------------------------------------------------


def test_the_ten_minute_orphan_of_the_guide_passes_in_a_suite_of_its_own_and_in_milliseconds(suite):
    (test,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    ended = suite(test)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout


def test_the_guide_has_each_crash_point_with_what_it_leaves():
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", GUIDE, re.MULTILINE))
    known = {**points.RUNNING, **points.FIRING}
    assert {name: rows.get(name) for name in known} == known


def test_the_guide_names_each_fixture(request):
    plugin = request.config.pluginmanager.get_plugin("jobd.testing")
    fixtures = {name for name in vars(plugin) if name.startswith("jobd_")}
    assert fixtures == {"jobd_app", "jobd_clock", "jobd_crash"}
    assert {name for name in fixtures if f"| `{name}` |" not in GUIDE} == set()


def test_a_suite_that_does_not_use_it_imports_nothing_heavy(suite):
    ended = suite(
        """
        import sys

        def test_what_is_loaded(request):
            assert request.config.pluginmanager.hasplugin("jobd.testing")
            heavy = {"peewee", "sqlite3", "freezegun", "schedule", "psutil", "click", "rich", "cronsim"}
            assert not heavy & set(sys.modules)
            assert {name for name in sys.modules if name.startswith("jobd")} == {"jobd", "jobd.errors", "jobd.testing"}
        """
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


# -- the app ----------------------------------------------------------------------------------------------------------


def test_the_app_is_on_a_file_of_the_tests_own(jobd_app, tmp_path):
    assert Path(jobd_app.path).parent == tmp_path
    assert list(jobd_app.tasks) == ["shell"]
    assert not Path(jobd_app.path).exists()


PROGRAM = """
    from jobd import Jobd

    app = Jobd("jobs.db")

    @app.task
    def double(value):
        return value * 2
"""


@pytest.mark.parametrize("named", ["./program.py", "program:app"])
def test_the_app_that_a_suite_names_comes_with_its_tasks_and_each_test_has_its_own_file(suite, tmp_path, named):
    ended = suite(
        """
        import pytest
        from jobd import testing
        from program import app, double

        def test_a_file_may_name_its_app(pytestconfig):
            assert testing._named("./program.py:app", pytestconfig) is app

        @pytest.mark.parametrize("value", [1, 2])
        def test_it_doubles(jobd_app, value):
            assert jobd_app is app
            job = double.submit([value])
            assert job.id == 1
            assert jobd_app.drain().counts == {"completed": 1}
            assert [result.value for result in job.results()] == [value * 2]
        """,
        settings=f"jobd_app = {named}\npythonpath = .",
        program=PROGRAM,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not (tmp_path / "suite" / "jobs.db").exists()


def test_an_app_goes_back_to_its_own_file(tmp_path):
    app = Jobd(tmp_path / "own.db")
    app.task(lambda value: value, name="echo")
    app.submit("echo", [1])
    with app.using(tmp_path / "other.db") as same:
        assert same is app
        assert app.path == str(tmp_path / "other.db")
        app.submit("echo", [1, 2])
        assert app.job("@last").counts.total == 2
    assert app.path == str(tmp_path / "own.db")
    assert app.job("@last").counts.total == 1
    app.close()


def test_an_app_whose_daemon_runs_keeps_its_file(jobd_app, tmp_path):
    with (
        jobd_app.daemon(),
        pytest.raises(UsageError, match="a daemon of this app runs"),
        jobd_app.using(tmp_path / "x"),
    ):
        pass


# -- the clock --------------------------------------------------------------------------------------------------------


def times():
    """The time as everybody reads it, in this thread and in another one."""
    found = []

    def read():
        found.append((clock.now(), clock.awake(), dt.datetime.now(tz=dt.UTC).timestamp()))

    thread = threading.Thread(target=read)
    read()
    thread.start()
    thread.join()
    assert found[0] == found[1]
    return found[0]


def test_time_stands_still_until_it_is_moved_in_every_thread(jobd_clock):
    wall, awake, day = before = times()
    assert wall == day * 1000 == jobd_clock.now.timestamp() * 1000
    assert times() == before
    jobd_clock.move(minutes=10)
    assert times() == (wall + 600_000, awake + 600, day + 600)
    assert time.time() == day + 600


def test_a_suspend_moves_the_time_of_day_alone(jobd_clock):
    wall, awake, _ = times()
    jobd_clock.suspend(hours=8)
    assert times()[:2] == (wall + 8 * 3_600_000, awake)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2031-05-06T12:00:00", dt.datetime(2031, 5, 6, 12, tzinfo=dt.UTC)),
        ("2031-05-06T12:00:00+02:00", dt.datetime(2031, 5, 6, 10, tzinfo=dt.UTC)),
        (dt.datetime(2031, 5, 6, 12, tzinfo=dt.UTC), dt.datetime(2031, 5, 6, 12, tzinfo=dt.UTC)),
        ("1970-01-01", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_it_can_be_set_and_being_awake_never_goes_back(jobd_clock, typed, meant):
    before = clock.awake()
    jobd_clock.move_to(typed)
    assert jobd_clock.now == meant
    assert clock.awake() >= before


def test_it_is_given_back_with_the_test(suite):
    ended = suite(
        """
        import datetime as dt
        from jobd import clock

        awake, real = clock.awake, dt.datetime

        def test_one(jobd_clock):
            assert clock.awake is not awake
            jobd_clock.move(days=400)

        def test_two():
            assert clock.awake is awake
            assert dt.datetime is real
        """
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_daemon_of_this_process_looks_at_the_clock_when_it_is_moved(jobd_app, jobd_clock, ship, until):
    with jobd_app.daemon(workers=1):
        later = ship.submit([1], not_before=jobd_clock.now + dt.timedelta(hours=1))
        assert ship.submit([2]).wait(SECONDS).status == "completed"
        jobd_clock.move(minutes=59)
        (beat,) = _read(jobd_app, "select max(heartbeat_at) from daemons")
        until(lambda: _read(jobd_app, "select max(heartbeat_at) from daemons") >= (clock.now(),))
        assert beat <= clock.now()
        assert later.refresh().counts.queued == 1
        jobd_clock.move(minutes=1)
        assert later.wait(SECONDS).status == "completed"


def _read(app, sql):
    return app.store.read(lambda connection: connection.execute(sql).fetchone())


# -- crashes ----------------------------------------------------------------------------------------------------------

LEFT = {
    # point: item statuses after it, shipped by then
    "claim.before_commit": ("queued", []),
    "claim.after_commit": ("running", []),
    "handler.before": ("running", []),
    "handler.after": ("running", [1]),
    "settle.before_commit": ("running", [1]),
    "settle.after_commit": ("completed", [1]),
}


def _drain(app, job):
    app.drain()


def _daemon(app, job):
    with pytest.MonkeyPatch.context() as patch, app.daemon(workers=1):
        # How soon a waiter notices that the daemon is gone.
        patch.setattr("jobd.job._PROBE_EVERY", 0.02)
        job.wait(SECONDS)


@pytest.mark.parametrize("run", [_drain, _daemon])
@pytest.mark.parametrize("point", points.RUNNING)
def test_each_point_leaves_the_rows_of_a_kill_and_the_next_goes_on(jobd_app, jobd_crash, ship, point, run):
    status, shipped = LEFT[point]
    job = ship.submit([1, 2])
    with jobd_crash(point):
        run(jobd_app, job)
        pytest.fail("the block goes on after the crash")
    assert not lock.probe(jobd_app.path)
    assert not Path(f"{jobd_app.path}.rescue").exists()
    assert _read(jobd_app, "select stopped_at from daemons") == (None,)
    assert job.item("1").status == status
    assert ship.shipped == shipped
    assert jobd_app.drain().counts["completed"] >= 1
    assert job.refresh().status == "completed"
    assert jobd_app.doctor().exit_code == 0
    # Its row says so: what ran is known to have been interrupted, alone at that where it was.
    (interruptions,) = _read(jobd_app, "select interruptions from job_items where key = '1'")
    assert interruptions == (status == "running")


def test_a_crash_happens_once_and_what_recovers_from_it_passes_the_point(jobd_app, jobd_crash, ship):
    job = ship.submit([1, 2, 3])
    with jobd_crash("settle.before_commit", at=2):
        jobd_app.drain()
    assert job.refresh().counts[:4] == (3, 1, 1, 0) or job.counts.completed == 1
    assert jobd_app.drain().counts == {"completed": 2}


def test_a_point_that_is_not_reached_fails_the_test(jobd_app, jobd_crash, ship):
    with (
        pytest.raises(pytest.fail.Exception, match=r"settle\.after_commit was not reached 1 times"),
        jobd_crash("settle.after_commit"),
    ):
        jobd_app.drain()
    ship.submit([1])
    assert jobd_app.drain().counts == {"completed": 1}


def test_an_error_within_the_block_is_the_tests_own(jobd_app, jobd_crash, ship):
    with pytest.raises(ZeroDivisionError), jobd_crash("settle.after_commit"):
        raise ZeroDivisionError
    ship.submit([1])
    assert jobd_app.drain().counts == {"completed": 1}


@pytest.mark.parametrize("name", ["settle", "restore.copied"])
def test_a_point_that_is_not_there_is_a_mistake_of_the_test(jobd_crash, name):
    with pytest.raises(pytest.UsageError, match=r"no crash point .*settle\.before_commit"), jobd_crash(name):
        pass


def test_without_proof_only_silence_tells(jobd_app, jobd_crash, jobd_clock, ship):
    job = ship.submit([1])
    with jobd_crash("claim.after_commit", proof=False):
        jobd_app.drain()
    jobd_clock.move(minutes=10)
    assert jobd_app.recover().changes == []
    jobd_clock.move(seconds=1)
    assert [change.to_status for change in jobd_app.recover().changes] == ["queued"]
    assert job.refresh().counts.queued == 1
