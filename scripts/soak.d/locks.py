"""The one lock of a file: writers beside a draining daemon, the log emptied under writers, the lock held elsewhere.

    locks.py [writers] [wal-reset] [held] [--seconds S] [--clients N] [--held S,S,…]

Each part is a function (folder, …) → figures, whose "problems" must be empty. Called alone, by the soak, and for a few
seconds by the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from jobd import Jobd, JobdError
from jobd.store.connections import Connections
from jobd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WORST_P99: Final = 250.0  # milliseconds
CHECKPOINT: Final = 200_000  # bytes of log: it is emptied many times a second
# Wherever they are started, it is the jobd of this checkout that is put through it.
_ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
_TRUNCATE: Final = "pragma wal_checkpoint(truncate)"
_COMPLETED: Final = "select count(*) from job_items where status = 'completed'"


def nothing(_number: object) -> None:
    pass


# -- the parts ---------------------------------------------------------------------------------------------------------


def writers(folder: Path, seconds: float = 60.0, clients: int = 8) -> dict[str, Any]:
    """Have processes submit and pause, each as fast as it can, beside a daemon that drains what they submit.

    Times of a write are in ms; ``checkpoints`` counts what any connection of any of them was told to do.
    """
    app = Jobd(folder / "writers.db", checkpoint_bytes=CHECKPOINT)
    app.task(nothing)
    with traced() as checkpoints, app.daemon(workers=2) as daemon, Clients("write", app.path, seconds, clients) as all_:
        reports = all_.reports()
        failure, degraded = daemon.failure, daemon.degraded
    writes = sorted(took for report in reports for took in report["writes"])
    errors = [error for report in reports for error in report["errors"]]
    theirs = [statement for report in reports for statement in report["checkpoints"]]
    found = {
        "writes": len(writes),
        "p50": at(writes, 0.5),
        "p99": at(writes, 0.99),
        "max": at(writes, 1.0),
        "checkpoints": len(checkpoints),
        "completed": app.store.read(lambda c: c.execute(_COMPLETED).fetchone()[0]),
    }
    problems = [
        *sorted(set(errors)),
        *(f"a client: {statement}" for statement in sorted(set(theirs))),
        *(f"the daemon: {statement}" for statement in sorted(set(checkpoints) - {_TRUNCATE})),
        *(f"{what}: {said}" for what, said in (("failure", failure), ("degraded", degraded)) if said),
        *(["no write"] if not writes else []),
        *(["the log was never emptied"] if not checkpoints else []),
        *broken(app),
    ]
    app.close()
    slow = [f"p99 of a write is {found['p99']:.0f} ms"] if found["p99"] > WORST_P99 else []
    return {**found, "slow": slow, "problems": problems}


def wal_reset(folder: Path, seconds: float = 60.0, clients: int = 6) -> dict[str, Any]:
    """Empty the log all the time, as the one process that may, while others write, read and come and go.

    Where a second checkpointer resets the log while the first one reads it, SQLite before 3.51.3 can lose pages.
    """
    store = SqliteStore(folder / "reset.db")
    store.open()
    emptied = busy = 0
    chance = random.Random(0)  # noqa: S311 - how long the others are left alone
    until = time.monotonic() + seconds
    with Clients("insert", store.path, seconds, clients) as others:
        while time.monotonic() < until:
            refused, _ = store.checkpoint(1)
            emptied, busy = emptied + (not refused), busy + refused
            time.sleep(chance.uniform(0, 0.004))
        reports = others.reports()
    kept = set(store.read(lambda c: c.execute("select name from passes").fetchall()))
    acknowledged = {(name,) for report in reports for name in report["names"]}
    whole = store.read(lambda c: c.execute("pragma integrity_check(1)").fetchone()[0])
    problems = [
        *sorted({error for report in reports for error in report["errors"]}),
        *([f"{len(acknowledged - kept)} acknowledged rows are gone"] if acknowledged - kept else []),
        *([f"integrity: {whole}"] if whole != "ok" else []),
        *(["nothing was written or emptied"] if not (acknowledged and emptied) else []),
    ]
    store.close()
    return {"rows": len(acknowledged), "emptied": emptied, "busy": busy, "problems": problems}


def held(folder: Path, lengths: Iterable[float] = (3.0, 8.0, 60.0)) -> dict[str, Any]:
    """Hold the write lock elsewhere for so many seconds under a daemon whose handlers go on, with a client beside it.

    Up to a busy time-out of 5 s nobody notices; beyond, the daemon says ``degraded`` and a client gives up with 5.
    """
    app, problems, waited = Jobd(folder / "held.db"), [], {}
    echo = app.task(lambda number: number, name="echo")
    with app.daemon(workers=2) as daemon:
        for length in lengths:
            job = echo.submit(range(200), item_key=lambda n, length=length: f"{length} {n}")
            holder = sqlite3.connect(app.path, isolation_level=None, timeout=5)
            holder.execute("begin exclusive")
            said, code = _while_held(app, daemon, time.monotonic() + length)
            holder.execute("rollback")
            holder.close()
            job.wait(60)
            waited[length] = {"degraded": said, "client": code}
            problems += [
                *([f"{length} s: {job.counts}"] if job.counts.completed != 200 else []),
                *([f"{length} s: degraded {said}"] if (said == "locked") != (length > 7) else []),
                *([f"{length} s: the client left with {code}"] if code != (5 if length > 12 else 0) else []),
            ]
    runs = app.store.read(lambda c: c.execute("select max(attempt) from job_items").fetchone()[0])
    problems += [*([f"an item ran {runs} times"] if runs != 1 else []), *broken(app)]
    app.close()
    return {"held": waited, "problems": problems}


def _while_held(app: Jobd, daemon: Any, until: float) -> tuple[str | None, int]:
    """Look on, and submit from another process, until the time comes; return what the daemon said and how that left."""
    client = subprocess.Popen(
        [sys.executable, "-m", "jobd", "--db", app.path, "submit", "echo", "by a client"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
    )
    said = None
    while time.monotonic() < until:
        said = said or daemon.degraded
        app.jobs(limit=5)
        time.sleep(0.05)
    # It waits on where the lock was held for less than its patience.
    return said, client.poll() if client.poll() is not None else 0


# -- what they share ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def traced() -> Iterator[list[str]]:
    """Give every statement by which a connection of this process checkpoints, or would by itself."""
    seen: list[str] = []
    real = Connections._open_once  # noqa: SLF001 - looked on, not replaced

    def note(statement: str) -> None:
        if statement.lower().startswith("pragma wal_checkpoint"):
            seen.append(statement.lower())

    def connect(connections: Connections) -> sqlite3.Connection:
        connection = real(connections)
        if pages := connection.execute("pragma wal_autocheckpoint").fetchone()[0]:
            seen.append(f"an automatic checkpoint each {pages} pages")
        connection.set_trace_callback(note)
        return connection

    Connections._open_once = connect  # noqa: SLF001 - as above
    try:
        yield seen
    finally:
        Connections._open_once = real  # noqa: SLF001 - as above


class Clients:
    """Processes that do one thing to a database for so many seconds."""

    def __init__(self, what: str, path: str, seconds: float, count: int) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, f"--{what}", path, str(seconds)], stdout=subprocess.PIPE, env=_ENVIRONMENT
            )
            for _ in range(count)
        ]
        self._seconds = seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def reports(self) -> list[dict[str, Any]]:
        """Return what each has to say at its end."""
        said = [process.communicate(timeout=self._seconds + 120)[0] for process in self._processes]
        return [json.loads(text) if text else {"errors": ["a client died"]} for text in said]


def at(ordered: Sequence[float], share: float) -> float:
    """Return a percentile in ms, 0 of none."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) if ordered else 0.0


def broken(app: Jobd) -> list[str]:
    return [f"{check.name}: {check.text}" for check in app.doctor().checks if check.level == "broken"]


# -- what a client does ------------------------------------------------------------------------------------------------


def write(path: str, seconds: float) -> dict[str, Any]:
    """Submit, and now and then pause for a moment; return how long each write took, in seconds."""
    app, chance = Jobd(path), random.Random(os.getpid())  # noqa: S311 - which write is next
    writes, errors, until = [], [], time.monotonic() + seconds
    with traced() as checkpoints:
        _write(app, chance, writes, errors, until)
    return {"writes": writes, "errors": errors, "checkpoints": checkpoints}


def _write(app: Jobd, chance: random.Random, writes: list[float], errors: list[str], until: float) -> None:
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            job = app.submit("nothing", [len(writes)])
            writes.append(time.perf_counter() - began)
            if chance.random() < 0.1:
                began = time.perf_counter()
                job.pause()
                writes.append(time.perf_counter() - began)
                job.unpause()
        except JobdError as error:
            # A job that has ended meanwhile is no longer to be paused.
            if error.exit_code != 4:
                errors.append(f"{type(error).__name__}: {error}")
        except sqlite3.Error as error:
            errors.append(f"{type(error).__name__}: {error}")


def insert(path: str, seconds: float) -> dict[str, Any]:
    """Write rows of any size and read them again, over a connection that is opened anew now and then."""
    store, chance = SqliteStore(path), random.Random(os.getpid())  # noqa: S311 - how large a row is
    names, errors, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        name, size = f"{os.getpid()}-{len(names)}", chance.randrange(10, 9_000)
        row = (name, json.dumps("x" * size))
        try:
            store.write(lambda c, row=row: c.execute("insert into passes (name, report) values (?, ?)", row))
            names.append(name)
            store.read(lambda c: c.execute("select max(length(report)) from passes").fetchone())
        except (JobdError, sqlite3.Error) as error:
            errors.append(f"{type(error).__name__}: {error}")
        if chance.random() < 0.01:
            store.close()
    return {"names": names, "errors": errors}


PARTS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"writers": writers, "wal-reset": wal_reset, "held": held}
CLIENTS: Final = {"--write": write, "--insert": insert}


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in CLIENTS:
        print(json.dumps(CLIENTS[arguments[0]](arguments[1], float(arguments[2]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--held", default="3,8,60", help="for how many seconds the lock is held elsewhere")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wrong = 0
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            settings = (
                {"lengths": [float(length) for length in given.held.split(",")]}
                if part == "held"
                else {"seconds": given.seconds, "clients": given.clients}
            )
            found = PARTS[part](Path(folder), **settings)
        wrong += bool(found["problems"] or found.get("slow"))
        print(json.dumps({"part": part, **settings, **found}), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
