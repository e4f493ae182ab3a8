"""`watchlist`, and the submissions that take its keys as items."""

import json

import pytest
from kit.tables import rows

PROGRAM = """
from jobd import Jobd

app = Jobd("own.db")

@app.task
def work(x):
    if x == "bad":
        raise ValueError("no")
    return x
"""
APP = ("--app", "./program.py")


@pytest.fixture(autouse=True)
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)


def keys(answer):
    return [row["key"] for row in rows(answer)]


def test_keys_are_added_listed_and_removed(jobd):
    added = jobd(*APP, "watchlist", "add", "work", "b", "a", "b")
    assert (added.code, added.out, added.err) == (0, "", "2 added to the watchlist of work\n")
    again = jobd(*APP, "watchlist", "add", "work", "a", "c")
    assert again.err == "1 added to the watchlist of work, 1 there before\n"
    assert rows(jobd("watchlist"))[0] == {
        "task": "work", "key": "a", "last_job_id": "", "last_status": "", "last_run_at": "",
    }  # fmt: skip
    removed = jobd("watchlist", "remove", "work", "a", "z")
    assert (removed.code, removed.err) == (0, "1 removed from the watchlist of work, 1 not on it\n")
    assert keys(jobd("watchlist", "list", "work")) == ["b", "c"]


def test_how_a_key_was_last_run_stands_beside_it(jobd):
    jobd(*APP, "watchlist", "add", "work", "a", "bad")
    jobd(*APP, "run", "work", "a", "bad")
    shown = {row["key"]: (row["last_status"], row["last_job_id"]) for row in rows(jobd("watchlist", "list"))}
    assert shown == {"a": ("completed", "1"), "bad": ("failed", "1")}


def test_keys_come_from_a_file_and_a_task_may_be_named_by_its_code(jobd, tmp_path):
    (tmp_path / "keys").write_text("a\nb\n")
    assert jobd("watchlist", "add", "./program.py:work", "--from", "keys").code == 0
    assert keys(jobd("watchlist")) == ["a", "b"]


def test_each_action_has_its_document(jobd):
    added = jobd(*APP, "watchlist", "add", "work", "a", "b", "--json")
    assert json.loads(added.out) == {"task": "work", "added": 2, "known": 0}
    removed = jobd("watchlist", "remove", "work", "b", "c", "--json")
    assert json.loads(removed.out) == {"task": "work", "removed": 1, "unknown": 1}
    entry = {"task": "work", "key": "a", "last_job_id": None, "last_status": None, "last_run_at": None}
    assert json.loads(jobd("watchlist", "--json").out) == [entry]
    assert json.loads(jobd("watchlist", "--jsonl").out) == entry


@pytest.mark.parametrize(
    ("typed", "code", "what"),
    [
        (["add", "wrok", "a"], 3, "nobody knows a task 'wrok'"),
        (["add", "work"], 2, "add takes a task and its keys"),
        (["remove"], 2, "remove takes a task and its keys"),
        (["list", "work", "a"], 2, "list takes a task, and no keys"),
        (["remove", "work", "a"], 3, "there is no jobd file"),
        (["add", "work", ""], 2, "not a key: ''"),
        (["add", "work", "\x1b" * 5_000], 2, "not a key"),
        (["add", "work", "a", "--from", "keys"], 2, "items come from one place"),
        (["ad", "work", "a"], 2, "'ad' is not one of 'list', 'add', 'remove'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line_and_makes_no_file(jobd, tmp_path, typed, code, what):
    answer = jobd(*APP, "watchlist", *typed)
    assert (answer.code, answer.out) == (code, "")
    assert what in answer.err.splitlines()[0]
    assert "\x1b" not in answer.err
    assert not (tmp_path / "jobs.db").exists()


def test_what_is_not_on_it_cannot_be_removed(jobd):
    jobd(*APP, "watchlist", "add", "work", "a")
    answer = jobd("watchlist", "remove", "work", "b")
    assert answer.code == 3
    assert "none of these keys of work is on the watchlist" in answer.err


def test_a_task_that_only_the_file_knows_is_known(jobd):
    jobd("run", "./program.py:work", "a")
    assert jobd("watchlist", "add", "work", "a").code == 0


def test_an_empty_list_is_no_rows_and_reading_it_makes_no_file(jobd, tmp_path):
    answer = jobd("watchlist")
    assert (answer.code, answer.err, answer.out) == (0, "", "task\tkey\tlast_job_id\tlast_status\tlast_run_at\n")
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_submission_takes_the_keys_of_the_tasks_list_as_items(jobd, verb):
    jobd(*APP, "watchlist", "add", "work", "b", "a")
    answer = jobd(*APP, verb, "work", "--watchlist")
    assert answer.code == 0, answer.err
    assert keys(jobd("items", "1")) == ["a", "b"]


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_list_without_keys_is_refused_with_what_to_type(jobd, verb):
    answer = jobd(*APP, verb, "work", "--watchlist")
    assert answer.code == 3
    assert answer.err.splitlines()[-2:] == [
        "error: no key of work is on the watchlist", "  hint: jobd --app ./program.py watchlist add work KEY…",
    ]  # fmt: skip
    assert rows(jobd("list")) == []


def test_the_list_and_items_do_not_mix(jobd):
    answer = jobd(*APP, "submit", "work", "a", "--watchlist")
    assert answer.code == 2
    assert "items come from one place, not from arguments and --watchlist" in answer.err


def test_a_refresh_of_a_task_that_is_not_unique_is_refused(jobd):
    answer = jobd(*APP, "submit", "work", "a", "--refresh")
    assert answer.code == 2
    assert "refresh: work is not unique" in answer.err
