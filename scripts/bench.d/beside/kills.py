"""The experiment with kills: units of 5 ms, a signal at a random moment, a restart, until nothing moves any more."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from beside.units import SHORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from beside.roster import Entry

SIGNALS: Final = ("SIGKILL", "SIGTERM")
_LOOK: Final = 0.02
_PATIENCE: Final = 60.0
_START: Final = 15.0  # how long what is queued may stay so after a restart on a busy machine, in seconds
_HANDED_OUT: Final = 1.5  # the same for what the store knows nothing of any more
_STOP: Final = 10.0  # what a process gets to leave after SIGTERM, in seconds


def rounds(entry: Entry, folder: Path, units: int, count: int, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Kill a peer so many times, by each signal in turn, and return what became of the units of each round.

    Raises:
        RuntimeError: its process ended by itself, or nothing began.
    """
    found = []
    for turn in range(count):
        own = folder / f"{entry.id}-{turn}"
        own.mkdir()
        name = SIGNALS[turn % len(SIGNALS)]
        found.append({"signal": name, **_round(entry, own, units, name, environment)})
        shutil.rmtree(own, ignore_errors=True)
    return found


def _round(entry: Entry, folder: Path, units: int, name: str, environment: dict[str, str]) -> dict[str, Any]:
    witness = folder / "witness"
    # At least one unit has ended and at least one has not begun, whatever the peer's pace.
    moment = random.randint(units // 20 + 1, units * 4 // 5)  # noqa: S311 - no secret
    with _process(entry, folder, units, environment) as process:
        _until(process, folder, lambda: _lines(witness) >= 2 * moment)
        time.sleep(random.uniform(0, SHORT))  # noqa: S311 - no secret
        stopped = _end(process, name)
    (folder / "ready").unlink(missing_ok=True)
    with _process(entry, folder, 0, environment) as process:
        _until(process, folder, (folder / "ready").exists)
        _until_still(entry, folder, units)
    return {"stopped": stopped, **told(witness.read_text(encoding="ascii"), units), **standing(entry, folder, units)}


def told(text: str, units: int) -> dict[str, int]:
    """Return what the witness says: how many units never ended, began more than once, and ended more than once."""
    lines = Counter(text.splitlines())
    begun = [lines[f"s {number}"] for number in range(units)]
    ended = [lines[f"e {number}"] for number in range(units)]
    return {
        "lost": sum(not times for times in ended),
        "again": sum(times > 1 for times in begun),
        "twice": sum(times > 1 for times in ended),
        "ended": sum(times > 0 for times in ended),
    }


def standing(entry: Entry, folder: Path, units: int) -> dict[str, int | None]:
    """Return what the peer's own file says: units queued, running and completed; None where it does not say."""
    if not entry.file:
        log = folder / "joblog"
        logged = max(0, _lines(log) - 1)
        return {"queued": units - logged, "running": 0, "completed": logged}
    with contextlib.closing(sqlite3.connect(folder / entry.file, timeout=10)) as connection:
        counts = {
            word: None if query is None else int(connection.execute(query).fetchone()[0])
            for word, query in (("queued", entry.queued), ("running", entry.running), ("completed", entry.completed))
        }
        connection.rollback()
        return counts


@contextlib.contextmanager
def _process(entry: Entry, folder: Path, units: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "beside.serve", entry.id, str(folder), str(units)],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until(process: subprocess.Popen[bytes], folder: Path, fact: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not fact():
        if process.poll() is not None and not fact():
            raise RuntimeError(f"its process left with {process.returncode}: {_last(folder)}")
        if time.monotonic() > until:
            raise RuntimeError(f"nothing after {_PATIENCE:.0f} s: {_last(folder)}")
        time.sleep(_LOOK)


def _until_still(entry: Entry, folder: Path, units: int) -> None:
    """Wait until everything has ended and says so, or until nothing has moved for as long as the peer may need."""
    witness, size, since, until = folder / "witness", -1, time.monotonic(), time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        now = witness.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        left = standing(entry, folder, units)
        is_open = left["queued"] or left["running"]
        if not is_open and not told(witness.read_text(encoding="ascii"), units)["lost"]:
            return
        if time.monotonic() - since > _quiet(entry, left):
            return
        time.sleep(_LOOK)


def _quiet(entry: Entry, left: dict[str, int | None]) -> float:
    """Return how many seconds without a move mean that nothing will move any more."""
    if left["queued"]:
        return _START
    return entry.quiet if left["running"] else _HANDED_OUT


def _end(process: subprocess.Popen[bytes], name: str) -> float:
    """Send a signal and return how long the process took to leave, in seconds; one that stays on is killed."""
    began = time.monotonic()
    process.send_signal(getattr(signal, name))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP)
    process.kill()
    process.wait()
    return time.monotonic() - began


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _last(folder: Path) -> str:
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
