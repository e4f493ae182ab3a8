"""Eight processes that write beside a daemon that drains: whether each gets its turn, and who checkpoints how."""

from __future__ import annotations

import collections
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from report import Told, percentile

from jobd import Jobd, JobdError

_CLIENTS: Final = 8
_MOST_MS: Final = 250
_AHEAD: Final = 2_000


def run(folder: Path, seed: int, *, out: Path, seconds: float) -> Told:  # noqa: ARG001 - the machine's load is the chance
    """Write from eight processes for so many seconds while a ninth drains what they write, and more."""
    database, stop = str(folder / "jobs.db"), folder / "stop"
    Jobd(database).writing()
    roles = ["drain", *["write"] * _CLIENTS]
    command = [sys.executable, __file__, database, str(stop)]
    processes = [subprocess.Popen([*command, role], stdout=subprocess.PIPE, text=True) for role in roles]
    time.sleep(seconds)
    stop.touch()
    drained, *written = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    writes = [1000 * one for report in written for one in report["writes"]]
    errors = collections.Counter(error for report in (drained, *written) for error in report["errors"])
    wrong = [f"{count} times: {error}" for error, count in errors.items()]
    checkpoints = collections.Counter(one for report in (drained, *written) for one in report["checkpoints"])
    wrong += [f"{count} times: {statement}" for statement, count in checkpoints.items() if statement not in _ALLOWED]
    wrong += ["a client checkpointed" for report in written if any(one == _TRUNCATE for one in report["checkpoints"])]
    wrong += ["a connection checkpoints by itself" for report in (drained, *written) if report["automatic"]]
    p99 = percentile(writes, 0.99)
    if p99 >= _MOST_MS:
        wrong.append(f"p99 of a write was {p99:.0f} ms")
    figures = {
        "clients": _CLIENTS,
        "writes/s": len(writes) / seconds,
        "p50 ms": percentile(writes, 0.5),
        "p99 ms": p99,
        "longest ms": max(writes, default=0.0),
        "drained/s": drained["drained"] / seconds,
        "checkpoints": checkpoints[_TRUNCATE],
    }
    return Told(figures, wrong)


_TRUNCATE: Final = "pragma wal_checkpoint(truncate)"
_NEVER_BY_ITSELF: Final = "pragma wal_autocheckpoint=0"
_ALLOWED: Final = {_TRUNCATE, _NEVER_BY_ITSELF}


class Traced:
    """Every statement of this process that speaks of checkpoints, and connections that would checkpoint unasked."""

    def __init__(self) -> None:
        self.checkpoints: list[str] = []
        self._connections: list[sqlite3.Connection] = []
        self._connect = sqlite3.connect
        sqlite3.connect = self._watched  # type: ignore[assignment]

    def _watched(self, *arguments: object, **settings: object) -> sqlite3.Connection:
        connection = self._connect(*arguments, **settings)  # type: ignore[call-overload]
        connection.set_trace_callback(self._note)
        if "mode=rw" in str(arguments[0]):
            self._connections.append(connection)
        return connection

    def _note(self, statement: str) -> None:
        if statement.lower().startswith("pragma") and "checkpoint" in statement.lower():
            self.checkpoints.append(statement.lower())

    def automatic(self) -> int:
        """Count the open connections that would checkpoint by themselves."""
        found = 0
        for connection in self._connections:
            try:
                connection.set_trace_callback(None)
                found += connection.execute("pragma wal_autocheckpoint").fetchone()[0] != 0
            except sqlite3.Error:
                continue  # closed, or another thread's
        return found


def _write(app: Jobd, stop: Path) -> dict[str, object]:
    writes, errors = [], []
    while not stop.exists():
        began = time.perf_counter()
        try:
            app.submit("work", [len(writes)])
        except JobdError as error:
            errors.append(f"{type(error).__name__}: {error}")
        writes.append(time.perf_counter() - began)
    return {"writes": writes, "errors": errors}


def _drain(app: Jobd, stop: Path) -> dict[str, object]:
    """Keep more in the queue than can be run, so that the daemon never rests."""
    errors: list[str] = []

    def completed() -> int:
        row = app.store.read(lambda c: c.execute("select coalesce(sum(items_completed), 0) from jobs").fetchone())
        return int(row[0])

    with app.daemon(workers=4):
        job = app.submit("work", range(_AHEAD), key="ahead")
        size = _AHEAD
        while not stop.exists():
            try:
                if job.refresh().counts.queued < _AHEAD // 2:
                    size += _AHEAD
                    app.submit("work", range(size - _AHEAD, size), key="ahead")
            except JobdError as error:
                errors.append(f"{type(error).__name__}: {error}")
            time.sleep(0.02)
        drained = completed()
    return {"drained": drained, "errors": errors}


def main(database: str, stop: str, role: str) -> None:
    """Be one of the processes, and print what it has seen."""
    traced, app = Traced(), Jobd(database)
    app.task(lambda number: number, name="work")
    report = (_drain if role == "drain" else _write)(app, Path(stop))
    print(json.dumps({**report, "checkpoints": traced.checkpoints, "automatic": traced.automatic()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
