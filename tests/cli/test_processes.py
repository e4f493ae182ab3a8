"""The command line as a person meets it: processes, signals, terminals, pipes."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import multiprocessing
import time
from pathlib import Path
from jobd import Jobd

app = Jobd()

@app.task
def gate(n):
    Path(f"started-{n}").touch()
    while not Path("open").exists():
        time.sleep(0.005)

@app.task
def quick(n):
    return n

@app.task
def pools(n):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        next(pool.imap_unordered(abs, range(n, n + 1000)))
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
"""
GATE = "./program.py:gate"
PATIENCE = 20


def until(fact):
    """Wait for a fact; a fact that never comes fails the test."""
    deadline = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < deadline, "it never came"
        select.select([], [], [], 0.01)
    return found


@pytest.fixture
def place(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where the processes keep what they compiled, so that only the first of them has to."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def environment(place, compiled):
    mine = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBD_") and name not in mine}
    return kept | {
        "JOBD_DB": str(place / "jobs.db"),
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(compiled),
        "TERM": "xterm",
        "TZ": "UTC",
    }


@pytest.fixture
def start(place, environment):
    """Start a command line; whatever is left of it is killed at the end."""
    started = []

    def begin(*arguments, **settings):
        process = subprocess.Popen(
            [sys.executable, "-m", "jobd", *arguments],
            cwd=place,
            env=environment,
            text=True,
            errors="surrogateescape",
            # With what its handlers forked, which would hold its pipes open.
            process_group=0,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def ask(jobd):
    """Run a command line in this process to its end and return its document."""

    def answer(*arguments):
        answered = jobd(*arguments, "--json")
        assert answered.code == 0, answered.err
        return json.loads(answered.out)

    return answer


def end(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    return process.returncode, out, err


# -- Ctrl-C


def test_the_first_ctrl_c_finishes_what_runs_and_says_how_to_go_on(place, start, ask):
    process = start("run", GATE, "a", "b", "c", "-j", "1")
    until((place / "started-a").exists)
    process.send_signal(signal.SIGINT)
    assert "Finishing what runs" in until(lambda: next((x for x in process.stderr if "Finishing" in x), None))
    (place / "open").touch()
    code, _, err = end(process)
    assert code == 130
    assert "job 1 gate   interrupted: 2 of 3 items are left; nothing is lost" in err
    assert f"next: jobd run {GATE} --job 1" in err
    assert [item["status"] for item in ask("items", "1")] == ["completed", "queued", "queued"]


def test_the_second_ctrl_c_stops_at_once_and_loses_nothing(place, start, ask):
    process = start("run", GATE, "a", "b", "-j", "1")
    until((place / "started-a").exists)
    process.send_signal(signal.SIGINT)
    until(lambda: next((x for x in process.stderr if "Finishing" in x), None))
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert "2 of 2 items are left" in err
    assert [item["status"] for item in ask("items", "1")] == ["queued", "queued"]
    (place / "open").touch()
    assert end(start("run", GATE, "--job", "1"))[0] == 0


def test_a_killed_run_is_shown_as_run_by_nobody_and_goes_on_with_nothing_lost(place, start, ask):
    process = start("run", GATE, "a", "b", "-j", "1")
    until((place / "started-a").exists)
    process.kill()
    end(process)
    job = ask("show", "1")
    assert job["status_description"].startswith("running, but nobody runs it: daemon 1 (pid ")
    assert job["daemon"]["alive"] is False
    look = start("recover", "--check-only")
    code, out, err = end(look)
    assert code == 10
    assert "its daemon is gone" in out
    assert "Nothing was changed. Do it: jobd recover" in err
    (place / "open").touch()
    assert end(start("run", GATE, "--job", "1"))[0] == 0
    assert ask("show", "1")["counts"]["completed"] == 2


# -- a daemon


@pytest.fixture
def daemon(start, ask):
    process = start("--app", "./program.py", "start", "--workers", "2")
    until(lambda: any(task["daemon"] for task in ask("tasks")))
    return process


def test_a_daemon_drains_on_sigterm_and_leaves_with_0(place, start, daemon, ask):
    assert start("submit", GATE, "a", "b", "c").wait(PATIENCE) == 0
    until((place / "started-b").exists)
    daemon.send_signal(signal.SIGTERM)
    (place / "open").touch()
    code, _, err = end(daemon)
    assert code == 0
    assert "stopped;" in err
    assert ask("show", "1")["counts"]["running"] == 0


def test_what_a_handler_tells_its_own_processes_is_not_told_to_the_daemon(start, daemon, ask):
    start("submit", "./program.py:pools", "--range", "1:4").wait(PATIENCE)
    assert end(start("wait", "1", "--timeout", f"{PATIENCE}s"))[0] == 0
    assert {result["value"] for result in ask("results", "1")} == {-signal.SIGTERM}
    assert daemon.poll() is None


def test_what_a_handler_tells_its_own_processes_is_not_told_to_a_run(start, ask):
    assert end(start("run", "./program.py:pools", "--range", "1:4"))[0] == 0
    assert {result["value"] for result in ask("results", "1")} == {-signal.SIGTERM}


def test_a_second_daemon_names_the_first_and_leaves_with_7(start, daemon):
    code, _, err = end(start("--app", "./program.py", "start"))
    assert code == 7
    assert f"(pid {daemon.pid}" in err


def test_run_hands_its_job_to_a_live_daemon_and_ctrl_c_leaves_only_the_watch(place, start, daemon, ask):
    process = start("run", GATE, "a")
    until((place / "started-a").exists)
    assert until(lambda: next((x for x in process.stderr if "job 1 gate" in x), None))
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert f"job 1 goes on in the daemon (pid {daemon.pid})" in err
    assert "next: jobd watch 1" in err
    (place / "open").touch()
    assert end(start("wait", "1"))[0] == 0


def test_run_refuses_a_live_daemon_that_does_not_know_the_task(place, start, daemon, ask):
    (place / "other.py").write_text("def other(x):\n    return x\n")
    code, _, err = end(start("run", "./other.py:other", "a"))
    assert code == 7
    assert f"(pid {daemon.pid}) does not know the task other" in err
    assert "hint: another --db" in err
    assert ask("list") == []


def test_a_name_that_only_the_live_daemon_knows_can_be_submitted(start, daemon, ask):
    made = ask("submit", "quick", "a")
    assert (made["daemon_alive"], made["task_known"]) == (True, True)
    assert end(start("wait", "1"))[0] == 0


def test_a_watcher_that_knows_the_task_takes_over_from_a_daemon_that_dies(place, start, daemon, ask):
    process = start("run", GATE, "a", "b", "c")
    until((place / "started-b").exists)
    daemon.kill()
    assert until(lambda: next((x for x in process.stderr if "goes on in this process" in x), None))
    (place / "open").touch()
    code, _, err = end(process)
    assert code == 0
    assert "completed: 3 items" in err
    assert ask("show", "1")["status"] == "completed"


def test_run_stays_for_a_job_that_was_handed_to_it_meanwhile_and_says_so(place, start, ask):
    process = start("run", GATE, "a")
    until((place / "started-a").exists)
    made = ask("submit", "gate", "b")
    assert (made["daemon_alive"], made["task_known"]) == (True, True)
    until((place / "started-b").exists)
    (place / "open").touch()
    code, _, err = end(process)
    assert code == 0
    assert ask("show", "2")["status"] == "completed"
    del err


def test_cancel_says_when_a_live_daemon_has_acted(place, start, daemon, ask):
    assert start("submit", GATE, "a", "b", "c", "d").wait(PATIENCE) == 0
    until((place / "started-b").exists)
    process = start("cancel", "1")
    until(lambda: ask("show", "1")["status_description"].startswith("cancelling"))
    (place / "open").touch()
    code, _, err = end(process)
    assert code == 0
    assert "job 1 gate is cancelled: 2 cancelled, 2 completed" in err


def test_a_live_daemon_is_asked_to_recover(start, daemon, ask):
    assert ask("recover") == {"pass": "recover", "check_only": False, "changes": [], "counts": {}}


# -- pipes


def test_a_closed_pipe_is_no_error(place, start):
    assert start("submit", "./program.py:quick", "--range", "0:5000").wait(PATIENCE) == 0
    for arguments in (["items", "1"], ["items", "1", "--json"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(*arguments, stdout=writer)
        os.close(writer)
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, ""), arguments


def test_a_run_whose_reader_goes_away_still_ends(place, start, ask):
    reader, writer = os.pipe()
    process = start("run", GATE, "a", "b", stderr=writer)
    os.close(writer)
    until((place / "started-a").exists)
    os.close(reader)
    (place / "open").touch()
    process.wait(PATIENCE)
    assert ask("show", "1")["counts"]["completed"] == 2


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_a_stream_that_takes_nothing_is_no_reason_not_to_run(place, environment, ask, streams):
    line = f"{sys.executable} -m jobd run ./program.py:quick a {streams}"
    ended = subprocess.run(["sh", "-c", line], cwd=place, env=environment, check=False, capture_output=True, text=True)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert ask("show", "1")["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", b"=\xff"], 3),
        (["item", b"1:\xff"], 3),
        (["list", "--key", b"\xff"], 2),
        (["items", "1", "--key", b"\xff"], 2),
        (["results", "quick", "--key", b"\xff"], 2),
        (["submit", "quick", "a", "--job-key", b"\xff"], 2),
        (["submit", b"./\xff.py:quick", "a"], 0),
    ],
)
def test_a_name_that_is_not_utf_8_is_named_on_one_line(place, start, arguments, expected):
    assert start("submit", "./program.py:quick", "a").wait(PATIENCE) == 0
    (place / os.fsdecode(b"\xff.py")).write_text(PROGRAM)
    code, _, err = end(start("--app", "./program.py", *arguments))
    assert code == expected
    assert "unexpected" not in err


@pytest.mark.parametrize("arguments", [["show", b"\xff"], ["submit", b"./\xff.py:f", "a"], ["--db", b"\xff", "list"]])
def test_an_argument_that_is_not_utf_8_is_no_traceback(start, arguments):
    code, _, err = end(start(*arguments))
    assert code in {0, 2, 3, 6}
    assert "\x1b" not in err


@pytest.mark.parametrize("columns", ["1", "100000"])
def test_no_width_is_a_traceback(place, environment, columns):
    shown = Terminal(place, environment | {"COLUMNS": columns, "LINES": columns}, "run", "./program.py:quick", "a")
    assert shown.end() == 0


# -- terminals


class Terminal:
    """A command line on a terminal of 80 columns and 24 rows."""

    def __init__(self, place, environment, *arguments):
        self.screen = b""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(place)
            os.execve(sys.executable, [sys.executable, "-m", "jobd", *arguments], environment)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read(self, words=None):
        """Read until ``words`` have come, or to the end."""
        deadline = time.monotonic() + PATIENCE
        while words is None or words.encode() not in self.screen:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._descriptor], [], [], 0.1)[0]:
                try:
                    block = os.read(self._descriptor, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not block:
                    break
                self.screen += block
        return self.screen.decode()

    def type(self, keys):
        os.write(self._descriptor, keys)

    def end(self):
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._descriptor)
        assert b"Traceback" not in self.screen
        return os.waitstatus_to_exitcode(status)


def test_a_run_is_live_on_a_terminal_and_ctrl_c_drains_it(place, environment):
    shown = Terminal(place, environment, "run", GATE, "a", "b", "-j", "1")
    shown.read("Ctrl-C finishes what runs and stops; nothing is lost.")
    until((place / "started-a").exists)
    shown.read("running 1")
    shown.type(b"\x03")
    shown.read("Finishing what runs; Ctrl-C again stops at once.")
    (place / "open").touch()
    assert shown.end() == 130
    assert b"interrupted: 1 of 2 items are left" in shown.screen


def test_the_first_look_at_a_job_imports_no_rich_and_no_daemon(place, environment, start):
    assert start("submit", GATE, "a").wait(PATIENCE) == 0
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jobd", "show", "1"],
        cwd=place, env=environment, capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in seen.splitlines()}
    assert "jobd.store.reads" in imported
    assert not imported & {"rich", "psutil", "schedule", "platformdirs", "jobd.engine.daemon", "jobd.engine.dispatcher"}


def test_completion_offers_verbs_ids_and_statuses(place, environment, start):
    assert start("submit", GATE, "a", "--job-key", "mine").wait(PATIENCE) == 0

    def offered(words):
        completing = environment | {"_JOBD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        run = subprocess.run(
            [sys.executable, "-m", "jobd"], cwd=place, env=completing, capture_output=True, text=True, check=False
        )
        assert run.stderr == ""
        return [line.partition(",")[2] for line in run.stdout.splitlines()]

    assert {"1", "@last", "@failed", "=mine"} <= set(offered("jobd show "))
    assert offered("jobd show 1:") == ["1:a"]
