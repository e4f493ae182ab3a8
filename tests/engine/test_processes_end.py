"""The end of worker processes: of those that hang or are cancelled, or whose daemon is gone; and of all they left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest
from kit import handlers
from kit.beats import WITHOUT_BEATS
from kit.forked import run

from jobd import clock
from jobd.store.invariants import check

SECONDS = 30
TIMEOUT = 300
MERCY = 1.0  # real seconds in which all that a handler started must be gone


@pytest.fixture
def app(make_app, jobd_clock):
    """Without the beats that write: nothing but what is under test wakes the dispatcher."""
    del jobd_clock
    app = make_app(**WITHOUT_BEATS)
    yield app
    assert check(app.store) == []


@pytest.fixture
def times_out(app, jobd_clock):
    """Let the time-out pass, and wake who sleeps."""

    def pass_():
        jobd_clock.move(seconds=TIMEOUT)
        app.store.wake()

    return pass_


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(path):
    return [int(word) for word in Path(path).read_text().split()]


OTHERS = []


def offspring():
    """Return what this process has started, but for what other tests keep: the nursery of their programs."""
    return [one for one in psutil.Process().children(recursive=True) if one not in OTHERS]


@pytest.fixture(autouse=True)
def others():
    OTHERS[:] = psutil.Process().children(recursive=True)


@pytest.fixture
def within(until):
    """Wait until a fact is true, and see that this took no longer than ``seconds`` of real time."""

    def wait(fact, seconds):
        began = clock.real()
        until(fact)
        assert clock.real() - began < seconds

    return wait


# -- time-outs --------------------------------------------------------------------------------------------------------


def test_a_handler_past_its_timeout_is_gone_with_all_that_it_started_within_a_second(
    app, times_out, until, within, tmp_path
):
    path = tmp_path / "tree"
    with app.daemon(workers=1) as daemon:
        task = app.task(handlers.tree, isolation="process", timeout=TIMEOUT)
        after = app.task(handlers.double, isolation="process")
        job = task.submit([str(path)])
        until(path.exists)
        worker, *others = pids(path)
        assert len(others) == 3
        assert all(map(alive, (worker, *others)))
        times_out()
        until(lambda: job.refresh().status == "failed")
        within(lambda: not any(map(alive, (worker, *others))), MERCY)
        (item,) = job.items()
        assert (item.error_type, item.error) == ("TimeOut", "timed out after 5 m")
        assert after.submit([1]).wait(SECONDS).counts.completed == 1
        assert (daemon._dispatcher.abandoned, daemon.degraded) == (0, None)
    assert [event.name for event in job.events(items=True)].count("late") == 0


def test_what_a_killed_handler_had_logged_is_kept(app, times_out, until, tmp_path):
    path = tmp_path / "pid"
    with app.daemon(workers=1):
        job = app.task(handlers.logs_and_hangs, isolation="process", timeout=TIMEOUT).submit([str(path)])
        until(path.exists)
        times_out()
        until(lambda: job.refresh().status == "failed")
    assert job.output(str(path)).text.endswith("INFO before it hangs")


def test_ten_such_in_a_row_leave_the_daemon_as_it_was(app, times_out, until, tmp_path):
    me = psutil.Process()

    def size():
        gc.collect()
        return me.num_fds(), threading.active_count(), len(offspring())

    with app.daemon(workers=1):
        task = app.task(handlers.tree, isolation="process", timeout=TIMEOUT)

        def one(name):
            path = tmp_path / name
            job = task.submit([str(path)])
            until(path.exists)
            times_out()
            until(lambda: job.refresh().status == "failed" and not any(map(alive, pids(path))))

        one("before them")
        until(lambda: len(offspring()) == 2)  # a guard and its worker
        before, memory = size(), me.memory_info().rss
        for number in range(10):
            one(f"number {number}")
        until(lambda: size() == before)
        assert me.memory_info().rss - memory < 5_000_000
    assert [job.last_error for job in app.jobs(limit=20)] == ["TimeOut: timed out after 5 m"] * 11


def test_a_handler_that_no_python_signal_reaches_is_killed(app, times_out, until, within, tmp_path):
    path = tmp_path / "pid"
    with app.daemon(workers=1):
        job = app.task(handlers.holds_the_lock_of_the_interpreter, isolation="process", timeout=TIMEOUT).submit(
            [str(path)]
        )
        until(path.exists)
        times_out()
        until(lambda: job.refresh().status == "failed")
        within(lambda: not alive(*pids(path)), MERCY)
    assert job.items()[0].error_type == "TimeOut"


def test_a_handler_that_lets_itself_be_interrupted_cleans_up(app, times_out, until, tmp_path):
    path = tmp_path / "pid"
    with app.daemon(workers=1):
        job = app.task(handlers.cleans_up, isolation="process", timeout=TIMEOUT).submit([str(path)])
        until(path.exists)
        times_out()
        until(tmp_path.joinpath("pid.cleaned").exists)
        until(lambda: job.refresh().status == "failed" and not alive(*pids(path)))
    assert job.items()[0].error_type == "TimeOut"


# -- cancels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (handlers.cleans_up, "cancelled"),
        (handlers.told_to_stay, "cancelled"),
        (handlers.cleans_up_and_returns, "completed"),
    ],
)
def test_a_cancelled_handler_ends_with_what_it_comes_to_or_is_killed(app, until, tmp_path, handler, status):
    path = tmp_path / "pid"
    with app.daemon(workers=1):
        job = app.task(handler, isolation="process").submit([str(path), "never begins"])
        until(path.exists)
        job.cancel()
        job.wait(SECONDS)
        assert not alive(*pids(path))
        # The place is another's.
        assert app.task(handlers.double, isolation="process").submit([1]).wait(SECONDS).counts.completed == 1
    assert job.status == "cancelled"
    assert job.item(str(path)).status == status
    assert job.item("never begins").status == "cancelled"


# -- the end of the daemon --------------------------------------------------------------------------------------------


def test_a_daemon_that_leaves_takes_its_workers_along_and_gives_back_what_ran(app, until, tmp_path):
    paths = [tmp_path / str(number) for number in range(3)]
    with app.daemon(workers=3) as daemon:
        job = app.task(handlers.told_to_stay, isolation="process").submit(map(str, paths))
        until(lambda: all(path.exists() for path in paths))
        daemon.stop(drain=False)
    assert offspring() == []
    assert [item.status for item in job.items()] == ["queued"] * 3


PROGRAM = """
    import sys
    from pathlib import Path

    from jobd import Jobd

    app = Jobd(sys.argv[1])

    @app.task(isolation="process")
    def stay(path):
        import subprocess
        from kit import handlers
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(150)"], start_new_session=True)
        Path(path + ".new").write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
        Path(path + ".new").rename(path)
        handlers.hang()

    @app.task(isolation="process")
    def double(n):
        return 2 * n

    import os

    if __name__ == "__main__":
        if sys.argv[2] == "hang":
            with app.daemon(workers=10):
                stay.submit([f"{sys.argv[3]}/{n}" for n in range(10)]).wait()
        else:
            with app.daemon(workers=1):
                print([result.value for result in double.submit([21]).wait(30).results()])
"""


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "a-script.py"
    file.write_text(textwrap.dedent(PROGRAM))
    return file


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_no_worker_outlives_a_daemon_that_is_killed_and_the_next_one_recovers(
    path, script, tmp_path, until, within, make_app
):
    daemon = subprocess.Popen([sys.executable, script, path, "hang", tmp_path], env=environment())
    files = [tmp_path / str(number) for number in range(10)]
    until(lambda: all(file.exists() for file in files), 60)
    everybody = [pid for file in files for pid in pids(file)]
    assert len(set(everybody)) == 30
    assert all(map(alive, everybody))
    daemon.kill()
    within(lambda: not any(map(alive, everybody)), MERCY)
    daemon.wait()
    app = make_app()
    app.task(handlers.double, name="stay")
    with app.daemon(workers=2):
        job = app.job("@last").wait(SECONDS)
    assert (job.status, job.counts.completed) == ("completed", 10)
    assert check(app.store) == []


def test_a_program_that_is_run_as_a_script_has_its_tasks_imported_from_there(path, script, tmp_path):
    answer = subprocess.run(
        [sys.executable, script, path, "double"], env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert answer.stdout == "[42]\n", answer.stderr


def test_a_program_that_is_run_as_a_module_has_its_tasks_imported_from_there(path, script, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("FACTOR = 2\n")
    source = (
        script.read_text()
        .replace("2 * n", "FACTOR * n")
        .replace("import sys\n", "import sys\nfrom .other import FACTOR\n", 1)
    )
    (package / "program.py").write_text(source)
    answer = subprocess.run(
        [sys.executable, "-m", "package.program", path, "double"], env=environment(), capture_output=True, text=True,
        timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert answer.stdout == "[42]\n", answer.stderr


def test_a_program_that_starts_its_daemon_while_it_is_imported_is_told_so(path, script):
    script.write_text(script.read_text().replace('if __name__ == "__main__":', "if True:"))
    answer = subprocess.run(
        [sys.executable, script, path, "double"], env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert "a worker process imports this program, which starts a daemon at its top level" in answer.stderr


def test_a_program_without_a_file_is_told_that_no_process_can_import_it(path):
    source = """
    import sys
    from jobd import Jobd
    app = Jobd(sys.argv[1])
    @app.task(isolation="process")
    def work(n): pass
    with app.daemon(): pass
    """
    answer = run([sys.executable, "-c", textwrap.dedent(source), path], capture_output=True, text=True)
    assert "task work is of a program without a file, which no process can import" in answer.stderr


def test_the_command_line_runs_a_plain_function_of_a_file_and_an_app_of_a_file(path, tmp_path):
    (tmp_path / "my-program.py").write_text(
        textwrap.dedent("""
        from jobd import Jobd
        app = Jobd()
        @app.task(isolation="process")
        def double(n):
            return 2 * int(n)
        """)
    )
    answer = run(
        [sys.executable, "-m", "jobd", "--db", path, "run", "./my-program.py:double", "1", "2", "--json"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


def test_a_guard_that_is_killed_takes_its_worker_along_and_costs_one_item(app, until, tmp_path):
    path = tmp_path / "pid"
    with app.daemon(workers=1):
        job = app.task(handlers.told_to_stay, isolation="process").submit([str(path)])
        until(path.exists)
        (worker,) = pids(path)
        os.kill(psutil.Process(worker).ppid(), signal.SIGKILL)
        job.wait(SECONDS)
        until(lambda: not alive(worker))
        assert app.task(handlers.double, isolation="process").submit([1]).wait(SECONDS).counts.completed == 1
    (item,) = job.items()
    assert (item.error_type, item.error) == ("WorkerDied", "killed by SIGKILL")


def test_a_handler_past_its_timeout_is_ended_though_it_keeps_everybody_from_writing(
    app, path, tmp_path, until, times_out, monkeypatch
):
    monkeypatch.setattr("jobd.store.sqlite.BUSY_TIMEOUT_MS", 20)
    task = app.task(handlers.locks_the_file, isolation="process", timeout=TIMEOUT, concurrency=1)
    job = task.submit([str(tmp_path / "pids")], params=str(path))
    with app.daemon(workers=1):
        until((tmp_path / "pids").exists)
        times_out()
        assert job.wait(SECONDS).status == "failed"
    (item,) = job.items()
    assert (item.error_type, item.attempt) == ("TimeOut", 1)
    assert not alive(pids(tmp_path / "pids")[0])
