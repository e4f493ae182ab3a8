"""`results`: of a job, of a task, the history of a key with its pages, and the data beside a result."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from kit import forked
from kit.tables import rows

import jobd as package

PROGRAM = """
from jobd import Jobd

app = Jobd("own.db")

@app.task(unique="day")
def work(x, ctx):
    if x != "bare":
        ctx.save_data(bytes(range(256)) + x.encode())
    return {"got": x, "job": ctx.job_id}
"""
APP = ("--app", "./program.py")


@pytest.fixture(autouse=True)
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the database is kept that the first history made, with its log: a thread may close after the others."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def history(jobd, place, kept):
    """The key a was run by jobs 1 to 3, each a refresh of the one before."""
    if any(kept.iterdir()):
        for found in kept.iterdir():
            shutil.copy(found, place)
        return
    for _ in range(3):
        assert jobd(*APP, "run", "work", "a", "bare", "--refresh").code == 0
    for name in ("jobs.db", "jobs.db-wal"):
        if (place / name).exists():
            shutil.copy(place / name, kept)


def test_the_history_of_a_key_is_newest_first_and_only_the_newest_has_the_day(jobd, history):
    found = json.loads(jobd("results", "work", "--key", "a", "--json").out)
    assert [(row["job_id"], row["value"]["job"], row["has_data"]) for row in found] == [
        (3, 3, True), (2, 2, True), (1, 1, True),
    ]  # fmt: skip
    assert [row["period"] is None for row in found] == [False, True, True]


def test_its_pages_go_on_before_the_last_one(jobd, history):
    seen, before = [], ()
    while page := rows(jobd("results", "work", "--key", "a", "--limit", 2, *before)):
        seen += [row["job_id"] for row in page]
        before = ("--before", page[-1]["item_id"])
    assert seen == ["3", "2", "1"]


def test_pages_of_a_job_are_not_by_before(jobd, history):
    answer = jobd("results", "1", "--before", "7")
    assert answer.code == 2
    assert "--before goes with a task" in answer.err


def test_a_pruned_value_leaves_its_row_and_says_so(jobd, history, tmp_path):
    from jobd.store.sqlite import SqliteStore

    store = SqliteStore(tmp_path / "jobs.db")
    store.write(lambda c: c.execute("update results set value=null, pruned_at=1795305600000 where item_id=1"))
    store.close()
    *_, oldest = json.loads(jobd("results", "work", "--key", "a", "--json").out)
    assert (oldest["value"], oldest["pruned_at"]) == (None, "2026-11-22T00:00:00.000Z")


def raw(tmp_path, *typed):
    """Run the command with its standard output in a pipe, as bytes."""
    environment = {
        **os.environ,
        "JOBD_DB": str(tmp_path / "jobs.db"),
        "PYTHONPATH": str(Path(package.__file__).parents[1]),
    }
    ran = forked.run([sys.executable, "-m", "jobd", *typed], capture_output=True, env=environment, check=False)
    return ran.returncode, ran.stdout, ran.stderr.decode()


@pytest.mark.parametrize("of", ["1", "work", "=nightly"])
def test_data_is_written_as_the_bytes_that_were_saved(jobd, tmp_path, of):
    jobd(*APP, "run", "work", "a", "--job-key", "nightly")
    assert raw(tmp_path, "results", of, "--key", "a", "--data") == (0, bytes(range(256)) + b"a", "")


@pytest.mark.parametrize(
    ("typed", "code", "what"),
    [
        (["work", "--key", "bare", "--data"], 3, "work has no data under the key 'bare'"),
        (["work", "--key", "nobody", "--data"], 3, "work has no data under the key 'nobody'"),
        (["1", "--key", "bare", "--data"], 3, "1 has no data under the key 'bare'"),
        (["1", "--key", "nobody", "--data"], 3, "job 1 has no item 'nobody'"),
        (["work", "--data"], 2, "it goes with --key"),
        (["work", "--key", "a", "--data", "--json"], 2, "not with --json"),
    ],
)
def test_data_that_is_not_there_is_said_and_nothing_is_written(jobd, history, typed, code, what):
    answer = jobd("results", *typed)
    assert (answer.code, answer.out) == (code, "")
    assert what in answer.err


def test_data_is_not_written_to_a_terminal(jobd, history, monkeypatch):
    monkeypatch.setattr("jobd.cli.screen._is_terminal", lambda stream: True)
    answer = jobd("results", "work", "--key", "a", "--data")
    assert (answer.code, answer.out) == (2, "")
    assert "not for a terminal" in answer.err


def test_a_person_sees_the_day_the_data_and_what_was_pruned(jobd, history, tmp_path, monkeypatch):
    from jobd.store.sqlite import SqliteStore

    store = SqliteStore(tmp_path / "jobs.db")
    store.write(lambda c: c.execute("update results set value=null, pruned_at=1795305600000 where item_id=1"))
    day = store.read(lambda c: c.execute("select period from results where period is not null").fetchone()[0])
    store.close()
    monkeypatch.setattr("jobd.cli.screen._is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    answer = jobd("results", "work", "--key", "a")
    header, newest, _, oldest = answer.out.splitlines()
    assert header.split()[-2:] == ["PERIOD", "RESULT"]
    assert day in newest
    assert newest.rstrip().endswith("+ data")
    assert "pruned" in oldest
    assert "null" not in oldest
    page = jobd("results", "work", "--key", "a", "--limit", 2)
    assert "go on with: jobd results work --key a --before 3" in page.err
