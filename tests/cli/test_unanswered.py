"""`recover` and `resume` where a task cannot say whether an orphan's work was done: said, counted, and not 0."""

from __future__ import annotations

import json

import pytest
from kit.rows import Rows

PROGRAM = """
from jobd import Jobd

app = Jobd()

@app.task
def send(payload):
    return payload

@send.verify
def was_sent(payload):
    raise OSError("no \\x1b[31mroute\\x1b[0m\\nto the host")
"""
SAID = "1 item stays: its verify could not say (OSError: no \\x1b[31mroute\\x1b[0m\\nto the host)"
UNKNOWN = "1 item stays: task send is not registered here; --app names its program"
APP = ("--app", "./program.py")


@pytest.fixture(autouse=True)
def rows(place, make_app):
    """An item that a dead daemon was running, which had noted what it was about to do."""
    (place / "program.py").write_text(PROGRAM)
    app = make_app()
    rows = Rows(app.writing())
    rows.job(["running"], task="send", status="running")
    rows.change("update job_items set intent='order 7'")
    return rows


@pytest.mark.parametrize(("typed", "said"), [(APP, SAID), ((), UNKNOWN)], ids=["raises", "unknown"])
@pytest.mark.parametrize(("option", "code"), [((), 1), (("--check-only",), 10)], ids=["recover", "check only"])
def test_what_stays_is_said_with_its_reason_and_is_no_0(jobd, rows, typed, said, option, code):
    answer = jobd(*typed, "recover", *option)
    assert answer.code == code
    assert f"warning: {said}" in answer.err.splitlines()
    assert "nothing else to recover" in answer.err.splitlines()
    assert rows.items(1) == ["running"]


def test_a_machine_reads_how_many_stay(jobd):
    answer = jobd("recover", "--json")
    assert (answer.code, json.loads(answer.out)["counts"]) == (1, {"unanswered": 1})


@pytest.mark.parametrize("verb", [("recover",), ("resume", "1")], ids=["recover", "resume"])
def test_a_hook_that_raises_puts_no_traceback_and_no_control_byte_on_the_terminal(jobd, verb):
    answer = jobd(*APP, *verb)
    assert "ERROR verify of send could not say whether item 1 is done: OSError: no \\x1b" in answer.err
    assert "Traceback" not in answer.err
    assert "\x1b" not in answer.err


@pytest.mark.parametrize(("typed", "said"), [(APP, SAID), ((), UNKNOWN)], ids=["raises", "unknown"])
def test_resume_warns_of_what_stays_as_recover_does(jobd, typed, said):
    answer = jobd(*typed, "resume", "1")
    assert answer.code == 0
    assert f"warning: {said}" in answer.err.splitlines()


def test_beside_a_daemon_it_is_its_program_that_is_missing_not_that_of_who_asks(jobd, make_app):
    app = make_app()
    with app.daemon():
        answer = jobd(*APP, "recover")
    assert answer.code == 1
    assert (
        "warning: 1 item stays: task send is not registered by daemon 1; start that with --app naming its program"
        in answer.err.splitlines()
    )


def test_many_are_told_by_their_reason(jobd, rows):
    rows.job(["running", "running"], task="send", status="running")
    rows.change("update job_items set intent='order 7'")
    assert "warning: 3 items stay: task send is not registered here; --app names its program" in jobd("recover").err
