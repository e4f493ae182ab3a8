"""One job of a million items: the last of them cost what the first ones did, and memory does not follow their number.

What is left of the items is looked at by tenths of the run. A pace is items per second of the draining process's own
processor time, which other programs of the machine leave alone; that of the clock is told beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
from report import Told

from jobd import Jobd
from jobd.states import JOB_ENDS

if TYPE_CHECKING:
    from pathlib import Path

_WORKERS: Final = 4
_PARTS: Final = 10
_WITHIN: Final = 0.2
_MB: Final = 1_000_000
_LOOK: Final = 0.05  # seconds


class Tenth(NamedTuple):
    """When a tenth of the items had ended: the clock's seconds, the processor's, and the memory in MB."""

    at: float
    used: float
    memory: float


def run(folder: Path, seed: int, *, out: Path, items: int) -> Told:  # noqa: ARG001 - there is no chance in it
    """Submit so many in a process, drain them in another one, and compare the ends of its life."""
    command = [sys.executable, __file__, str(folder / "jobs.db"), str(items)]
    subprocess.run([*command, "submit"], check=True)
    ended = subprocess.run([*command, "drain"], check=True, stdout=subprocess.PIPE, text=True)
    return judge([Tenth(*one) for one in json.loads(ended.stdout)], items)


def judge(tenths: list[Tenth], items: int) -> Told:
    """Compare two tenths of the items with the last two.

    The first tenth is left out of the pace: its process imports, connects, and finds the size of its claims.
    """
    size = items / _PARTS
    first, second, last, end = tenths[0], tenths[2], tenths[-3], tenths[-1]
    pace = [2 * size / (second.used - first.used), 2 * size / (end.used - last.used)]
    clock = [2 * size / (second.at - first.at), 2 * size / (end.at - last.at)]
    wrong = []
    if pace[1] < (1 - _WITHIN) * pace[0]:
        wrong.append(f"the pace fell from {pace[0]:.0f} to {pace[1]:.0f} items a second of processor time")
    if end.memory > (1 + _WITHIN) * first.memory:
        wrong.append(f"memory grew from {first.memory:.1f} to {end.memory:.1f} MB")
    figures = {
        "items": items,
        "items per processor second, first": pace[0],
        "last": pace[1],
        "items/s, first": clock[0],
        "items/s, last": clock[1],
        "memory MB, first": first.memory,
        "memory MB, last": end.memory,
    }
    return Told(figures, wrong)


def _drain(app: Jobd, items: int) -> list[Tenth]:
    (job,) = app.jobs(limit=1)
    process, began = psutil.Process(), time.monotonic()
    tenths: list[Tenth] = []
    with app.daemon(workers=_WORKERS):
        while len(tenths) < _PARTS:
            time.sleep(_LOOK)
            completed = job.refresh().counts.completed
            if job.status in JOB_ENDS and completed < items:
                sys.exit(f"the job ended as {job.status} with {completed:,} of {items:,} items completed")
            while len(tenths) < _PARTS and completed >= items * (len(tenths) + 1) // _PARTS:
                used = process.cpu_times()
                now = time.monotonic() - began
                tenths.append(Tenth(now, used.user + used.system, process.memory_info().rss / _MB))
    return tenths


def main(database: str, items: str, role: str) -> None:
    """Be one of the two processes."""
    app = Jobd(database)
    app.task(lambda _: None, name="nothing")
    if role == "submit":
        app.submit("nothing", range(int(items)))
    else:
        print(json.dumps(_drain(app, int(items))))
    app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
