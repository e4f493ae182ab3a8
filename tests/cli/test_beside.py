"""Command lines beside a live daemon, which these tests leave as they found it: one serves them all."""

import signal

import pytest
from kit.commands import GATE, PATIENCE, PROGRAM, commands


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """The folder of a daemon, and its process."""
    place = tmp_path_factory.mktemp("daemon")
    (place / "program.py").write_text(PROGRAM)
    with commands() as start:
        yield place, start(place, "--app", "./program.py", "start", "--workers", "2")


@pytest.fixture
def place(lasting):
    place, _ = lasting
    yield place
    for mark in (*place.glob("started-*"), *place.glob("open")):
        mark.unlink()


@pytest.fixture(autouse=True)
def daemon(lasting, ask, until):
    _, process = lasting
    until(lambda: any(task["daemon"] for task in ask("tasks")))
    yield process
    assert process.poll() is None


def test_what_a_handler_tells_its_own_processes_is_not_told_to_the_daemon(jobd, ask):
    job = str(ask("submit", "pools", "--range", "1:4")["id"])
    assert jobd("wait", job, "--timeout", f"{PATIENCE}s").code == 0
    assert {result["value"] for result in ask("results", job)} == {-signal.SIGTERM}


def test_a_second_daemon_names_the_first_and_leaves_with_7(start, daemon):
    code, _, err = start("--app", "./program.py", "start").end()
    assert code == 7
    assert f"(pid {daemon.pid}" in err


def test_run_hands_its_job_to_a_live_daemon_and_ctrl_c_leaves_only_the_watch(place, start, daemon, jobd, ask, until):
    process = start("run", GATE, "a")
    until((place / "started-a").exists)
    job = ask("list")[0]["id"]
    process.says(f"job {job} gate")
    process.send_signal(signal.SIGINT)
    code, _, err = process.end()
    assert code == 130
    assert f"job {job} goes on in the daemon (pid {daemon.pid})" in err
    assert f"next: jobd watch {job}" in err
    (place / "open").touch()
    assert jobd("wait", job, "--timeout", f"{PATIENCE}s").code == 0


def test_run_refuses_a_live_daemon_that_does_not_know_the_task(place, daemon, jobd, ask):
    (place / "other.py").write_text("def other(x):\n    return x\n")
    before = ask("list")
    answer = jobd("run", "./other.py:other", "a")
    assert answer.code == 7
    assert f"(pid {daemon.pid}) does not know the task other" in answer.err
    assert "hint: another --db" in answer.err
    assert len(ask("list")) == len(before)


def test_a_name_that_only_the_live_daemon_knows_can_be_submitted(jobd, ask):
    made = ask("submit", "quick", "a")
    assert (made["daemon_alive"], made["task_known"]) == (True, True)
    assert jobd("wait", made["id"], "--timeout", f"{PATIENCE}s").code == 0


def test_cancel_says_when_a_live_daemon_has_acted(place, start, ask, until):
    job = ask("submit", "gate", "a", "b", "c", "d")["id"]
    until((place / "started-b").exists)
    # What was claimed ahead has been given back: the daemon knows the pace of the task by now.
    until(lambda: ask("show", job)["counts"]["running"] == 2)
    process = start("cancel", str(job))
    until(lambda: ask("show", job)["status_description"].startswith("cancelling"))
    (place / "open").touch()
    code, _, err = process.end()
    assert code == 0
    assert f"job {job} gate is cancelled: 2 cancelled, 2 completed" in err


def test_a_live_daemon_is_asked_to_recover(ask):
    assert ask("recover") == {"pass": "recover", "check_only": False, "changes": [], "counts": {}}
