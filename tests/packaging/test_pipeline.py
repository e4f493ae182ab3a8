"""The pipeline of the examples: three phases, of which no look at any moment calls the whole completed too early."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import runpy
import sys
from pathlib import Path

import pytest
from kit.forked import run

from jobd import cli
from jobd.store.invariants import check

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "pipeline.py"
AS_MAIN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
TEXTS = {"a": "the cat and the dog", "b": "a dog, a dog", "c": "no animal"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def settings(path, monkeypatch):
    for name, value in {"JOBD_DB": str(path), "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)


class Page(io.StringIO):
    """What a person sees: a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def program():
    program = runpy.run_path(str(PROGRAM))
    yield program
    assert check(program["app"].store) == []
    program["app"].close()


def jobd(*words):
    """Return what a command line prints on a terminal, as in a process of its own: with a store of its own."""
    out = Page()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert cli.call([str(word) for word in words]) == 0
    return out.getvalue()


class Onlooker(logging.Handler):
    """Looks at each phase by ``jobd show`` whenever one of them has moved: after each commit that moves a job."""

    def __init__(self, jobs):
        super().__init__()
        self.jobs, self.moments = jobs, []

    def emit(self, record):
        self.look()

    def look(self):
        seen = [json.loads(jobd("show", job.id, "--json")) for job in self.jobs]
        statuses = [one["status"] for one in seen]
        if self.moments and self.moments[-1] == statuses:
            return
        self.moments.append(statuses)
        completed = statuses.count("completed")
        for one in seen:
            assert (one["phases"]["completed"], one["phases"]["total"]) == (completed, 3)
            page = " ".join(jobd("show", one["id"]).split())
            assert f"PHASES {completed} of 3 phases completed" in page


@pytest.fixture
def watched():
    """Have an onlooker beside the jobs."""
    log = logging.getLogger("jobd.history")
    former = log.level
    undo = contextlib.ExitStack()

    def watch(jobs):
        onlooker = Onlooker(jobs)
        log.setLevel(logging.INFO)
        log.addHandler(onlooker)
        undo.callback(log.removeHandler, onlooker)
        undo.callback(log.setLevel, former)
        return onlooker

    with undo:
        yield watch


def test_at_no_moment_is_the_whole_called_completed_while_a_phase_is_open_or_failed(program, folder, watched):
    app, jobs = program["app"], program["ingest"](str(folder))
    onlooker = watched(jobs)
    onlooker.look()
    app.drain()
    assert onlooker.moments[-1] == ["completed", "failed", "cancelled"]
    assert "vocabulary" in jobs[1].refresh().last_error
    assert jobs[2].refresh().status_description == f"cancelled: job {jobs[1].id} failed"
    (folder / "vocabulary").write_text("cat dog")
    jobd("retry", jobs[1].id)
    onlooker.look()
    assert onlooker.moments[-1] == ["completed", "queued", "queued"]
    app.drain()
    assert onlooker.moments == [
        ["queued", "queued", "queued"],
        ["running", "queued", "queued"],
        ["completed", "running", "queued"],  # in one commit with the end of the first
        ["completed", "failed", "queued"],
        ["completed", "failed", "cancelled"],
        ["completed", "queued", "cancelled"],  # it follows with the next commit
        ["completed", "queued", "queued"],
        ["completed", "running", "queued"],
        ["completed", "completed", "running"],
        ["completed", "completed", "completed"],
    ]
    assert "3 of 3 phases" in jobd("show", jobs[0].id)
    vectors = json.loads((folder / "index.json").read_text())
    assert vectors == {str(folder / "a.txt"): [1, 1], str(folder / "b.txt"): [0, 2], str(folder / "c.txt"): [0, 0]}


def test_run_again_it_adds_what_is_new_and_writes_the_index_anew(program, folder, watched):
    (folder / "vocabulary").write_text("cat dog")
    app, jobs = program["app"], program["ingest"](str(folder))
    app.drain()
    (folder / "d.txt").write_text("cat")
    onlooker = watched(jobs)
    again = program["ingest"](str(folder))
    assert [job.id for job in again] == [job.id for job in jobs]
    onlooker.look()
    assert onlooker.moments[-1] == ["queued", "queued", "queued"]
    assert app.drain().counts == {"completed": 3}
    assert onlooker.moments[-1] == ["completed"] * 3
    assert json.loads((folder / "index.json").read_text())[str(folder / "d.txt")] == [1, 0]


def test_the_program_itself_says_how_each_phase_ended(folder):
    def ingest():
        command = [sys.executable, "-c", AS_MAIN, PROGRAM, folder]
        return run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert ingest() == [
        "job 1 documents: completed",
        "job 2 embeddings: failed: 3 of 3 items failed",
        "job 3 index: cancelled: job 2 failed",
    ]
    (folder / "vocabulary").write_text("cat dog")
    jobd("retry", 2)
    assert ingest() == ["job 1 documents: completed", "job 2 embeddings: completed", "job 3 index: completed"]
