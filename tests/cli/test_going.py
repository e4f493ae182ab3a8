"""`fail`, `delete` and `prune`: what they say, what they refuse, and with which code they leave."""

from __future__ import annotations

import json

import pytest
from kit.commands import Terminal

from jobd import clock
from jobd.cli.progress import Progress
from jobd.store import removal, steer
from jobd.store import retry as again

PROGRAM = """
from jobd import Jobd

app = Jobd("own.db")

@app.task
def work(x):
    if x == "bad":
        raise ValueError(x)
    return x
"""
WORK = "./program.py:work"
DAY = 86_400_000


@pytest.fixture(autouse=True)
def program(place):
    (place / "program.py").write_text(PROGRAM)


@pytest.fixture
def store(make_app):
    return make_app().store


@pytest.fixture
def one(store):
    return lambda sql: store.read(lambda connection: connection.execute(sql).fetchone())


@pytest.fixture
def change(store):
    return lambda sql, *params: store.write(lambda connection: connection.execute(sql, params))


@pytest.fixture
def ages(change):
    """Make a job one that ended so many days ago."""
    return lambda job_id, days: change(
        "update jobs set completed_at = ? where id = ?", clock.now() - days * DAY, job_id
    )


def rows(answer):
    header, *lines = [line.split("\t") for line in answer.out.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


# -- fail -------------------------------------------------------------------------------------------------------------


def test_a_failed_job_says_why_everywhere(jobd, ask):
    jobd("submit", WORK, "a", "b")
    answer = jobd("fail", "1", "--reason", "the source is gone")
    assert answer.code == 0
    assert answer.err == "job 1 work is failed: 2 cancelled, 0 completed\n"
    job = ask("show", "1")
    assert (job["status"], job["status_message"]) == ("failed", "the source is gone")
    assert job["status_description"] == "failed: the source is gone"
    assert job["operations"] == ["resume", "delete"]
    assert [event["message"] for event in ask("history", "1") if event["name"] == "fail"] == [
        "the source is gone", "by request",
    ]  # fmt: skip


def test_failing_it_again_changes_nothing_and_is_no_error(jobd, ask):
    jobd("submit", WORK, "a")
    jobd("fail", "1", "--reason", "one")
    before = ask("history", "1")
    assert jobd("fail", "1", "--reason", "two").code == 0
    assert ask("history", "1") == before


@pytest.mark.parametrize("arguments", [["fail", "1"], ["fail", "1", "--reason", " "]])
def test_a_job_is_failed_for_a_reason(jobd, ask, arguments):
    jobd("submit", WORK, "a")
    answer = jobd(*arguments)
    assert answer.code == 2
    assert "reason" in answer.err
    assert ask("show", "1")["status"] == "queued"


def test_what_has_completed_cannot_be_failed_and_the_refusal_says_what_can_be_done(jobd):
    jobd("run", WORK, "a")
    answer = jobd("fail", "1", "--reason", "no")
    assert answer.code == 4
    assert answer.err == "error: job 1 is completed: it cannot fail\n  hint: from completed it can: delete\n"


def test_a_failed_job_can_be_resumed_and_then_completes(jobd, ask):
    jobd("submit", WORK, "a")
    jobd("fail", "1", "--reason", "not now")
    assert jobd("resume", "1").code == 0
    assert jobd("run", WORK, "--job", "1").code == 0
    job = ask("show", "1")
    assert (job["status"], job["status_message"], job["last_error"]) == ("completed", None, None)


# -- delete -----------------------------------------------------------------------------------------------------------


def test_a_deleted_job_is_gone_with_all_that_it_left_and_its_key_is_free(jobd, ask, one):
    jobd("run", WORK, "a", "bad", "--job-key", "k")
    answer = jobd("delete", "=k")
    assert answer.code == 0
    assert rows(answer) == [{"id": "1", "task": "work", "key": "k", "status": "failed", "items": "2"}]
    assert answer.err == "job 1 work is deleted: 2 items\n"
    for table in ("jobs", "job_items", "results", "job_events", "item_output"):
        assert one(f"select count(*) from {table}") == (0,)
    assert jobd("show", "1").code == 3
    jobd("run", WORK, "a", "--job-key", "k")
    assert ask("show", "=k")["id"] == 2


def test_several_jobs_are_deleted_each_once(jobd, one):
    for _ in range(3):
        jobd("submit", WORK, "a")
    answer = jobd("delete", "1", "3", "1", "--json")
    assert [record["id"] for record in json.loads(answer.out)] == [1, 3]
    assert one("select group_concat(id) from jobs") == ("2",)
    assert json.loads(jobd("delete", "2", "--json").out) == {
        "id": 2, "task": "work", "key": None, "status": "queued", "items": 1,
    }  # fmt: skip


def test_where_one_of_several_is_unknown_none_is_deleted(jobd, one):
    jobd("submit", WORK, "a")
    assert jobd("delete", "1", "9").code == 3
    assert one("select count(*) from jobs") == (1,)


def test_a_running_job_has_to_be_cancelled_before(jobd, change, one):
    jobd("submit", WORK, "a")
    change("update jobs set status = 'running', started_at = 1, items_running = 1")
    change("update job_items set status = 'running', attempt = 1, started_at = 1, daemon_id = 1")
    answer = jobd("delete", "1")
    assert answer.code == 4
    assert "job 1 is running: it cannot delete" in answer.err
    assert "cancel" in answer.err
    assert one("select deleted_at from jobs") == (None,)


def test_a_job_that_another_waits_for_stays_and_says_for_whom(jobd, ask, change):
    jobd("run", WORK, "a")
    jobd("submit", WORK, "b")
    change("insert into job_dependencies (job_id, after_id) values (2, 1)")
    answer = jobd("delete", "1")
    assert answer.code == 4
    assert "error: job 1 cannot be deleted: job 2 waits for it\n" in answer.err
    assert "jobd cancel 2" in answer.err
    assert "delete" not in ask("show", "1")["operations"]
    jobd("cancel", "2")
    assert "delete" in ask("show", "1")["operations"]
    assert jobd("delete", "1").code == 0
    assert ask("show", "2")["after"] == []


def test_what_is_being_deleted_says_so_and_the_same_line_goes_on_with_it(jobd, ask, change, one):
    jobd("run", WORK, "a")
    change("update jobs set deleted_at = 1, key = null")
    job = ask("show", "1")
    assert (job["status_description"], job["operations"]) == ("being deleted", [])
    assert jobd("delete", "1").code == 0
    assert one("select count(*) from jobs") == (0,)


@pytest.mark.parametrize(("keys", "left", "code"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1), ("\x04", 1, 130)])
def test_on_a_terminal_it_asks_with_the_count(jobd, place, one, keys, left, code):
    jobd("run", WORK, "a", "b")
    terminal = Terminal(place, "delete", "1")
    terminal.read("[y/N]")
    terminal.type(keys.encode())
    assert terminal.end() == code
    assert "delete job 1 work (completed) with 2 items, and all that they left?" in terminal.screen.decode()
    assert one("select count(*) from jobs") == (left,)


def test_on_a_terminal_it_does_not_ask_where_the_answer_was_given(jobd, place, one):
    jobd("run", WORK, "a")
    terminal = Terminal(place, "delete", "1", "--yes")
    assert terminal.end() == 0
    assert "[y/N]" not in terminal.screen.decode()
    assert one("select count(*) from jobs") == (0,)


# -- large ones -------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted():
    """A Ctrl-C after the first batch of two items, until it is undone; what was told of the progress by then."""
    told = []

    def watch(progress, stage, reached, whole):
        told.append((stage, reached, whole))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        for module in (steer, again, removal):
            patch.setattr(module, "BATCH", 2)
        patch.setattr(Progress, "watch", watch)
        yield patch, told


def test_a_deletion_that_is_interrupted_says_how_it_goes_on_and_does(jobd, interrupted, one):
    patch, told = interrupted
    jobd("submit", WORK, *"abcde", "--job-key", "k")
    answer = jobd("delete", "1")
    assert answer.code == 130
    assert "job 1 is being deleted; jobd delete 1 goes on with it, and so does a daemon by itself" in answer.err
    assert told == [("deleting", 2, 5)]
    assert one("select count(*), (select key from jobs) from job_items") == (3, None)
    patch.undo()
    assert jobd("recover").code == 0
    assert one("select count(*) from jobs") == (0,)


@pytest.mark.parametrize(
    ("verb", "said", "stage", "end"),
    [("cancel", "cancelling", "cancelling", "cancelled"), ("fail", "failing by request", "failing", "failed")],
)
def test_what_is_interrupted_stays_asked_for_and_the_same_line_goes_on(jobd, ask, interrupted, verb, said, stage, end):
    patch, told = interrupted
    line = [verb, "1", *(["--reason", "why"] if verb == "fail" else [])]
    jobd("submit", WORK, *"abcde")
    assert jobd(*line).code == 130
    assert told == [(stage, 2, 5)]
    patch.undo()
    job = ask("show", "1")
    assert (job["status_description"].split(",")[0], job["counts"]["cancelled"]) == (said, 2)
    assert jobd(*line).code == 0
    assert ask("show", "1")["status"] == end


def test_a_resume_that_is_interrupted_goes_on_by_the_same_line(jobd, ask, interrupted):
    patch, told = interrupted
    patch.setattr(Progress, "watch", lambda *_: None)
    jobd("submit", WORK, *"abcde")
    jobd("cancel", "1")

    def watch(progress, *how_far):
        told.append(how_far)
        raise KeyboardInterrupt

    patch.setattr(Progress, "watch", watch)
    assert jobd("resume", "1").code == 130
    assert told == [("queueing", 2, 5)]
    patch.undo()
    counts = ask("show", "1")["counts"]
    assert (counts["queued"], counts["cancelled"]) == (2, 3)
    assert jobd("resume", "1").code == 0
    assert ask("show", "1")["counts"]["queued"] == 5


# -- prune ------------------------------------------------------------------------------------------------------------


def test_what_is_old_goes_and_the_report_names_it_once(jobd, ages, one):
    jobd("run", WORK, "a", "b")
    jobd("run", WORK, "a")
    ages(1, 31)
    would = jobd("prune", "--check-only")
    assert would.code == 10
    assert [(row["job_id"], row["from_status"], row["to_status"]) for row in rows(would)] == [
        ("1", "completed", "removed")
    ]
    assert "It would be 1 job with 2 items: jobd prune" in would.err
    assert one("select count(*), count(deleted_at) from jobs") == (2, 0)
    did = jobd("prune")
    assert (did.code, did.out) == (0, would.out)
    assert did.err == "pruned 1 job with 2 items\n"
    assert one("select group_concat(id) from jobs") == ("2",)
    assert one("select count(*) from job_items") == (1,)
    again = jobd("prune", "--check-only")
    assert (again.code, rows(again), again.err) == (0, [], "nothing to prune\n")


def test_the_document_is_that_of_a_pass(jobd, ages):
    jobd("run", WORK, "a")
    ages(1, 40)
    assert json.loads(jobd("prune", "--json").out) == {
        "pass": "prune",
        "check_only": False,
        "changes": [
            {
                "job_id": 1, "item_id": None, "key": None, "from_status": "completed", "to_status": "removed",
                "evidence": "completed 40 d ago, kept for 30 d",
            },
        ],
        "counts": {"removed": 1, "items": 1},
    }  # fmt: skip


@pytest.mark.parametrize(("age", "left"), [("3", 0), ("3d", 0), ("5", 1), ("97h", 1), ("95h", 0), ("0", 0)])
def test_an_age_may_be_named_in_days_or_as_a_duration(jobd, ages, one, age, left):
    jobd("run", WORK, "a")
    ages(1, 4)
    assert jobd("prune", "--older-than", age).code == 0
    assert one("select count(*) from jobs") == (left,)


@pytest.mark.parametrize("age", ["-1", "soon", "nan", "1e9", "forever", ""])
def test_what_is_no_age_is_refused(jobd, age):
    jobd("run", WORK, "a")
    answer = jobd("prune", "--older-than", age)
    assert answer.code == 2
    assert "age" in answer.err


def test_values_go_by_a_setting_and_say_so(jobd, ask, ages, monkeypatch):
    monkeypatch.setenv("JOBD_KEEP_VALUES", "7d")
    jobd("run", WORK, "a")
    ages(1, 8)
    answer = jobd("prune")
    assert answer.err == "pruned the values of 1 job\n"
    (result,) = ask("results", "1")
    assert result["value"] is None
    assert result["pruned_at"].endswith("Z")
    assert ask("item", "1:a")["result"]["pruned_at"] == result["pruned_at"]
    assert ask("show", "1")["status_description"] == "completed; values pruned 0 s ago"
    assert "prune" in [event["name"] for event in ask("history", "1")]


def test_a_person_is_told_in_a_table_what_becomes_of_each_job(jobd, place, ages):
    for _ in range(2):
        jobd("run", WORK, "a")
    ages(1, 31)
    ages(2, 8)
    terminal = Terminal(place, "prune", "--check-only", JOBD_KEEP_VALUES="7d", COLUMNS="100")
    assert terminal.end() == 10
    said = terminal.screen.decode()
    assert "completed 31 d ago, kept for 30 d" in said
    assert "without values" in said
    assert "It would be 1 job with 1 item and the values of 1 job: jobd prune" in said


def test_where_there_is_no_database_there_is_nothing_to_prune(jobd):
    assert jobd("prune").code == 3
