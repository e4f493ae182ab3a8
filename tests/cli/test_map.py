"""`map`: items and their command, the same line again, and what goes where."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from kit.commands import Terminal

from jobd import Jobd, mapping
from jobd.commands import Command

TALLY = "echo {} >> ran; echo did {}"


@pytest.fixture
def ran(place):
    """Return what has run since the last call, in alphabetical order."""
    file = place / "ran"

    def read():
        found = sorted(file.read_text().splitlines()) if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    return read


@pytest.fixture
def stdin(monkeypatch):
    """Give bytes on standard input."""

    def give(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    return give


def lines(answer):
    return sorted(answer.out.splitlines())


# -- items ------------------------------------------------------------------------------------------------------------


def test_the_words_up_to_the_mark_are_the_command_and_options_stop_at_its_first(jobd):
    answer = jobd("map", "-k", "printf", "%s,", "-k", "--", ":::", "a b", "-n", "")
    assert (answer.code, answer.out) == (0, "-k,--,a b,-k,--,-n,-k,--,,")


def test_where_the_first_word_is_a_script_the_words_after_it_are_items(jobd):
    answer = jobd("map", "-k", "printf '%s,%s;' {} {.}", "a b.c", "d")
    assert (answer.code, answer.out) == (0, "a b.c,a b;d,d;")


def test_items_are_the_lines_of_a_file_or_of_standard_input(jobd, place, stdin):
    (place / "list").write_bytes(b"a\n\n b\r\nc")
    answer = jobd("map", "-k", "-a", "list", "printf", "<%s>")
    assert (answer.code, answer.out) == (0, "<a>< b\r><c>")
    stdin(b"d\ne\n")
    assert jobd("map", "-k", "printf", "[%s]").out == "[d][e]"
    stdin(b"f\ng\0h\0")
    assert jobd("map", "-k", "-0", "printf", "(%s)").out == "(f\ng)(h)"


def test_json_lines_give_fields_and_a_key(jobd, ask, stdin):
    stdin(b'{"id": 1, "url": "a b"}\n\n{"id": 2, "url": "c"}\n')
    answer = jobd("map", "-k", "--jsonl", "--key", "id", "echo {id} {url}; echo $HOME | wc -l")
    assert answer.out.split() == ["1", "a", "b", "1", "2", "c", "1"]
    assert [item["key"] for item in ask("items", "1")] == ["1", "2"]


def test_a_command_is_told_its_item_its_job_and_its_attempt(jobd):
    answer = jobd("map", 'echo "$JOBD_ITEM $JOBD_JOB $JOBD_ATTEMPT"; exit 1', "--retries", "x")
    assert lines(answer) == ["--retries 1 1", "x 1 1"]
    assert jobd("map", "sh", "-c", 'echo "$JOBD_ITEM"', ":::", "y").out == "y\n"


def test_what_comes_twice_runs_twice_and_is_told_apart(jobd, ask):
    assert lines(jobd("map", "echo", ":::", "a", "a", "b", "a")) == ["a", "a", "a", "b"]
    assert [item["key"] for item in ask("items", "1")] == ["a", "a#2", "b", "a#3"]


def test_bytes_that_are_no_text_reach_the_command_and_have_a_key(jobd, ask, place, stdin):
    stdin(b"\xff \x81\nplain\n")
    assert jobd("map", "-k", "printf '%s\\0' {} >> out").code == 0
    assert sorted((place / "out").read_bytes().split(b"\0")) == [b"", b"plain", b"\xff \x81"]
    assert [item["key"] for item in ask("items", "1")] == ["\\xff \\x81", "plain"]


def test_a_number_stays_with_its_item(jobd):
    assert jobd("map", "-k", "echo {#} {}", "a", "b").out == "1 a\n2 b\n"
    assert jobd("map", "-k", "echo {#} {}", "top", "a", "b").out == "3 top\n"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([":::", "a"], "no command"),
        (["", ":::", "a"], "no command"),
        (["x", ":::", "a", ":::", "b"], "stands twice"),
        (["x y", "a", ":::", "b"], "before ':::' and after it"),
        (["x y;", "a"], "the script ends in ';': an item after it would be no argument"),
        (["x {url} # {}", "a", "b"], "the script ends in a comment"),
        (["-a", "list", "x", ":::", "b"], "one place"),
        (["-0", "x", ":::", "b"], "-0 does not go"),
        (["--key", "id", "x", ":::", "b"], "--key goes with --jsonl"),
        (["-a", "none", "x"], "cannot read none"),
        (["-a", "nul", "x"], "line 2 has a NUL"),
        (["--jsonl", "-a", "nul", "x"], "nul line 1 is not JSON"),
        (["--jsonl", "x {url}", '{"a": 1}'], "argument 1 has no field 'url'"),
        (["--jsonl", "x", ":::", '"\\ud800"'], "argument 1 is not JSON"),
        (["--jsonl", "x", ":::", '"a\\u0000"'], "argument 1 has a NUL"),
        (["--jsonl", "x {url}", '{"url": "\\u0000"}'], "argument 1, field 'url', has a NUL"),
        (["--jsonl", "--key", "id", "x", ":::", '{"id": "\\u0000"}'], "argument 1, field 'id', has a NUL"),
        (["--job", "", "x", ":::", "b"], "the key is empty"),
        (["--new", "--accept-changed", "x", ":::", "b"], "exclude each other"),
        (["--accept-changed", "x", ":::", "b"], "goes with --job"),
        (["--halt", "3", "x", ":::", "b"], "--halt"),
        (["--timeout", "soon", "x", ":::", "b"], "soon"),
        (["--results", "nowhere/file", "x", ":::", "b"], "cannot write nowhere/file"),
        (["--results", "-", "x", ":::", "b"], "--results cannot be standard output"),
        (["--results", "loop", "x", ":::", "b"], "cannot write loop: Too many levels of symbolic links"),
        (["--results", "loop/file", "x", ":::", "b"], "cannot write loop/file: Too many levels"),
        (["--results", "y" * 300, "x", ":::", "b"], "y: File name too long"),
        (["-d", "-k", "x", ":::", "b"], "-k is for whoever watches"),
        (["-j", "0", "x", ":::", "b"], "-j"),
        (["-j", "9" * 20, "x", ":::", "b"], "error: -j: not a whole number"),
        (["--retries", "9" * 20, "x", ":::", "b"], "error: --retries: not a whole number"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_begins_nothing(jobd, place, arguments, what):
    (place / "nul").write_bytes(b"a\nb\0c\n")
    (place / "loop").symlink_to("loop")
    answer = jobd("map", *arguments)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert what in answer.err
    assert answer.out == ""
    assert not (place / "jobs.db").exists() or jobd("list").out.count("\n") == 1


def test_bounds_that_cannot_be_meant_leave_a_known_job_as_it_was(jobd, ask):
    command = ("false", ":::", "a")
    assert jobd("map", *command).code == 1
    for bound in (["--timeout", "soon"], ["--rate", "often"], ["--halt", "3"]):
        assert jobd("map", *bound, *command).code == 2
    assert ask("show", "1")["counts"]["failed"] == 1


def test_closed_standard_input_is_said(jobd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert jobd("map", "-a", "-", "true") == (2, "", "error: standard input is closed\n")


def test_a_folder_that_is_gone_is_said(jobd, place, monkeypatch):
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    (place / "gone").rmdir()
    answer = jobd("map", "true", ":::", "a")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: the folder that the line was typed in cannot be named")


def test_no_items_are_no_job(jobd, place, stdin):
    stdin(b"\n")
    answer = jobd("map", "true")
    assert (answer.code, answer.err) == (0, "no items: nothing to do\n")
    assert not (place / "jobs.db").exists()


def test_without_items_a_terminal_is_not_waited_for(place):
    terminal = Terminal(place, "map", "gzip")
    assert terminal.end() == 2
    assert b"error: no items are given" in terminal.screen


def test_half_a_job_whose_submitter_was_killed_begins_anew(app, jobd, start, until):
    reading = start("map", "-a", "-", "echo", stdin=subprocess.PIPE)
    reading.stdin.write("".join(f"{n}\n" for n in range(6_000)))
    reading.stdin.flush()
    assert until(app.jobs)
    reading.kill()
    reading.communicate()
    answer = jobd("map", "echo", ":::", "1")
    assert (answer.code, answer.out) == (0, "1\n")
    assert "goes on" not in answer.err
    assert [job.counts.total for job in app.jobs()] == [1]


# -- the same line again ----------------------------------------------------------------------------------------------


def test_the_same_line_again_runs_nothing_that_has_completed(jobd, ran):
    assert lines(jobd("map", TALLY, "a", "b")) == ["did a", "did b"]
    assert ran() == ["a", "b"]
    answer = jobd("map", TALLY, "a", "b")
    assert (answer.code, answer.out, ran()) == (0, "", [])
    assert "job 1 goes on: 2 completed before, 0 to do, 0 new\n" in answer.err


def test_of_a_line_inserted_on_top_only_the_new_one_runs(jobd, ran):
    jobd("map", TALLY, "a", "b")
    ran()
    answer = jobd("map", TALLY, "new", "a", "b")
    assert (answer.out, ran()) == ("did new\n", ["new"])
    assert "2 completed before, 0 to do, 1 new" in answer.err


def test_of_three_new_items_three_run_in_the_same_job(jobd, ask, ran):
    jobd("map", TALLY, "a", "b")
    ran()
    assert lines(jobd("map", TALLY, "c", "d", "e")) == ["did c", "did d", "did e"]
    assert ran() == ["c", "d", "e"]
    assert ask("show", "1")["counts"]["completed"] == 5


def test_failed_items_run_again_unless_they_are_not_to(jobd, ran):
    command = "echo {} >> ran; test {} != bad"
    assert jobd("map", command, "a", "bad").code == 1
    assert ran() == ["a", "bad"]
    answer = jobd("map", "--no-retry-failed", command, "a", "bad", "c")
    assert (answer.code, ran()) == (1, ["c"])
    assert "1 completed before, 0 to do, 1 new, 1 failed are left" in answer.err
    answer = jobd("map", command, "a", "bad", "c")
    assert (answer.code, ran()) == (1, ["bad"])
    assert "2 completed before, 1 to do, 0 new" in answer.err


def test_what_a_halt_has_cancelled_is_among_what_is_to_do(jobd, ask, ran, place):
    command = "echo {} >> ran; test -e mended"
    answer = jobd("map", "-j", "1", "--halt", "fail=1", command, "a", "b", "c", "d")
    assert answer.code == 1
    halted = ask("show", "1")
    assert halted["counts"]["failed"] >= 1
    assert halted["counts"]["cancelled"] >= 1
    ran()
    (place / "mended").touch()
    answer = jobd("map", "-j", "1", "--halt", "fail=1", command, "a", "b", "c", "d")
    assert (answer.code, ran()) == (0, ["a", "b", "c", "d"])


def test_another_folder_or_another_command_is_another_job(jobd, place, monkeypatch):
    jobd("map", "echo", ":::", "a")
    assert "goes on" not in jobd("map", "echo", "-n", ":::", "a").err
    (place / "sub").mkdir()
    monkeypatch.chdir(place / "sub")
    answer = jobd("map", "echo", ":::", "a")
    assert (answer.out, "goes on" in answer.err) == ("a\n", False)


def test_under_a_name_another_command_is_refused_and_says_how_to_go_on(jobd, ran, place, monkeypatch):
    jobd("map", "--job", "n", TALLY, "a")
    ran()
    answer = jobd("map", "--job", "n", "echo other {}", "a", "b")
    assert (answer.code, answer.out, ran()) == (4, "", [])
    assert TALLY in answer.err
    assert "--accept-changed" in answer.err
    assert "--new" in answer.err
    (place / "sub").mkdir()
    monkeypatch.chdir(place / "sub")
    assert jobd("map", "--job", "n", TALLY, "a", "b").code == 4


def test_a_name_that_another_line_took_while_items_were_read_is_refused(jobd, ask, ran, place, monkeypatch):
    class Slow(io.BytesIO):
        def __next__(self):
            if (line := super().__next__()) == b"b\n":
                command = Command((b"echo other {}",), shell=True, cwd=os.fsencode(place))
                mapping.submit(Jobd(str(place / "jobs.db")), mapping.Wanted(command, "n"), None, [b"x"])
            return line

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Slow(b"a\nb\n")))
    answer = jobd("map", "--job", "n", TALLY)
    assert (answer.code, answer.out) == (4, "")
    assert "job 1 of that name runs another command: echo other {}" in answer.err
    assert ask("show", "1")["counts"]["total"] == 1
    assert ran() == []


def test_an_accepted_change_is_for_what_has_not_completed(jobd, ask):
    assert jobd("map", "--job", "n", "echo old {}; test {} = a", "a", "b").code == 1
    answer = jobd("map", "--job", "n", "--accept-changed", "echo new {}", "a", "b", "c")
    assert (answer.code, lines(answer)) == (0, ["new b", "new c"])
    assert ask("show", "1")["target"] == "echo old {}; test {} = a"
    assert "change_params" in [event["name"] for event in ask("history", "1")]
    assert jobd("doctor").code == 0


@pytest.mark.parametrize("detached", [[], ["-d"]])
def test_a_refused_input_leaves_the_command_that_was_to_be_changed(jobd, ask, ran, stdin, detached):
    jobd("map", "-d", "--job", "n", TALLY, "a")
    before = ask("show", "1"), ask("history", "1")
    stdin(b"b\n" + b"x" * (1 << 20) + b"\n")
    answer = jobd("map", *detached, "--job", "n", "--accept-changed", "echo new {}")
    assert (answer.code, answer.out) == (2, "")
    assert "item 1" in answer.err
    assert (ask("show", "1")["version"], ask("history", "1")) == (before[0]["version"], before[1])
    assert jobd("map", "--job", "n", TALLY, "a").code == 0
    assert ran() == ["a"]


def test_an_accepted_change_takes_items_of_every_kind(app, jobd, stdin):
    jobd("map", "-d", "--job", "n", "echo old", "a")
    stdin('{"f": "é"}\n"word"\n[1, 2]\n'.encode())
    assert jobd("map", "-d", "--job", "n", "--accept-changed", "--jsonl", "true").code == 0
    stdin(b"\xff\xfe\n")
    assert jobd("map", "-d", "--job", "n", "--accept-changed", "echo new").code == 0
    payloads = [item.payload for item in app.job(1).items()][1:]
    assert payloads == [{"fields": {"f": "é"}}, {"item": "word"}, {"item": "[1,2]"}, {"item": {"bytes": "//4="}}]


def test_a_new_job_under_a_name_runs_everything_and_leaves_the_old_one_as_it_was(jobd, ask):
    jobd("map", "--job", "n", "echo old {}", "a")
    answer = jobd("map", "--job", "n", "--new", "echo new {}", "a")
    assert (answer.code, answer.out) == (0, "new a\n")
    assert [ask("show", number)["key"] for number in ("1", "2")] == [None, "n"]
    assert ask("show", "1")["status"] == "completed"
    assert jobd("doctor").code == 0


def test_a_new_job_cancels_what_was_left_of_the_old_one(jobd, ask):
    jobd("map", "-d", "--job", "n", "echo {}", "a", "b")
    answer = jobd("map", "--job", "n", "--new", "echo {}", "a")
    assert (answer.code, answer.out) == (0, "a\n")
    assert ask("show", "1")["counts"]["cancelled"] == 2


def test_an_input_that_cannot_be_read_begins_no_new_job_and_leaves_the_old_one(jobd, ask, ran, stdin):
    jobd("map", "-d", "--job", "n", TALLY, "a")
    stdin(b'{"f": 1}\nno\n')
    answer = jobd("map", "--job", "n", "--new", "--jsonl", "echo {f}")
    assert (answer.code, answer.out) == (2, "")
    assert "standard input line 2 is not JSON" in answer.err
    assert (ask("show", "1")["key"], ask("show", "1")["counts"]["cancelled"]) == ("n", 0)
    assert jobd("map", "--job", "n", TALLY, "a").code == 0
    assert ran() == ["a"]


def test_an_input_for_which_the_disk_has_no_room_begins_no_new_job(jobd, ask, monkeypatch):
    jobd("map", "-d", "--job", "n", "echo {}", "a")
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "r+b"))
    answer = jobd("map", "--job", "n", "--new", "echo {}", "a")
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith(f"error: {tempfile.gettempdir()}: disk full\n  hint: free some space, or set TMPDIR")
    assert ask("show", "1")["key"] == "n"


def test_a_paused_job_is_not_watched_for_ever(jobd):
    jobd("map", "-d", "echo", ":::", "a")
    jobd("pause", "1")
    answer = jobd("map", "echo", ":::", "a")
    assert answer.code == 4
    assert "jobd unpause 1" in answer.err


def test_a_file_that_has_changed_runs_again_only_if_asked(jobd, place, ran):
    for name in ("a", "b"):
        (place / name).write_text("one")
        os.utime(place / name, (1_000, 1_000))
    jobd("map", TALLY, "a", "b", "no-file")
    ran()
    (place / "a").write_text("other")
    os.utime(place / "b", (1_000, 1_000))
    assert jobd("map", TALLY, "a", "b", "no-file").out == ""
    answer = jobd("map", "--if-changed", TALLY, "a", "b", "no-file")
    assert (answer.code, answer.out, ran()) == (0, "did a\n", ["a"])
    assert jobd("map", "--if-changed", TALLY, "a", "b", "no-file").out == ""


# -- what goes where --------------------------------------------------------------------------------------------------


def test_standard_output_is_that_of_the_commands_in_the_order_of_items_where_asked(jobd):
    slow_first = "if [ {} = a ]; then while [ ! -e b-ran ]; do sleep 0.01; done; fi; echo {}; touch {}-ran"
    answer = jobd("map", "-k", "-j", "2", slow_first, "a", "b")
    assert (answer.code, answer.out) == (0, "a\nb\n")
    for name in ("a-ran", "b-ran"):
        Path(name).unlink()
    assert jobd("map", "--new", "-j", "2", slow_first, "a", "b").out == "b\na\n"


def test_a_tag_is_before_each_line(jobd):
    answer = jobd("map", "-k", "--tag", "printf 'one\\ntwo'; echo three >&2; : {}", "a b", "x\ny")
    assert answer.out == "a b\tone\na b\ttwo\nx\\ny\tone\nx\\ny\ttwo\n"
    assert "a b\tthree\n" in answer.err


def test_what_is_longer_than_what_is_kept_is_printed_whole(jobd):
    answer = jobd("map", "-k", "head -c 300000 /dev/zero | tr '\\0' {}", "a", "b")
    assert answer.out == "a" * 300_000 + "b" * 300_000
    assert not list(Path().glob("jobs.db.output/*"))


def test_where_not_all_output_is_there_it_is_said_and_the_exit_code_is_no_0(jobd):
    answer = jobd("map", "-j", "1", "head -c 300000 /dev/zero | tr '\\0' {}; rm jobs.db.output/[0-9]*", "a", "b")
    assert (answer.code, len(answer.out)) == (1, 2 * 65_536)
    assert "a: only the last 64 KiB of what it printed are there\n" in answer.err
    assert "warning: of 2 items not all output is there" in answer.err


def test_without_a_terminal_there_is_no_escape_byte(jobd):
    answer = jobd("map", "echo {}; test {} = a", "a", "b")
    assert "\x1b" not in answer.out + answer.err
    assert answer.code == 1
    assert "failed: 1 of 2 items" in answer.err
    assert "next: jobd errors 1     the same line again\n" in answer.err


def test_on_a_terminal_the_view_is_taken_back_and_the_output_stays(place):
    terminal = Terminal(place, "map", "-k", "echo did {}", "a", "b")
    assert terminal.end() == 0
    assert b"did a\r\n" in terminal.screen
    assert b"did b\r\n" in terminal.screen
    assert b"job 1 shell   completed: 2 items" in terminal.screen


def test_a_dry_run_prints_what_would_run_and_writes_nothing(jobd, place):
    answer = jobd("map", "--dry-run", "gzip", "-9", ":::", "a b", "c")
    assert (answer.code, answer.out) == (0, "gzip -9 'a b'\ngzip -9 c\n")
    assert not (place / "jobs.db").exists()
    jobd("map", "echo {} {/}", "a", "b")
    answer = jobd("map", "--dry-run", "echo {} {/}", "a", "b", "x/c")
    assert answer.out == 'JOBD_ITEM=x/c JOBD_ITEM_NAME=c sh -c \'echo "${JOBD_ITEM}" "${JOBD_ITEM_NAME}"\'\n'
    assert "2 of the input would not run again" in answer.err
    rows = json.loads(jobd("map", "--dry-run", "--json", "gzip", ":::", "a").out)
    assert rows == [{"key": "a", "line": "gzip a"}]


def test_a_job_that_is_handed_over_prints_its_id_and_keeps_its_bounds(jobd, ask, place):
    bounds = ["-j", "3", "--timeout", "5m", "--retries", "2", "--rate", "10/s", "--halt", "fail=4"]
    answer = jobd("map", "-d", *bounds, "echo", ":::", "a", "b")
    assert (answer.code, answer.out) == (0, "1\n")
    assert "nobody runs job 1: no daemon runs\n  hint: jobd run shell --job 1\n" in answer.err
    assert ask("show", "1")["counts"]["queued"] == 2
    answer = jobd("map", "-k", "echo", ":::", "a", "b")
    assert (answer.code, answer.out) == (0, "a\nb\n")
    assert "0 completed before, 2 to do, 0 new" in answer.err


def test_what_became_of_each_item_is_written_to_a_file(jobd, place):
    command = "case {} in bad) exit 3;; gone) kill -9 $$;; esac"
    assert jobd("map", "--results", "rows.tsv", command, "a", "bad", "gone").code == 1
    header, *rows = [line.split("\t") for line in (place / "rows.tsv").read_text().splitlines()]
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["key"], row["status"], row["exit"], row["signal"]) for row in found] == [
        ("a", "completed", "0", ""),
        ("bad", "failed", "3", ""),
        ("gone", "failed", "", "SIGKILL"),
    ]
    jobd("map", "--results", "rows.jsonl", command, "a", "bad", "gone")
    assert [json.loads(line)["attempt"] for line in (place / "rows.jsonl").read_text().splitlines()] == [1, 2, 2]


def test_what_it_writes_rows_to_stays_what_it_is(jobd, place):
    (place / "plain").write_text("old")
    (place / "plain").chmod(0o600)
    (place / "plain.new").write_text("somebody's")
    (place / "link").symlink_to("linked")
    os.mkfifo(place / "pipe")
    reader = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("plain", "link", "pipe"):
        assert jobd("map", "--results", name, "true", ":::", "a").code == 0
    rows = (place / "plain").read_bytes()
    assert b"completed" in rows
    assert ((place / "linked").read_bytes(), os.read(reader, 65536)) == (rows, rows)
    os.close(reader)
    assert (place / "plain").stat().st_mode & 0o777 == 0o600
    assert (place / "link").is_symlink()
    assert (place / "pipe").is_fifo()
    assert (place / "plain.new").read_text() == "somebody's"
    assert not list(place.glob(".jobd*"))


def test_as_json_it_prints_the_job_and_nothing_else(jobd):
    answer = jobd("map", "--json", "echo", ":::", "a")
    assert json.loads(answer.out)["counts"]["completed"] == 1
