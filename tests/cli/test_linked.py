"""Linked jobs on the command line: --after, --on, what show says of a chain, delete --cascade."""

from __future__ import annotations

import pytest
from kit.commands import Terminal

PROGRAM = """
import pathlib
from jobd import Jobd

app = Jobd("own.db")

@app.task
def documents(x):
    return x

@app.task
def embeddings(x):
    if pathlib.Path("broken").exists():
        raise ValueError(x)
    return x

@app.task
def index(x):
    return x
"""
TASKS = [f"./program.py:{name}" for name in ("documents", "embeddings", "index")]


@pytest.fixture(autouse=True)
def program(place):
    (place / "program.py").write_text(PROGRAM)


@pytest.fixture
def phases(jobd):
    jobd("submit", TASKS[0], "a", "b")
    jobd("submit", TASKS[1], "a", "b", "--after", "1")
    jobd("submit", TASKS[2], "a", "--after", "2")


@pytest.fixture
def said(ask, place):
    """Return what show says of the whole, which each of its jobs has to say alike, and the lines of its last one."""

    def look():
        seen = [ask("show", job)["phases"] for job in "123"]
        assert seen[0] == seen[1] == seen[2]
        terminal = Terminal(place, "show", "3", JOBD_DB=str(place / "jobs.db"), COLUMNS="120", NO_COLOR="1")
        page = " ".join(terminal.read().split())
        assert f"PHASES {seen[0]['completed']} of {seen[0]['total']} phases completed" in page
        return seen[0]["completed"], [phase["status"] for phase in seen[0]["jobs"]], page

    return look


def test_at_each_moment_show_says_how_far_the_whole_is(jobd, phases, said, place):
    completed, statuses, page = said()
    assert (completed, statuses) == (0, ["queued"] * 3)
    assert "after job 2" in page
    (place / "broken").touch()
    # Who runs one job is the daemon of all meanwhile.
    jobd("pause", "2")
    assert jobd("run", TASKS[0], "--job", "1").code == 0
    assert said()[:2] == (1, ["completed", "queued", "queued"])
    jobd("unpause", "2")
    assert jobd("run", TASKS[1], "--job", "2").code == 1
    completed, statuses, page = said()
    assert (completed, statuses) == (1, ["completed", "failed", "cancelled"])
    assert "cancelled: job 2 failed" in page
    (place / "broken").unlink()
    assert jobd("retry", "2").code == 0
    assert said()[:2] == (1, ["completed", "queued", "queued"])
    jobd("pause", "3")
    assert jobd("run", TASKS[1], "--job", "2").code == 0
    assert said()[:2] == (2, ["completed", "completed", "queued"])
    jobd("unpause", "3")
    assert jobd("run", TASKS[2], "--job", "3").code == 0
    assert said()[:2] == (3, ["completed"] * 3)


def test_show_names_what_a_job_comes_after(jobd, ask, phases):
    assert "after job 2" in jobd("show", "3").out
    job = ask("show", "3")
    assert job["after"] == [2]
    assert job["phases"] == {
        "completed": 0,
        "total": 3,
        "more": False,
        "jobs": [
            {"id": 1, "task": "documents", "status": "queued"},
            {"id": 2, "task": "embeddings", "status": "queued"},
            {"id": 3, "task": "index", "status": "queued"},
        ],
    }
    jobd("submit", TASKS[0], "x")
    assert ask("show", "4")["phases"] is None


def test_several_jobs_may_be_waited_for_and_their_end_taken_as_it_is(jobd, ask, phases):
    answer = jobd("submit", TASKS[2], "b", "--after", "1", "--after", "@last", "--on", "ended")
    assert answer.code == 0
    assert ask("show", "4")["after"] == [1, 3]
    jobd("cancel", "3")
    jobd("cancel", "1")
    assert ask("show", "4")["status_description"].startswith("queued, but no daemon")


@pytest.mark.parametrize(("options", "code", "says"), [
    (["--after", "9"], 3, "there is no job 9"),
    (["--on", "ended"], 2, "--on says what --after waits for"),
    (["--after", "1:a"], 2, "is an item, a job is meant"),
])  # fmt: skip
def test_what_cannot_be_meant_is_said_in_one_line(jobd, options, code, says):
    jobd("submit", TASKS[0], "a")
    answer = jobd("submit", TASKS[1], "a", *options)
    assert answer.code == code
    assert says in answer.err


def test_a_circle_is_refused_in_one_line(jobd):
    jobd("submit", TASKS[0], "a", "--job-key", "k")
    jobd("submit", TASKS[1], "a", "--after", "1")
    answer = jobd("submit", TASKS[0], "a", "--job-key", "k", "--after", "2")
    assert answer.code == 4
    assert answer.err == "error: job 1 cannot come after job 2, which comes after job 1\n"


def test_a_parent_is_deleted_with_what_waits_for_it_only_when_that_is_asked_for(jobd, ask, phases):
    answer = jobd("delete", "1")
    assert answer.code == 4
    assert "job 2 waits for it" in answer.err
    assert "--cascade" in answer.err
    assert jobd("delete", "1", "2", "--cascade", "--yes").code == 0
    assert ask("list") == []


def test_what_goes_on_with_a_job_takes_no_new_parents(jobd, phases):
    answer = jobd("run", TASKS[0], "--job", "1", "--after", "2")
    assert answer.code == 2
    assert "--after" in answer.err
