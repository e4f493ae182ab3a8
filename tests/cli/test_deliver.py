"""`deliver` and `reconcile` as they are typed."""

from __future__ import annotations

import json

import pytest
from kit.rows import NOW


@pytest.fixture
def waiting(rows):
    """One job with an item that waits, and nothing else; return the item as it is named."""
    job_id = rows.job(["waiting"], status="running")
    rows.change("update job_items set external_id='vendor-42', attempt=1")
    return f"{job_id}:key-00000"


@pytest.fixture
def false(rows):
    """A job that was failed though the result of its item is stored."""
    job_id = rows.job(["failed"], status="failed", last_error="ValueError: no")
    rows.result(rows.ids(job_id)[0])
    return job_id


def record(status, *, delivered):
    return {"id": 1, "job_id": 1, "key": "key-00000", "status": status, "delivered": delivered}


# -- deliver ----------------------------------------------------------------------------------------------------------


def test_a_value_is_delivered_and_the_same_once_more_says_that_it_was_known(waiting, ask, rows):
    assert ask("deliver", waiting, '{"sha256": "abc"}') == record("completed", delivered=True)
    assert ask("deliver", waiting, '{"sha256": "abc"}') == record("completed", delivered=False)
    assert ask("results", "1")[0]["value"] == {"sha256": "abc"}
    assert ask("show", "1")["status"] == "completed"


def test_a_person_is_told_what_has_become_of_the_item(waiting, jobd, monkeypatch):
    monkeypatch.setattr("jobd.cli.output.Output.human", True)
    assert jobd("deliver", waiting, "1") == (0, "", "1:key-00000 is completed now\n")
    again = jobd("deliver", waiting, "1")
    assert again == (0, "", "1:key-00000 was completed with that very result: nothing was changed\n")


def test_a_program_is_told_in_a_line_of_a_table(waiting, jobd):
    answer = jobd("deliver", waiting, "1")
    assert answer.out == "id\tjob_id\tkey\tstatus\tdelivered\n1\t1\tkey-00000\tcompleted\ttrue\n"


def test_a_value_may_come_from_a_file_and_from_a_pipe(waiting, ask, rows, place, start):
    (place / "value.json").write_text('["a"]')
    assert ask("deliver", waiting, "--from", place / "value.json") == record("completed", delivered=True)
    other = f"{rows.job(['waiting'], status='running')}:key-00000"
    with (place / "value.json").open() as source:
        command = start("deliver", other, "--from", "-", "--json", stdin=source)
        code, out, _ = command.end()
    assert (code, json.loads(out)["status"]) == (0, "completed")
    assert rows.all("select value from results") == [('["a"]',), ('["a"]',)]


def test_a_failure_is_delivered_with_its_reason(waiting, ask):
    assert ask("deliver", waiting, "--failed", "the vendor gave up") == record("failed", delivered=True)
    assert ask("show", "1")["last_error"] == "the vendor gave up"


def test_who_lost_its_day_is_told_so(waiting, jobd, rows, monkeypatch):
    (older,) = rows.ids(rows.job(["completed"], status="completed"))
    rows.result(older, period="2026-11-22")
    rows.change("""update jobs set policy='{"unique": "day", "zone": "UTC"}' where id=1""")
    monkeypatch.setattr("jobd.cli.output.Output.human", True)
    answer = jobd("deliver", waiting, "1")
    assert answer == (0, "", "1:key-00000 is skipped now: its day 2026-11-22 is taken by 2:#2\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "one of VALUE, --from and --failed is needed"),
        (["1", "--failed", "no"], 2, "one of VALUE, --from and --failed is needed"),
        (["text"], 2, "the value is not JSON"),
        ([""], 2, "the value is not JSON"),
        (["[" * 100_000], 2, "the value is not JSON"),
        (["NaN"], 2, "not JSON"),
        (["1" * 30], 2, "beyond 64 bits"),
        (['"\\ud800"'], 2, "a lone surrogate"),
        (["--failed", " "], 2, "this one says nothing"),
        (["--from", "nowhere.json"], 2, "nowhere.json"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_changes(waiting, jobd, rows, arguments, code, words):
    answer = jobd("deliver", waiting, *arguments)
    assert answer.code == code
    assert words in answer.err
    assert rows.one("select status from job_items") == "waiting"


def test_a_value_over_the_limit_is_refused(waiting, jobd, place, rows):
    (place / "value.json").write_text(json.dumps("x" * 2**20))
    answer = jobd("deliver", waiting, "--from", place / "value.json")
    assert answer.code == 2
    assert "the limit is 1 MiB" in answer.err
    assert rows.one("select status from job_items") == "waiting"


@pytest.mark.parametrize(("status", "words"), [("cancelled", "it cannot take a result"), ("skipped", "it cannot take")])
def test_an_item_that_takes_no_result_leaves_with_4_and_says_what_it_can(jobd, rows, status, words):
    rows.job([status], status="cancelled" if status == "cancelled" else "completed")
    answer = jobd("deliver", "1:key-00000", "1")
    assert answer.code == 4
    assert words in answer.err
    assert f"from {status} it can: requeue" in answer.err


def test_another_value_leaves_with_4_and_names_the_line_that_shows_the_first(waiting, jobd):
    jobd("deliver", waiting, "1")
    answer = jobd("deliver", waiting, "2")
    assert answer.code == 4
    assert "item 1 has another result" in answer.err
    assert "jobd item 1:#1" in answer.err


def test_an_item_that_is_not_there_leaves_with_3(waiting, jobd):
    assert jobd("deliver", "1:nothing", "1").code == 3
    assert jobd("deliver", "9:nothing", "1").code == 3
    assert jobd("deliver", "1", "1").code == 2


# -- reconcile --------------------------------------------------------------------------------------------------------


def test_check_only_leaves_with_10_where_there_is_work_and_changes_nothing(false, jobd, rows):
    answer = jobd("reconcile", "--check-only", "--json")
    assert answer.code == 10
    report = json.loads(answer.out)
    assert (report["pass"], report["check_only"], report["counts"]) == ("reconcile", True, {"completed": 1})
    assert rows.one("select status from jobs") == "failed"
    assert jobd("reconcile").code == 0
    assert rows.one("select status from jobs") == "completed"
    assert jobd("reconcile", "--check-only").code == 0


def test_a_person_is_told_what_was_done_and_by_which_line_it_would_be(false, jobd):
    answer = jobd("reconcile", "--all", "--check-only")
    assert "Nothing was changed. Do it: jobd reconcile --all\n" in answer.err
    assert "jobd start does the same" in jobd("reconcile", "--check-only").err
    assert jobd("reconcile").err == "reconciled 1 item\n"
    assert jobd("reconcile").err == "nothing to reconcile\n"


def test_all_heals_what_the_beat_does_not_look_at(false, jobd, rows, monkeypatch):
    monkeypatch.setattr("jobd.store.contradicted.RECENT", 1)
    rows.job(["failed"], status="failed", last_error="ValueError: no")
    assert "nothing to reconcile" in jobd("reconcile").err
    assert "reconciled 1 item" in jobd("reconcile", "--all").err
    assert rows.one("select status from jobs where id=?", false) == "completed"


def test_beside_a_live_daemon_it_is_the_daemon_that_does_it_with_all_as_well(false, app, jobd, rows, monkeypatch):
    monkeypatch.setattr("jobd.store.contradicted.RECENT", 1)
    rows.job(["failed"], status="failed", last_error="ValueError: no")
    with app.daemon() as daemon:
        report = json.loads(jobd("reconcile", "--all", "--json").out)
        assert report["counts"] == {"completed": 1}
        actor = rows.one("select actor from job_events where name='reconcile' and item_id is not null")
        assert actor == f"daemon {daemon.id}"
    assert rows.one("select completed_at from jobs where id=?", false) == NOW


def test_without_a_file_there_is_nothing_to_reconcile_or_deliver(jobd):
    assert jobd("reconcile").code == 3
    assert jobd("deliver", "1:a", "1").code == 3
