"""The desktop program of the examples: killed midway and started again, it loses nothing and takes nothing twice."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from kit.forked import PIPE, Popen

from jobd import Jobd
from jobd.store.invariants import check

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "desktop.py"
# As a user starts it; asyncio's own debug mode says which step held the loop, and for how long.
AS_MAIN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
SECONDS = 20
PHOTOS, STUCK_AT = 40, (25, 26)
FRAMES = 8
LONGEST_STEP = 1.0


class Window:
    """The program under way, and the lines that it has drawn: (spinner, settled, total)."""

    def __init__(self, folder, *photos):
        environment = {**os.environ, "JOBD_DB": str(folder / "jobs.db"), "PYTHONASYNCIODEBUG": "1"}
        self.frames, self._drawn, self._ended = [], threading.Condition(), False
        self._errors = folder / "errors"
        with self._errors.open("ab") as errors:
            self.process = Popen(
                [sys.executable, "-c", AS_MAIN, PROGRAM, folder / "library", *photos],
                stdout=PIPE, stderr=errors, env=environment,
            )  # fmt: skip
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self):
        rest = b""
        with self.process.stdout as said:
            while block := os.read(said.fileno(), 4096):
                *whole, rest = (rest + block).split(b"\r")
                for line in whole:
                    self._draw(line.decode())
        self._draw(rest.decode())
        with self._drawn:
            self._ended = True
            self._drawn.notify_all()

    def _draw(self, line):
        if found := re.match(r"(.) \[.*\] (\d+) of (\d+) ", line):
            with self._drawn:
                self.frames.append((found[1], int(found[2]), int(found[3])))
                self._drawn.notify_all()

    def shows(self, fact):
        """Wait until a fact about what was drawn is true."""
        with self._drawn:
            assert self._drawn.wait_for(lambda: fact(self.frames) or self._ended, SECONDS), self.frames[-1:]
            assert fact(self.frames), f"it ended: {self._errors.read_text()}"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(SECONDS) == -signal.SIGKILL
        self._pump.join(SECONDS)

    def leaves(self):
        code = self.process.wait(SECONDS)
        self._pump.join(SECONDS)
        return code

    def held(self):
        """Return for how long single steps held the loop, in seconds, where that was long."""
        return [float(took) for took in re.findall(r"took ([\d.]+) seconds", self._errors.read_text())]


@pytest.fixture
def photos(tmp_path):
    """Photos, of which two are not there yet for who reads them: their handlers wait until somebody writes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    made = [folder / f"{number:03}.jpg" for number in range(PHOTOS)]
    for number, photo in enumerate(made):
        os.mkfifo(photo) if number in STUCK_AT else photo.write_bytes(b"%d" % number)
    return made


def taken(folder):
    return collections.Counter((folder / "library" / "diary").read_text().splitlines())


def test_killed_midway_it_goes_on_where_it_was(tmp_path, photos):
    window = Window(tmp_path, *photos)
    before = STUCK_AT[0]
    window.shows(lambda frames: frames and frames[-1][1] == before)
    # Every handler waits; the loop does not.
    drawn = len(window.frames)
    window.shows(lambda frames: len(frames) >= drawn + FRAMES)
    assert len({spinner for spinner, *_ in window.frames[drawn:]}) == 4
    window.kill()
    assert taken(tmp_path) == dict.fromkeys(map(str, photos[:before]), 1)
    for number in STUCK_AT:
        photos[number].unlink()
        photos[number].write_bytes(b"%d" % number)
    again = Window(tmp_path)
    assert again.leaves() == 0
    settled = [frame[1] for frame in (*window.frames, *again.frames)]
    assert settled == sorted(settled)
    assert settled[-1] == PHOTOS
    assert again.frames[0][1] >= before
    assert taken(tmp_path) == dict.fromkeys(map(str, photos), 1)
    assert len(list((tmp_path / "library").glob("*.jpg"))) == PHOTOS
    with contextlib.closing(Jobd(tmp_path / "jobs.db")) as app:
        (job,) = app.jobs()
        assert (job.status, job.counts.completed, len(list(job.results()))) == ("completed", PHOTOS, PHOTOS)
        assert sum(item.interruptions for item in job.items()) == len(STUCK_AT)
        assert check(app.store) == []
    assert max(window.held(), default=0) < LONGEST_STEP
