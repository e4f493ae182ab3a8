"""The engine over real files, and programs in processes of their own whose printed words are facts to wait for."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import jobd
from jobd import Jobd

SECONDS = 20
_LOOK = 0.002

# What every program begins with: ``say`` a fact, be ``told`` to go on.
_PRELUDE = """
import logging, os, signal, sys, threading, time
from jobd import Jobd

path = sys.argv[1]

def say(*words):
    print(*words, flush=True)

def told():
    return sys.stdin.readline().strip()
"""


class Gate:
    """Holds a handler: ``entered`` is set by it, ``opened`` lets it go on."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()

    def pass_through(self):
        self.entered.set()
        assert self.opened.wait(SECONDS)


class Program:
    """A process. ``hears(word)`` waits until it says that; ``tell`` answers it; ``log()`` is what it logged."""

    def __init__(self, source, path, errors, *arguments):
        self._errors = errors
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PRELUDE + textwrap.dedent(source), str(path), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # Wherever the test stands, the program's jobd is the test's.
                env={**os.environ, "PYTHONPATH": str(Path(jobd.__file__).parents[1])},
            )
        self._lines = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """Return the next line that it says."""
        line = self._lines.get(timeout=SECONDS)
        assert line is not None, f"it ended with {self.process.wait(SECONDS)}: {self.log()}"
        return line

    def hears(self, word):
        """Wait for a line that begins with ``word`` and return the rest of it."""
        line = self.line()
        assert line.split(" ")[0] == word, line
        return line[len(word) + 1 :]

    def tell(self, word="on"):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        return self.process.wait(SECONDS)

    def leaves(self):
        """Wait for its end and return its exit code."""
        return self.process.wait(SECONDS)

    def log(self):
        return self._errors.read_text(errors="replace")

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.process.stdin.close()
        # A process that it forked may hold the other end still: what it says is nobody's any more.
        self._pump.join(0.1)
        if not self._pump.is_alive():
            self.process.stdout.close()


class Rows:
    """Reads and changes rows directly, past every guard."""

    def __init__(self, store):
        self.store = store

    def all(self, sql, *params):
        return self.store.read(lambda connection: connection.execute(sql, params).fetchall())

    def one(self, sql, *params):
        row = self.all(sql, *params)[0]
        return row[0] if len(row) == 1 else row

    def change(self, sql, *params):
        return self.store.write(lambda connection: connection.execute(sql, params).rowcount)

    def events(self, *, of_items=True):
        """Return the names of the events, of items or of the jobs themselves."""
        which = "is not null" if of_items else "is null"
        return [row[0] for row in self.all(f"select name from job_events where item_id {which} order by id")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def make_app(path):
    """Return an app on the test's file, with settings."""
    made = []

    def make(**settings):
        made.append(Jobd(path, **settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def store(app):
    return app.store


@pytest.fixture
def rows(app):
    return Rows(app.store)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def held(app, gate):
    """A task whose handler waits at the gate."""

    @app.task
    def held(value):
        gate.pass_through()
        return value

    return held


@pytest.fixture
def program(path, tmp_path):
    """Start a program on the test's file; it ends with the test at the latest."""
    started = []

    def start(source, *arguments, at=path):
        errors = tmp_path / f"program-{len(started)}.err"
        started.append(Program(source, at, errors, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def until():
    """Wait for a fact that can only be looked at: rows of another process, files, threads."""
    pause = threading.Event()

    def wait(fact, seconds=SECONDS):
        for _ in range(int(seconds / _LOOK)):
            if answer := fact():
                return answer
            pause.wait(_LOOK)
        raise AssertionError(f"it did not come true within {seconds} s")

    return wait
