"""Draining while other processes write: whether everybody gets their turn at the one lock that the file has."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import percentile
from speed import WORKERS, ended, fresh, submit_one_by_one, until_ended

from jobd import Jobd, JobdError

if TYPE_CHECKING:
    from measure import Scale


def clients(folder: Path, scale: Scale) -> dict[str, float]:
    app, stop = fresh(folder / "clients.db"), folder / "stop"
    submit_one_by_one(app, scale.many)
    writers = [
        subprocess.Popen(
            [sys.executable, __file__, app.path, str(stop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(scale.clients)
    ]
    for writer in writers:
        writer.stdout.readline()
    with app.daemon(workers=WORKERS):
        began, before = time.perf_counter(), ended(app)
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        until_ended(app, scale.many)
        took, completed = time.perf_counter() - began, ended(app) - before
        stop.touch()
        reports = [json.loads(writer.communicate(timeout=60)[0]) for writer in writers]
    writes = [seconds for report in reports for seconds in report["writes"]]
    for error in {error for report in reports for error in report["errors"]}:
        print(error, file=sys.stderr)
    return {
        "clients-pace": completed / took,
        "clients-p99": percentile(writes, 0.99) * 1000,
        "clients-errors": sum(len(report["errors"]) for report in reports),
        "clients-writes": len(writes) / took,
    }


def write(database: str, stop: str) -> None:
    """Submit jobs of one item until the file ``stop`` is there, and print how long each took."""
    app, writes, errors = Jobd(database), [], []
    app.writing()
    print("ready", flush=True)
    sys.stdin.readline()
    while not Path(stop).exists():
        began = time.perf_counter()
        try:
            app.submit("nothing", [len(writes)])
        except JobdError as error:
            errors.append(f"{type(error).__name__}: {error}")
        writes.append(time.perf_counter() - began)
    print(json.dumps({"writes": writes, "errors": errors}))


if __name__ == "__main__":
    write(*sys.argv[1:])
