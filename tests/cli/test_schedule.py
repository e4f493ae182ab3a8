"""`schedule`: what is declared, in words and in times, and what people do with it."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
from jobd import Jobd

app = Jobd("own.db")

@app.schedule(cron="30 2 * * *", zone="Europe/Berlin")
@app.task
def nightly(x):
    return x

@app.task
def often(x):
    return x

app.schedule(often, items=["a", "b"], every="10m", catch_up="skip")
"""
APP = ("--app", "./program.py")


@pytest.fixture(autouse=True)
def program(tmp_path, jobd_clock):
    jobd_clock.move_to("2026-03-28T12:00")
    (tmp_path / "program.py").write_text(PROGRAM)


def test_without_a_program_or_a_file_there_are_none(jobd):
    assert jobd("schedule").code == 0
    assert json.loads(jobd("schedule", "list", "--json").out) == []


def test_the_list_says_in_words_when_each_comes(ask):
    nightly, often = ask(*APP, "schedule", "list")
    assert (nightly["spec"], nightly["words"], nightly["next_at"]) == (
        "30 2 * * *", "every day at 02:30, Europe/Berlin", "2026-03-29T01:00:00.000Z",
    )  # fmt: skip
    assert (often["name"], often["words"], often["catch_up"], often["state"]) == (
        "often", "every 10 minutes", "skip", "no_daemon",
    )  # fmt: skip


def test_on_a_terminal_the_words_stand_beside_the_cron_text(jobd, monkeypatch):
    monkeypatch.setattr("jobd.cli.output.Output.human", property(lambda self: True))
    monkeypatch.setenv("COLUMNS", "200")
    shown = jobd(*APP, "schedule").out
    assert "30 2 * * *" in shown
    assert "every day at 02:30, Europe/Berlin" in shown


def test_where_not_all_fits_the_words_have_the_room_of_the_cron_text(jobd, monkeypatch):
    monkeypatch.setattr("jobd.cli.screen._is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "91")
    assert "30 2 * * *  every day at 02:30, Europe/Berlin  2026-03-29 01:00:00" in jobd(*APP, "schedule").out
    monkeypatch.setenv("COLUMNS", "80")
    assert "nightly  every day at 02:30, Europe/Berlin  2026-03-29 01:00:00" in jobd(*APP, "schedule").out
    monkeypatch.setenv("COLUMNS", "70")
    assert "nightly  every day at 02:30, Eur…  2026-03-29 01:00:00" in jobd(*APP, "schedule").out


def test_a_name_is_whole_where_there_is_room_for_it(jobd, tmp_path, monkeypatch):
    monkeypatch.setattr("jobd.cli.screen._is_terminal", lambda stream: True)
    name = "warehouse.refresh_the_latest_prices"
    (tmp_path / "program.py").write_text(PROGRAM.replace("@app.task", f"@app.task(name={name!r})", 1))
    monkeypatch.setenv("COLUMNS", "200")
    assert f"{name}  30 2 * * *  every day at 02:30, Europe/Berlin" in jobd(*APP, "schedule").out
    monkeypatch.setenv("COLUMNS", "104")
    assert f"{name[:31]}…  every day at 02:30, Europe/Berlin" in jobd(*APP, "schedule").out
    monkeypatch.setenv("COLUMNS", "80")
    assert f"{name[:23]}…  every d" in jobd(*APP, "schedule").out


def test_a_preview_is_in_local_times_with_their_zone(ask):
    found = ask(*APP, "schedule", "preview", "nightly", "-n", "3")
    assert [row["local"] for row in found] == [
        "Sun 2026-03-29 03:00:00 CEST", "Mon 2026-03-30 02:30:00 CEST", "Tue 2026-03-31 02:30:00 CEST",
    ]  # fmt: skip
    assert len(ask(*APP, "schedule", "preview")) == 10


def test_it_is_paused_run_and_unpaused(jobd, ask):
    assert jobd(*APP, "schedule", "pause", "nightly").err == "schedule nightly is paused\n"
    assert jobd(*APP, "schedule", "pause", "nightly").err == "schedule nightly is paused already\n"
    ran = jobd(*APP, "schedule", "run", "nightly")
    assert (ran.code, ran.out) == (0, "1\n")
    assert "nobody runs it" in ran.err
    again = jobd(*APP, "schedule", "run", "nightly")
    assert again.code == 4
    assert "job 1, which nightly fired last, is still queued" in again.err
    nightly, _ = ask("schedule")
    assert (nightly["state"], nightly["last_job_id"], nightly["last_job_status"]) == ("paused", 1, "queued")
    assert jobd("schedule", "unpause", "nightly").err == (
        "schedule nightly is unpaused; next: Sun 2026-03-29 03:00:00 CEST\n"
    )
    assert jobd("schedule", "unpause", "nightly").err.startswith("schedule nightly was not paused")
    assert ask("schedule", "pause", "nightly") == {"name": "nightly", "changed": True}


def test_without_its_code_it_cannot_be_run(jobd):
    jobd(*APP, "schedule", "pause", "nightly")
    refused = jobd("schedule", "run", "nightly")
    assert refused.code == 4
    assert "its code is not in the program" in refused.err


@pytest.mark.parametrize("action", ["pause", "unpause", "run"])
def test_of_several_the_answer_is_one_document(ask, action):
    found = ask(*APP, "schedule", action, "nightly", "often")
    assert [record["name"] for record in found] == ["nightly", "often"]


def test_where_one_name_is_not_known_none_of_them_is_touched(jobd, ask):
    assert jobd(*APP, "schedule", "pause", "nightly", "nigthly").code == 3
    assert {entry["state"] for entry in ask(*APP, "schedule")} == {"no_daemon"}


@pytest.mark.parametrize("action", ["preview", "run", "pause", "unpause"])
def test_a_name_that_nobody_knows_is_not_found(jobd, action):
    jobd(*APP, "schedule", "pause", "nightly")
    assert jobd(*APP, "schedule", action, "nigthly").code == 3


@pytest.mark.parametrize(
    "words", [["run"], ["pause"], ["list", "nightly"], ["often"], ["preview", "nightly", "-n", "0"]]
)
def test_what_cannot_be_meant_is_a_usage_error(jobd, words):
    assert jobd(*APP, "schedule", *words).code == 2
