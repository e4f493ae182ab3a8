"""The verbs, over a real file, with the daemon in this process."""

import contextlib
import json
import sqlite3
import sys

import pytest
from kit.tables import rows

PROGRAM = """
import time
from jobd import Fail, Jobd, Skip

app = Jobd("own.db")

@app.task
def work(x):
    if x == "bad":
        raise ValueError("no \\x1b[31mgood\\n")
    if x == "skip":
        raise Skip("nothing to do")
    return {"got": x}

@app.task
def logs(x, ctx):
    ctx.log.warning("hello %s \\x1b[2J", x)

@app.task
def param(x, ctx):
    return ctx.params
"""
WORK = "./program.py:work"


@pytest.fixture(autouse=True)
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)


def document(answer):
    assert answer.err == "" or not answer.err.startswith("error"), answer.err
    return json.loads(answer.out)


# -- run


def test_run_sees_items_through_and_says_how_it_ended(jobd):
    answer = jobd("run", WORK, "a", "b", "c")
    assert answer.code == 0
    assert answer.out == ""
    assert "job 1 work   completed: 3 items" in answer.err


def test_run_leaves_with_1_where_items_failed_and_says_what_to_type(jobd):
    answer = jobd("run", WORK, "a", "bad")
    assert answer.code == 1
    assert "job 1 work   failed: 1 of 2 items" in answer.err
    assert f"next: jobd errors 1     jobd retry 1 && jobd run {WORK} --job 1" in answer.err


def test_run_with_json_prints_the_job_as_one_document(jobd):
    answer = jobd("run", WORK, "a", "--json")
    assert document(answer)["status"] == "completed"


def test_run_without_items_is_one_item(jobd):
    assert jobd("run", WORK).code == 0
    assert rows(jobd("items", "1"))[0]["key"] == "work"


def test_the_same_job_key_again_says_what_was_completed_before(jobd):
    jobd("run", WORK, "a", "b", "--job-key", "k")
    answer = jobd("run", WORK, "a", "b", "c", "--job-key", "k")
    assert answer.code == 0
    assert "job 1 goes on: 2 completed before, 0 to do, 1 new" in answer.err


def test_what_a_dead_daemon_left_running_is_counted_as_to_do(jobd, tmp_path):
    jobd("submit", WORK, "a", "b", "c")
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database, database:
        database.execute(
            "update job_items set status='running', attempt=1, started_at=1, daemon_id=99 where key in ('a', 'b')"
        )
        database.execute("update jobs set status='running', started_at=1, items_running=2")
    answer = jobd("run", WORK, "--job", "1")
    assert "job 1 goes on: 0 completed before, 3 to do, 0 new" in answer.err


def test_run_says_in_its_first_lines_which_older_jobs_it_takes(jobd):
    for _ in range(5):
        jobd("submit", WORK, "a", "b")
    jobd("submit", "./program.py:logs", "a", "--at", "2100-01-01")
    answer = jobd("run", WORK, "a", "--job-key", "mine")
    assert answer.err.splitlines()[:4] == [
        *(f"also running, until job 7 ends: job {number} work, 2 to do" for number in (1, 2, 3)),
        "  and 2 more: jobd list",
    ]


def test_run_names_no_other_job_where_it_takes_none(jobd):
    jobd("run", WORK, "a")
    jobd("submit", WORK, "a", "--at", "2100-01-01")
    assert "also running" not in jobd("run", WORK, "a").err


def test_run_goes_on_with_an_existing_job(jobd):
    jobd("submit", WORK, "a")
    answer = jobd("run", WORK, "--job", "1")
    assert answer.code == 0
    assert document(jobd("show", "1", "--json"))["status"] == "completed"


def test_run_refuses_a_job_of_another_task(jobd):
    jobd("submit", WORK, "a")
    answer = jobd("run", "./program.py:logs", "--job", "1")
    assert answer.code == 4
    assert "job 1 is of task work, not logs" in answer.err


def test_a_tolerated_failure_leaves_0_and_a_warning(jobd):
    answer = jobd("run", WORK, "a", "bad", "--tolerance", "50%")
    assert answer.code == 0
    assert "warning: 1 of 2 items failed" in answer.err


def test_a_changed_param_is_said_and_nothing_is_written(jobd):
    jobd("run", "./program.py:param", "a", "--param", "n=1", "--job-key", "k")
    answer = jobd("run", "./program.py:param", "a", "--param", "n=2", "--job-key", "k")
    assert answer.code == 4
    assert document(jobd("results", "1", "--json"))[0]["value"] == {"n": 1}


# -- submit


def test_submit_prints_the_id_alone_on_stdout(jobd):
    answer = jobd("submit", WORK, "a")
    assert (answer.code, answer.out) == (0, "1\n")
    assert "nobody runs job 1: no daemon runs" in answer.err
    assert f"hint: jobd run {WORK} --job 1" in answer.err


def test_submit_as_json_has_the_fields_of_a_submission(jobd):
    made = document(jobd("submit", WORK, "a", "b", "--json"))
    assert made == {
        "id": 1,
        "status": "queued",
        "count": 2,
        "created": True,
        "added": 2,
        "known": 0,
        "daemon_alive": False,
        "task_known": False,
    }


def test_a_name_that_nobody_registers_is_not_found(jobd):
    answer = jobd("submit", "work", "a")
    assert answer.code == 3
    assert "no task 'work' is registered here" in answer.err


def test_a_name_is_found_in_the_app(jobd):
    assert jobd("--app", "./program.py", "submit", "work", "a").out == "1\n"


def test_items_of_json_lines_keep_their_key(jobd, tmp_path):
    (tmp_path / "items").write_text('{"id": "first", "n": 1}\n{"id": "second", "n": 2}\n')
    assert jobd("submit", WORK, "--jsonl", "items", "--key", "id").code == 0
    assert [row["key"] for row in rows(jobd("items", "1"))] == ["first", "second"]


@pytest.mark.parametrize(
    ("item", "why"), [("", "the key is empty"), ("\udcff", "surrogate"), ("x" * 5000, "the limit is 4,096")]
)
def test_an_item_that_cannot_be_stored_is_refused_with_its_position(jobd, item, why):
    answer = jobd("submit", WORK, "fine", item)
    assert answer.code == 2
    assert "item 1: " in answer.err
    assert why in answer.err


def test_duplicates_are_refused_or_skipped(jobd):
    assert jobd("submit", WORK, "a", "a").code == 2
    assert document(jobd("submit", WORK, "a", "a", "--duplicates", "skip", "--json"))["count"] == 1


# -- looking


def test_no_file_is_an_empty_list_and_creates_nothing(jobd, tmp_path):
    answer = jobd("list")
    assert answer.code == 0
    assert rows(answer) == []
    assert not (tmp_path / "jobs.db").exists()
    assert json.loads(jobd("list", "--json").out) == []


def test_no_file_has_no_job(jobd, tmp_path):
    answer = jobd("show", "1")
    assert answer.code == 3
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("typed", ["7", "=x", "@last", "@failed", str(2**63), "9" * 400])
def test_an_unknown_job_is_not_found(jobd, typed):
    jobd("list")
    answer = jobd("show", typed)
    assert answer.code == 3
    assert answer.err.startswith("error: ")


def test_an_unknown_item_is_not_found(jobd):
    jobd("run", WORK, "a")
    for name in ("1:b", "1:#9", f"1:#{2**64}"):
        assert jobd("item", name).code == 3


def test_a_row_says_that_nobody_runs_the_job(jobd):
    jobd("submit", WORK, "a")
    for verb in ("list", "show"):
        row = rows(jobd(verb))[0]
        assert row["status"] == "queued"
        assert row["status_description"] == "queued, but no daemon is running"
        assert row["daemon_alive"] == "false"


def test_jobs_are_found_by_key_and_by_filter(jobd):
    jobd("run", WORK, "a", "--job-key", "first")
    jobd("run", WORK, "bad")
    jobd("submit", "./program.py:logs", "x")
    assert document(jobd("show", "=first", "--json"))["id"] == 1
    assert document(jobd("show", "@failed", "--json"))["id"] == 2
    assert document(jobd("show", "--json"))["id"] == 3
    for filters, found in (
        (["--status", "failed"], ["2"]),
        (["--task", "logs"], ["3"]),
        (["--key", "first"], ["1"]),
        (["--limit", "2"], ["3", "2"]),
        (["--since", "1h"], ["3", "2", "1"]),
        (["--since", "2100-01-01"], []),
        (["--stalled"], []),
        (["--orphaned"], []),
        (["--external", "x"], []),
    ):
        assert [row["id"] for row in rows(jobd("list", *filters))] == found


def test_items_can_be_filtered_and_paged(jobd):
    jobd("run", WORK, "a", "bad", "skip", "b")
    assert [row["status"] for row in rows(jobd("items", "1"))] == ["completed", "failed", "skipped", "completed"]
    assert [row["key"] for row in rows(jobd("items", "1", "--status", "failed"))] == ["bad"]
    first = rows(jobd("items", "1", "--limit", "2"))
    assert [row["key"] for row in rows(jobd("items", "1", "--after", first[-1]["id"]))] == ["skip", "b"]


def test_the_page_of_a_job_shows_where_items_failed_and_how_often_they_were_tried(jobd, monkeypatch):
    monkeypatch.setattr("jobd.cli.screen._is_terminal", lambda _: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    jobd("run", WORK, "a", "b", "bad", "c")
    assert "attempts" not in jobd("show").out
    jobd("retry", "1")
    jobd("run", WORK, "--job", "1")
    page = jobd("show").out.splitlines()
    assert "  " + "█" * 36 + "✗" * 18 + "█" * 18 in page
    assert "  ✔ completed 3   ✗ failed 1   attempts 2nd 1" in page
    monkeypatch.setattr("jobd.cli.look._ATTEMPTS_OF", 3)
    assert "attempts" not in jobd("show").out


def test_an_item_shows_its_payload_and_result(jobd):
    jobd("run", WORK, "a")
    found = document(jobd("item", "1:a", "--json"))
    assert (found["payload"], found["result"]["value"]) == ("a", {"got": "a"})
    assert document(jobd("item", "1:#1", "--json"))["key"] == "a"


def test_results_of_a_job_and_of_a_key_over_all_jobs(jobd):
    jobd("run", WORK, "a", "b")
    jobd("run", WORK, "a")
    assert [row["key"] for row in rows(jobd("results", "1"))] == ["a", "b"]
    assert [row["job_id"] for row in rows(jobd("results", "work", "--key", "a"))] == ["2", "1"]
    lines = jobd("results", "1", "--jsonl").out.splitlines()
    assert [json.loads(line)["value"] for line in lines] == [{"got": "a"}, {"got": "b"}]


def test_errors_are_grouped_and_escaped(jobd):
    jobd("run", WORK, "bad")
    row = rows(jobd("errors"))[0]
    assert row["error_type"] == "ValueError"
    assert "\\x1b[31mgood" in row["error"]
    assert row["count"] == "1"


def test_the_history_tells_who_moved_what(jobd):
    jobd("run", WORK, "a")
    assert [row["to_status"] for row in rows(jobd("history", "1"))] == ["queued", "running", "completed"]
    assert rows(jobd("history", "1"))[0]["actor"] == "cli"


def test_logs_are_raw_in_a_pipe_and_not_found_where_there_are_none(jobd):
    jobd("run", "./program.py:logs", "x")
    answer = jobd("logs", "1:x")
    assert answer.code == 0
    assert "hello x \x1b[2J" in answer.out
    jobd("run", WORK, "a")
    assert jobd("logs", "2:a").code == 3


def test_tasks_are_those_of_the_app(jobd):
    answer = jobd("--app", "./program.py", "tasks")
    assert [row["name"] for row in rows(answer)] == ["logs", "param", "shell", "work"]


def test_global_options_may_stand_after_the_verb(jobd, tmp_path):
    jobd("run", WORK, "a", "--db", tmp_path / "other.db")
    assert rows(jobd("list")) == []
    assert len(rows(jobd("list", "--db", tmp_path / "other.db"))) == 1


# -- steering


def test_cancel_then_resume_then_run(jobd):
    jobd("submit", WORK, "a", "b")
    assert jobd("cancel", "1").code == 0
    assert document(jobd("show", "1", "--json"))["status"] == "cancelled"
    answer = jobd("resume", "1")
    assert answer.code == 0
    assert "2 queued" in answer.err
    assert f"hint: jobd run {WORK} --job 1" in answer.err
    assert jobd("run", WORK, "--job", "1").code == 0


def test_retry_queues_failed_items_again(jobd):
    jobd("run", WORK, "a", "bad")
    answer = jobd("retry", "1", "--json")
    assert document(answer)["counts"]["queued"] == 1


@pytest.mark.parametrize(("verb", "item"), [("retry", "a"), ("resume", "a"), ("cancel", "a"), ("cancel", "bad")])
def test_an_illegal_verb_is_a_conflict_and_says_what_is_legal(jobd, verb, item):
    jobd("run", WORK, item)
    answer = jobd(verb, "1")
    assert answer.code == 4
    assert f"cannot {verb}" in answer.err


def test_nothing_is_touched_where_one_of_several_jobs_is_unknown(jobd):
    jobd("submit", WORK, "a")
    assert jobd("cancel", "1", "9").code == 3
    assert document(jobd("show", "1", "--json"))["status"] == "queued"


# -- waiting


def test_wait_says_at_once_that_nobody_runs_the_job(jobd):
    jobd("submit", WORK, "a")
    answer = jobd("wait", "1")
    assert answer.code == 7
    assert f"hint: jobd run {WORK} --job 1" in answer.err


def test_wait_leaves_with_124_when_the_time_is_over(jobd):
    jobd("submit", WORK, "a")
    assert jobd("wait", "1", "--wait-for-daemon", "--timeout", "20ms").code == 124


def test_wait_for_an_ended_job_is_its_end(jobd):
    jobd("run", WORK, "a")
    jobd("run", WORK, "bad")
    assert jobd("wait", "1").code == 0
    assert jobd("wait", "2").code == 1


def test_watch_of_an_ended_job_ends_at_once(jobd):
    jobd("run", WORK, "bad")
    assert jobd("watch", "1").code == 0
    assert jobd("watch", "1", "--exit-status").code == 1
    assert document(jobd("watch", "1", "--json"))["status"] == "failed"
    assert json.loads(jobd("watch", "1", "--jsonl").out)["status"] == "failed"
    assert rows(jobd("watch"))[0]["status"] == "failed"


# -- mending


def test_recover_of_a_whole_file_finds_nothing(jobd):
    jobd("run", WORK, "a")
    for arguments in (["recover", "--check-only"], ["recover"]):
        answer = jobd(*arguments)
        assert answer.code == 0
        assert rows(answer) == []
    assert document(jobd("recover", "--json"))["pass"] == "recover"


def test_doctor_of_a_whole_file_is_healthy(jobd):
    jobd("run", WORK, "a", "bad")
    answer = jobd("doctor")
    assert answer.code == 0
    assert "broken" not in {row["level"] for row in rows(answer)}
    assert document(jobd("doctor", "--json"))["ok"] is True


def test_a_file_of_another_kind_is_unusable_and_stays_as_it_is(jobd, tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"not a database, but longer than a header of one hundred bytes" * 3)
    before = (tmp_path / "jobs.db").read_bytes()
    for arguments in (["list"], ["show", "1"], ["doctor"], ["run", WORK, "a"], ["submit", WORK, "a"]):
        answer = jobd(*arguments)
        assert answer.code == 6, arguments
        assert answer.err.startswith("error: ")
    assert (tmp_path / "jobs.db").read_bytes() == before


def test_ctrl_c_while_the_program_is_loaded_is_one_line(jobd, monkeypatch):
    class Interrupted:
        def find_spec(self, name, *rest):
            if name == "jobd.cli.root":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "jobd.cli.root", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert jobd("list") == (130, "", "error: interrupted\n")
