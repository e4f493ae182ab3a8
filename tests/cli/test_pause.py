"""`pause`, `unpause` and `time-out`: what they say, what they answer, and with which code they leave."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
from jobd import Jobd

app = Jobd("own.db")

@app.task(job_timeout="1h")
def work(x):
    return x
"""
WORK = "./program.py:work"


@pytest.fixture(autouse=True)
def program(place):
    (place / "program.py").write_text(PROGRAM)


@pytest.fixture
def change(make_app):
    """Change rows of the file that the command line sees."""

    def change(sql, *params):
        store = make_app().store
        store.write(lambda connection: connection.execute(sql, params))
        store.close()

    return change


def test_a_paused_job_says_so_and_goes_on_when_it_is_unpaused(jobd, ask):
    jobd("submit", WORK, "a", "b")
    paused = jobd("pause", "1", "--reason", "the source moves")
    assert paused.code == 0
    assert "\tqueued\tpaused\t2\t2\t" in paused.out
    assert "job 1 work is paused: 2 queued, 0 completed" in paused.err
    job = ask("show", "1")
    assert (job["status"], job["health"]) == ("queued", "paused")
    assert job["status_description"].startswith("paused")
    assert "unpause" in job["operations"]
    assert "pause" not in job["operations"]
    assert "paused" in jobd("list").out
    assert "the source moves" in jobd("history", "1").out
    unpaused = jobd("unpause", "1", "--json")
    assert json.loads(unpaused.out)["health"] != "paused"
    assert jobd("run", WORK, "--job", "1").code == 0


@pytest.mark.parametrize(
    ("verb", "said"), [("pause", "was paused before"), ("fail", "was failed before")], ids=["pause", "fail"]
)
def test_a_second_reason_is_not_taken_in_silence(jobd, verb, said):
    jobd("submit", WORK, "a")
    assert "this reason is not kept" not in jobd(verb, "1", "--reason", "the first").err
    answer = jobd(verb, "1", "--reason", "the second")
    assert answer.code == 0
    assert f"warning: job 1 work {said}: this reason is not kept" in answer.err.splitlines()
    history = jobd("history", "1").out
    assert "the first" in history
    assert "the second" not in history


def test_pausing_twice_is_no_error(jobd):
    jobd("submit", WORK, "a")
    assert [jobd(verb, "1").code for verb in ("pause", "pause", "unpause", "unpause")] == [0, 0, 0, 0]


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_what_has_ended_is_not_paused_and_the_legal_verbs_are_named(jobd, verb):
    jobd("run", WORK, "a")
    answer = jobd(verb, "1")
    assert answer.code == 4
    assert f"cannot {verb}" in answer.err
    assert "delete" in answer.err


def test_time_out_says_what_waits_too_long_before_it_does_it(jobd, change):
    jobd("submit", WORK, "a", "b")
    change("update job_items set status='waiting', attempt=1, started_at=1, deadline_at=2 where key='a'")
    change("update jobs set status='running', started_at=1, progress_at=1, items_waiting=1")
    looked = jobd("time-out", "--check-only")
    assert looked.code == 10
    assert "\ta\twaiting\tfailed\t" in looked.out
    assert "Nothing was changed. Do it: jobd" in looked.err
    assert "1 waiting item failed" in jobd("time-out").err
    assert jobd("time-out", "--check-only").code == 0
    report = json.loads(jobd("time-out", "--json").out)
    assert report == {"pass": "time_out", "check_only": False, "changes": [], "counts": {}}


def test_a_submission_may_have_its_own_time_for_a_job(jobd, make_app):
    jobd("submit", WORK, "a")
    jobd("submit", WORK, "a", "--job-timeout", "90s")
    jobd("submit", WORK, "a", "--job-timeout", "soon")
    store = make_app().store
    found = store.read(lambda connection: connection.execute("select job_timeout_ms from jobs").fetchall())
    store.close()
    assert [tuple(row) for row in found] == [(3_600_000,), (90_000,)]
