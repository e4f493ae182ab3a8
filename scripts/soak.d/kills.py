"""SIGKILL at random, thousands of times, of processes that submit and run items; also while they recover.

Most are forked children of a process that has imported jobd and opened nothing; some are real ``jobd start``. What was
acknowledged, and what ran, stands in files outside the database.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import program
from kit.children import in_child
from kit.warm import load
from report import Told, going

from jobd.store.invariants import check

_PROGRAM: Final = Path(__file__).with_name("program.py")
_WORKERS: Final = 4
_LONGEST: Final = 0.05  # seconds from a life's beginning, or from when it runs items, to its kill
_READY: Final = 20.0
_LOOK_EVERY: Final = 25  # kills
_SECONDS: Final = 600.0


def run(folder: Path, seed: int, *, out: Path, forked: int, started: int) -> Told:  # noqa: ARG001 - nothing to plot
    """Kill so many lives of each kind, in an order that the seed gives, and look at what they left."""
    load()
    rng = random.Random(seed)  # noqa: S311 - chance, not a secret
    os.environ[program.WITNESS] = str(folder / "witness")
    wrong: list[str] = []
    lives = [_forked] * forked + [_started] * started
    rng.shuffle(lives)
    killed, ready = 0, 0
    for number, life in enumerate(lives):
        ran = life(folder, number, rng)
        killed, ready = killed + 1, ready + ran
        going(killed, len(lives), "kills")
        if killed % _LOOK_EVERY == 0:
            wrong += [f"after {killed} kills: {one}" for one in _look(folder)]
    began = time.monotonic()
    in_child(_finish, folder)
    figures, last = in_child(_account, folder)[1]
    told = {"kills": killed, "while items ran": ready, "the last life's seconds": time.monotonic() - began, **figures}
    return Told(told, wrong + last)


# -- lives ------------------------------------------------------------------------------------------------------------


def _forked(folder: Path, number: int, rng: random.Random) -> bool:
    """Live in a child that has imported and not opened the file; say whether it ran items when it was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _live(folder, number, writer)
        os._exit(0)
    os.close(writer)
    ran = rng.random() < 0.6
    if ran:
        ran = bool(os.read(reader, 1))
    time.sleep(rng.uniform(0, _LONGEST))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    return ran


def _live(folder: Path, number: int, writer: int) -> None:
    program.app.use(folder / "jobs.db")
    with program.app.daemon(workers=_WORKERS):
        os.write(writer, b".")
        program.submit(folder, f"forked {number}")
        program.submit(folder, f"forked {number} again")
        signal.pause()


def _started(folder: Path, number: int, rng: random.Random) -> bool:
    """Live as ``jobd start`` with a client beside it."""
    client = os.fork()
    if client == 0:
        program.app.use(folder / "jobs.db")
        program.submit(folder, f"started {number}")
        os._exit(0)
    os.waitpid(client, 0)
    words = ["--db", str(folder / "jobs.db"), "--app", str(_PROGRAM), "start", "--workers", str(_WORKERS)]
    with subprocess.Popen([sys.executable, "-m", "jobd", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as life:  # fmt: skip # noqa: E501
        before, until = _size(folder / "witness"), time.monotonic() + _READY
        while (waits := _size(folder / "witness") == before) and life.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, _LONGEST))
        life.kill()
    if life.returncode != -signal.SIGKILL:
        raise AssertionError(f"jobd start left with {life.returncode} before it was killed")
    return not waits


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# -- what they leave --------------------------------------------------------------------------------------------------


def _look(folder: Path) -> list[str]:
    """Judge a copy, so that the next life finds what the kill has left."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for suffix in ("", "-wal"):
        if (found := folder / f"jobs.db{suffix}").exists():
            shutil.copy(found, copy / found.name)
    return in_child(_broken, copy)[1]


def _broken(folder: Path) -> list[str]:
    program.app.use(folder / "jobs.db")
    return [violation.text for violation in check(program.app.store, quick=True)]


def _finish(folder: Path) -> None:
    program.app.use(folder / "jobs.db")
    with program.app.daemon(workers=_WORKERS):
        for job in program.app.jobs(limit=1_000_000):
            if job.status not in {"completed", "failed", "cancelled"}:
                job.wait(timeout=_SECONDS)


def _account(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return figures, and where the database differs from what stands outside it."""
    program.app.use(folder / "jobs.db")
    store = program.app.store
    rows = store.read(
        lambda c: c.execute(
            "select i.id, j.key, i.status, i.attempt from job_items as i join jobs as j on j.id = i.job_id"
        ).fetchall()
    )
    runs = collections.Counter((folder / "witness").read_text().split("\n"))
    runs.pop("", None)
    begun = collections.Counter(int(token.split()[0]) for token in runs)
    wrong = [violation.text for violation in check(store)]
    wrong += [f"attempt {token} began {count} times" for token, count in runs.items() if count > 1]
    wrong += [f"{key}: item {item} is {status}" for item, key, status, _ in rows if status != "completed"]
    wrong += [f"{key}: item {item} ran {begun[item]} of {tries}" for item, key, _, tries in rows if begun[item] > tries]
    kept = collections.Counter(key for _, key, _, _ in rows)
    acknowledged = (folder / "acknowledged").read_text().split("\n")[:-1]
    wrong += [f"{name} was acknowledged, and has {kept[name]} items" for name in acknowledged if kept[name] != 20]
    again = sum(count - 1 for count in begun.values())
    figures = {"jobs acknowledged": len(acknowledged), "items": len(rows), "runs that a kill made anew": again}
    return figures, wrong
