"""The command line in this process, with what it printed; and records as the kernel gives them."""

from __future__ import annotations

import copy
import functools
import json
import sys
from typing import NamedTuple

import pytest
from kit.commands import commands

from jobd import cli

_COUNTS = {
    "total": 2039,
    "queued": 795,
    "running": 4,
    "waiting": 0,
    "completed": 1235,
    "failed": 5,
    "skipped": 0,
    "cancelled": 0,
}
_DAEMON = {"id": 12, "pid": 24052, "host": "here", "heartbeat_at": "2026-11-21T12:00:05.600Z", "alive": True}
_JOB = {
    "id": 7,
    "task": "checksum",
    "key": None,
    "target": "./checksum.py:checksum",
    "status": "running",
    "status_description": "running",
    "status_message": None,
    "status_updated_at": "2026-11-21T12:00:03.000Z",
    "version": 2,
    "health": "ok",
    "operations": ["cancel"],
    "progress_percent": 60,
    "counts": _COUNTS,
    "rate_per_second": 416.3,
    "eta_seconds": 2,
    "warnings": [],
    "retry_count": 0,
    "last_error": None,
    "created_at": "2026-11-21T12:00:02.000Z",
    "started_at": "2026-11-21T12:00:03.000Z",
    "completed_at": None,
    "timeout_at": "2026-11-21T12:30:03.000Z",
    "age_seconds": 4,
    "in_status_seconds": 3,
    "daemon": _DAEMON,
    "after": [],
    "phases": None,
}


class Answer(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path):
    """Where the user stands, and where the database lies."""
    return tmp_path


@pytest.fixture
def jobd(capsys, monkeypatch, tmp_path, place):
    """Run a command line in this process; no settings of the machine reach it."""
    monkeypatch.setenv("JOBD_DB", str(place / "jobs.db"))
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(place)

    def run(*arguments):
        # A call is a process of its own: the program that it names is imported anew.
        sys.modules.pop("program", None)
        code = cli.call([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def ask(jobd):
    """Run a command line in this process to its end and return its document."""

    def answer(*arguments):
        answered = jobd(*arguments, "--json")
        assert answered.code == 0, answered.err
        return json.loads(answered.out)

    return answer


@pytest.fixture
def start(place):
    """Start a command line in a process of its own."""
    with commands() as begin:
        yield functools.partial(begin, place)


@pytest.fixture
def record():
    """Return a job's record with some fields changed; counts and daemon are merged."""

    def make(**changes):
        made = copy.deepcopy(_JOB)
        for name in ("counts", "daemon"):
            if isinstance(changes.get(name), dict):
                changes[name] = made[name] | changes[name]
        return made | changes

    return make
