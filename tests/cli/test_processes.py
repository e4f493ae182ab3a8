"""The command line as a person meets it: processes, signals, terminals, pipes.

What a process of its own adds is a cold start, streams and signals: what needs none of them is asked in this one.
"""

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest
from kit import forked
from kit.commands import GATE, PATIENCE, PROGRAM, QUICK, Terminal, environment

from jobd import Jobd
from jobd.store import reads


@pytest.fixture(autouse=True)
def program(place):
    (place / "program.py").write_text(PROGRAM)


# -- Ctrl-C


def test_the_first_ctrl_c_finishes_what_runs_and_says_how_to_go_on(place, start, ask, until):
    process = start("run", GATE, "a", "b", "c", "-j", "1")
    until((place / "started-a").exists)
    process.send_signal(signal.SIGINT)
    process.says("Finishing what runs")
    (place / "open").touch()
    code, _, err = process.end()
    assert code == 130
    assert "job 1 gate   interrupted: 2 of 3 items are left; nothing is lost" in err
    assert f"next: jobd run {GATE} --job 1" in err
    assert [item["status"] for item in ask("items", "1")] == ["completed", "queued", "queued"]


def test_the_second_ctrl_c_stops_at_once_and_loses_nothing(place, start, ask, until, jobd):
    process = start("run", GATE, "a", "b", "-j", "1")
    until((place / "started-a").exists)
    process.send_signal(signal.SIGINT)
    process.says("Finishing")
    process.send_signal(signal.SIGINT)
    code, _, err = process.end()
    assert code == 130
    assert "2 of 2 items are left" in err
    assert [item["status"] for item in ask("items", "1")] == ["queued", "queued"]
    (place / "open").touch()
    assert jobd("run", GATE, "--job", "1").code == 0


def test_a_ctrl_c_before_the_watch_has_begun_is_one_like_any_other(place, jobd, until, monkeypatch):
    def hit(*_):
        until((place / "started-a").exists)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("jobd.cli.following.say_also_running", hit)
    answer = jobd("run", GATE, "a", "b", "-j", "1")
    (place / "open").touch()
    assert answer.code == 130
    assert "job 1 gate   interrupted: 2 of 2 items are left; nothing is lost" in answer.err


def test_a_ctrl_c_while_items_are_typed_ends_at_once_and_submits_nothing(place, start, ask, until):
    reader, writer = os.pipe()
    process = start("run", GATE, "--from", "-", stdin=reader)
    os.close(reader)
    os.write(writer, b"a\n")
    # It has read that, and waits for more.
    until(lambda: fcntl.ioctl(writer, termios.FIONREAD, bytes(4)) == bytes(4))
    process.send_signal(signal.SIGINT)
    code, _, err = process.end()
    os.close(writer)
    assert code == 130
    assert "error: interrupted" in err
    assert ask("list") == []


def test_a_killed_run_is_shown_as_run_by_nobody_and_goes_on_with_nothing_lost(place, start, ask, until, jobd):
    process = start("run", GATE, "a", "b", "-j", "1")
    until((place / "started-a").exists)
    process.kill()
    process.end()
    job = ask("show", "1")
    assert job["status_description"].startswith("running, but nobody runs it: daemon 1 (pid ")
    assert job["daemon"]["alive"] is False
    look = jobd("recover", "--check-only")
    assert look.code == 10
    assert "its daemon is gone" in look.out
    assert "Nothing was changed. Do it: jobd recover" in look.err
    (place / "open").touch()
    assert start("run", GATE, "--job", "1").end()[0] == 0
    assert ask("show", "1")["counts"]["completed"] == 2


def test_what_a_handler_tells_its_own_processes_is_not_told_to_a_run(start, ask):
    assert start("run", "./program.py:pools", "--range", "1:4").end()[0] == 0
    assert {result["value"] for result in ask("results", "1")} == {-signal.SIGTERM}


# -- a daemon that ends


@pytest.fixture
def daemon(start, ask, until):
    process = start("--app", "./program.py", "start", "--workers", "2")
    until(lambda: any(task["daemon"] for task in ask("tasks")))
    return process


def test_a_daemon_drains_on_sigterm_and_leaves_with_0(place, daemon, ask, until):
    ask("submit", GATE, "a", "b", "c")
    until((place / "started-b").exists)
    daemon.send_signal(signal.SIGTERM)
    (place / "open").touch()
    code, _, err = daemon.end()
    assert code == 0
    assert "stopped;" in err
    assert ask("show", "1")["counts"]["running"] == 0


def test_a_watcher_that_knows_the_task_takes_over_from_a_daemon_that_dies(place, start, daemon, ask, until):
    process = start("run", GATE, "a", "b", "c")
    until((place / "started-b").exists)
    daemon.kill()
    process.says("goes on in this process")
    (place / "open").touch()
    code, _, err = process.end()
    assert code == 0
    assert "completed: 3 items" in err
    assert ask("show", "1")["status"] == "completed"


def test_run_stays_for_a_job_that_was_handed_to_it_meanwhile_and_says_so(place, start, ask, until):
    process = start("run", GATE, "a")
    until((place / "started-a").exists)
    made = ask("submit", "gate", "b")
    assert (made["daemon_alive"], made["task_known"]) == (True, True)
    until((place / "started-b").exists)
    (place / "open-a").touch()
    process.says("job 2 was handed to this process meanwhile: staying until it ends")
    (place / "open-b").touch()
    assert process.end()[0] == 0
    assert [ask("show", job)["status"] for job in ("1", "2")] == ["completed", "completed"]


# -- pipes


@pytest.mark.parametrize("arguments", [["items", "1"], ["items", "1", "--json"], ["--help"]])
def test_a_closed_pipe_is_no_error(start, ask, arguments):
    # More than a pipe or a stream holds.
    ask("submit", QUICK, "--range", "0:5000")
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*arguments, stdout=writer)
    os.close(writer)
    code, _, err = process.end()
    assert (code, err) == (0, "")


def test_a_run_whose_reader_goes_away_still_ends(place, start, ask, until):
    reader, writer = os.pipe()
    process = start("run", GATE, "a", "b", stderr=writer)
    os.close(writer)
    until((place / "started-a").exists)
    os.close(reader)
    (place / "open").touch()
    process.wait(PATIENCE)
    assert ask("show", "1")["counts"]["completed"] == 2


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_a_stream_that_takes_nothing_is_no_reason_not_to_run(place, ask, streams):
    line = f"{sys.executable} -m jobd run {QUICK} a {streams}"
    ended = subprocess.run(
        ["sh", "-c", line], cwd=place, env=environment(place), check=False, capture_output=True, text=True
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert ask("show", "1")["status"] == "completed"


# -- bytes that are no UTF-8


@pytest.fixture
def named(place, ask):
    """A job, and a program whose name is no UTF-8."""
    ask("submit", QUICK, "a")
    (place / os.fsdecode(b"\xff.py")).write_text(PROGRAM)


@pytest.mark.parametrize(("arguments", "expected"), [(["show", b"=\xff"], 3), (["submit", b"./\xff.py:quick", "a"], 0)])
def test_a_name_that_is_not_utf_8_reaches_the_command_and_comes_back_on_its_streams(start, named, arguments, expected):
    code, _, err = start("--app", "./program.py", *arguments).end()
    assert code == expected
    assert "unexpected" not in err


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
        (["show", b"\xff"], 2),
        (["submit", b"./\xff.py:f", "a"], 2),
        (["--db", b"\xff", "list"], 0),
    ],
)
def test_a_name_that_is_not_utf_8_is_named_on_one_line(jobd, named, arguments, expected):
    answer = jobd("--app", "./program.py", *map(os.fsdecode, arguments))
    assert answer.code == expected, answer.err
    assert [line for line in answer.err.splitlines() if line.startswith("error: ")] == (
        [] if expected == 0 else [answer.err.splitlines()[0]]
    )
    assert "unexpected" not in answer.err
    assert "\x1b" not in answer.err


# -- terminals


@pytest.mark.parametrize("columns", ["1", "100000"])
def test_no_width_is_a_traceback(place, columns):
    assert Terminal(place, "run", QUICK, "a", COLUMNS=columns, LINES=columns).end() == 0


def test_a_run_is_live_on_a_terminal_and_ctrl_c_drains_it(place, until):
    shown = Terminal(place, "run", GATE, "a", "b", "-j", "1")
    shown.read("Ctrl-C finishes what runs and stops; nothing is lost.")
    until((place / "started-a").exists)
    shown.read("running 1")
    shown.type(b"\x03")
    shown.read("Finishing what runs; Ctrl-C again stops at once.")
    (place / "open").touch()
    assert shown.end() == 130
    assert b"interrupted: 1 of 2 items are left" in shown.screen


# -- a cold start

# What takes memory and time to load, and what neither a look nor a daemon without work needs of it.
HEAVY = {
    "peewee", "psutil", "rich", "platformdirs", "cronsim", "hashlib", "decimal", "asyncio", "concurrent.futures",
    "multiprocessing", "subprocess", "tempfile", "shutil", "importlib.metadata", "importlib.resources",
}  # fmt: skip
TO_RUN = {"schedule", "socket", "jobd.engine.daemon", "jobd.engine.dispatcher"}
TO_STEER = {f"jobd.store.{verb}" for verb in ("steer", "pausing", "retry", "fall", "removal", "deliver")}
IMPORTS = [sys.executable, "-X", "importtime", "-m", "jobd"]


def imported(said):
    return {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}


def test_the_first_look_at_a_job_imports_no_daemon_and_nothing_heavy(place, ask):
    ask("submit", GATE, "a")
    seen = imported(
        subprocess.run(
            [*IMPORTS, "show", "1"], cwd=place, env=environment(place), capture_output=True, text=True, check=True
        ).stderr
    )
    assert "jobd.store.reads" in seen
    assert seen & (HEAVY | TO_RUN | TO_STEER) == set()


def test_an_idle_daemon_has_imported_nothing_heavy(place, until):
    (place / "program.py").write_text("import jobd\n\napp = jobd.Jobd()\n\n\n@app.task\ndef brief(_): ...\n")
    app = Jobd(place / "jobs.db")
    process = subprocess.Popen(
        [*IMPORTS, "--db", app.path, "--app", "./program.py", "start", "--heartbeat", "0.05s"],
        cwd=place, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until((place / "jobs.db-shm").exists)
        # By its second heartbeat it has done what a daemon does without work.
        until(lambda: (found := reads.daemon(app.store)) is not None and found.heartbeats > 2)
    finally:
        app.close()
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    seen = imported(said)
    assert "jobd.engine.dispatcher" in seen
    # Where there is no /proc psutil says who is alive, and brings some of the others.
    heavy = HEAVY if sys.platform == "linux" else {"peewee", "rich", "hashlib", "asyncio"}
    assert seen & heavy == set()


def test_completion_offers_verbs_ids_and_statuses(place, ask):
    ask("submit", GATE, "a", "--job-key", "mine")

    def offered(words):
        completing = environment(place) | {"_JOBD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        run = forked.run(
            [sys.executable, "-m", "jobd"], cwd=place, env=completing, capture_output=True, text=True, check=False
        )
        assert run.stderr == ""
        return [line.partition(",")[2] for line in run.stdout.splitlines()]

    assert {"1", "@last", "@failed", "=mine"} <= set(offered("jobd show "))
    assert offered("jobd show 1:") == ["1:a"]
