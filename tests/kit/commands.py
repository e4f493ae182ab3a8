"""Command lines in processes of their own: their streams, signals and terminals are real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

from kit.forked import PIPE, ROOT, Popen

PATIENCE = 20
PROGRAM = """
import multiprocessing
import time
from pathlib import Path
from jobd import Jobd

app = Jobd()

@app.task
def gate(n):
    Path(f"started-{n}").touch()
    while not (Path("open").exists() or Path(f"open-{n}").exists()):
        time.sleep(0.005)

@app.task
def quick(n):
    return n

@app.task
def pools(n):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        next(pool.imap_unordered(abs, range(n, n + 1000)))
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
"""
GATE = "./program.py:gate"
QUICK = "./program.py:quick"


def environment(place):
    """Return what a user's shell would set, and nothing of this machine's."""
    mine = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBD_") and name not in mine}
    return kept | {"JOBD_DB": str(place / "jobs.db"), "PYTHONPATH": str(ROOT), "TERM": "xterm", "TZ": "UTC"}


class Command(Popen):
    """A command line under way. ``says`` waits for a line on stderr, ``end`` for its end."""

    def __init__(self, place, *arguments, **settings):
        super().__init__(
            [sys.executable, "-m", "jobd", *arguments],
            cwd=place,
            env=environment(place),
            text=True,
            errors="surrogateescape",
            # With what its handlers forked, which would hold its pipes open.
            process_group=0,
            **({"stdout": PIPE, "stderr": PIPE} | settings),
        )

    def says(self, words):
        """Return the first line with these words, passing over others."""
        for line in self.stderr:
            if words in line:
                return line
        raise AssertionError(f"it ended with {self.wait(PATIENCE)} and never said {words!r}")

    def end(self):
        """Return its exit code, and what was not read yet of both streams."""
        out, err = self.communicate(timeout=PATIENCE)
        assert "Traceback" not in err
        return self.returncode, out, err


@contextlib.contextmanager
def commands():
    """Start command lines; whatever is left of them is killed at the end."""
    started = []

    def start(place, *arguments, **settings):
        started.append(Command(place, *arguments, **settings))
        return started[-1]

    yield start
    for command in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate()


class Terminal:
    """A command line on a terminal of 80 columns and 24 rows."""

    def __init__(self, place, *arguments, **variables):
        self.screen = b""
        self._descriptor, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = Popen(
            [sys.executable, "-m", "jobd", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=place, env=environment(place) | variables, terminal=True,
        )  # fmt: skip
        os.close(theirs)

    def read(self, words=None):
        """Read until ``words`` have come, or to the end."""
        deadline = time.monotonic() + PATIENCE
        while words is None or words.encode() not in self.screen:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._descriptor], [], [], 0.1)[0]:
                try:
                    block = os.read(self._descriptor, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not block:
                    break
                self.screen += block
        return self.screen.decode()

    def type(self, keys):
        os.write(self._descriptor, keys)

    def end(self):
        self.read()
        os.close(self._descriptor)
        assert b"Traceback" not in self.screen
        return self._process.wait(PATIENCE)
