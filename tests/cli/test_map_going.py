"""`map` in processes of its own: bytes, signals, a daemon beside it, a reader that leaves."""

from __future__ import annotations

import os
import signal

import pytest
from test_commands import names

GATED = "touch started-{}; until [ -e open ]; do sleep 0.01; done; echo did {}"


@pytest.mark.parametrize("command", [("printf", "%s\\0"), ("printf '%s\\0' {}",)])
def test_names_of_every_kind_reach_the_command_as_they_are(start, place, command):
    found = [name for name in names(60) if name]
    (place / "list").write_bytes(b"\0".join(found))
    with (place / "out").open("wb") as out:
        running = start("map", "-k", "-0", "-a", "list", *command, stdout=out)
    assert running.wait(20) == 0
    assert (place / "out").read_bytes().split(b"\0")[:-1] == found


def test_ctrl_c_finishes_what_runs_and_the_same_line_again_does_the_rest(start, place, until):
    line = ("map", "-j", "1", GATED, "a", "b", "c")
    first = start(*line)
    assert until((place / "started-a").exists)
    first.send_signal(signal.SIGINT)
    first.says("Finishing what runs")
    (place / "open").touch()
    code, out, err = first.end()
    assert (code, out) == (130, "did a\n")
    assert "interrupted: 2 of 3 items are left; nothing is lost\n  next: the same line again\n" in err
    code, out, err = start(*line).end()
    assert (code, out) == (0, "did b\ndid c\n")
    assert "1 completed before, 2 to do, 0 new" in err


def test_a_second_ctrl_c_stops_at_once(start, place, until):
    command = start("map", "-j", "1", GATED, "a", "b")
    assert until((place / "started-a").exists)
    command.send_signal(signal.SIGINT)
    command.says("Ctrl-C again stops at once")
    command.send_signal(signal.SIGINT)
    code, out, err = command.end()
    assert (code, out) == (130, "")
    assert "2 of 2 items are left" in err


def test_a_live_daemon_runs_the_commands_and_their_output_is_printed_here(start, place, until):
    daemon = start("start")
    daemon.says("tasks: shell")
    code, out, err = start("map", "-k", "echo did {}; exit {}", "0", "3").end()
    assert (code, out) == (1, "did 0\ndid 3\n")
    assert "job 1 is with the daemon" in err
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0


def test_a_reader_that_leaves_does_not_end_the_job(start, place):
    command = start("map", "-j", "1", "echo did {}; touch did-{}", "a", "b", "c")
    command.stdout.close()
    err = command.stderr.read()
    assert command.wait(20) == 0
    assert "completed: 3 items" in err
    assert (place / "did-c").exists()


def test_a_signal_while_items_are_read_adds_none_of_them_and_prints_what_ran_meanwhile(start, place, until):
    assert start("map", "-d", "echo did {}; touch did-{}", "a").end()[0] == 0
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as theirs, os.fdopen(writer, "wb", buffering=0) as ours:
        command = start("map", "-a", "-", "echo did {}; touch did-{}", stdin=theirs)
        ours.write(b"new\n")
        assert until((place / "did-a").exists)
        command.send_signal(signal.SIGINT)
        code, out, err = command.end()
    assert (code, out) == (130, "did a\n")
    assert "interrupted before all items were read: none of them was added\n" in err
    assert "0 of 1 items are left; nothing is lost\n  next: the same line again\n" in err


def test_a_refused_input_also_prints_what_was_left_of_the_job_and_ran_while_it_was_read(start, place, until):
    (place / "lines").write_text('{"a": "one"}\n')
    assert start("map", "-d", "--jsonl", "-a", "lines", "echo did {a}; touch did-{a}").end()[0] == 0
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as theirs, os.fdopen(writer, "wb", buffering=0) as ours:
        command = start("map", "--jsonl", "-a", "-", "echo did {a}; touch did-{a}", stdin=theirs)
        assert until((place / "did-one").exists)
        ours.write(b"no JSON\n")
    code, out, err = command.end()
    assert (code, out) == (2, "did one\n")
    assert "line 1" in err
