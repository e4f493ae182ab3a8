"""Programs in processes of their own, whose printed words are facts to wait for."""

from __future__ import annotations

import queue
import sys
import textwrap
import threading

import pytest

from kit.forked import PIPE, Popen

SECONDS = 20

# What every program begins with: ``say`` a fact, be ``told`` to go on.
_PRELUDE = """
import logging, os, signal, sys, threading, time
from jobd import Jobd

path = sys.argv[1]

def say(*words):
    # One write: of two threads that print, each may end the other's line.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def told():
    return sys.stdin.readline().strip()
"""


class Program:
    """A process. ``hears(word)`` waits until it says that; ``tell`` answers it; ``log()`` is what it logged."""

    def __init__(self, source, path, errors, *arguments):
        self._errors = errors
        with errors.open("wb") as stderr:
            self.process = Popen(
                [sys.executable, "-c", _PRELUDE + textwrap.dedent(source), path, *map(str, arguments)],
                stdin=PIPE, stdout=PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        self._lines = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self):
        with self.process.stdout as said:
            for line in said:
                self._lines.put(line.strip())
        self._lines.put(None)

    @property
    def pid(self):
        return self.process.pid

    def line(self):
        """Return the next line that it says."""
        line = self._lines.get(timeout=SECONDS)
        assert line is not None, f"it ended with {self.leaves()}: {self.log()}"
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

    def stop(self):
        """Stop it, and return when it stands still."""
        self.process.stop()

    def kill(self):
        self.process.kill()
        return self.process.wait(SECONDS)

    def leaves(self, seconds=SECONDS):
        """Wait for its end and return its exit code."""
        return self.process.wait(seconds)

    def log(self):
        return self._errors.read_text(errors="replace")

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdin.close()
        # No longer: a process that it forked may hold the other end still, and what it says is nobody's any more.
        self._pump.join(0.1)


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
