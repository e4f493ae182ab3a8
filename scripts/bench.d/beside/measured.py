"""One work of one peer, in a process of its own: python -m beside.measured WORK PEER FOLDER SCALE.

The figures are the last line it prints, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from measure import pause, percentile, timed

from beside import units
from beside.roster import BY_ID

if TYPE_CHECKING:
    from beside.peer import Peer
    from beside.roster import Entry

WORKERS: Final = 4
THREADS: Final = 16
_WARM: Final = 5
_FEWEST: Final = 50


class Scale(NamedTuple):
    """How much of everything, for a peer whose share is all of it."""

    many: int = 10_000
    singles: int = 1_000
    latencies: int = 60
    short: int = 2_000
    kills: int = 20  # how often each peer is killed
    killed: int = 500  # the units of such a round

    def of(self, count: int, share: float) -> int:
        return min(count, max(_FEWEST, int(count * share)))


SCALES: Final = {
    "full": Scale(),
    "quick": Scale(many=100, singles=20, latencies=5, short=32, kills=2, killed=60),
}


def submit(entry: Entry, folder: Path, scale: Scale) -> dict[str, float]:
    found = {}
    queue = _opened(entry, folder)
    if queue.submits_one:
        numbers = range(scale.of(scale.singles, entry.share))
        queue.submit(range(_WARM))
        found["submit-one"] = len(numbers) / timed(lambda: queue.submit(numbers))
    if queue.submits_many:
        found["submit-many"] = scale.many / timed(lambda: queue.submit_many(range(scale.many)))
    return found


def drain(entry: Entry, folder: Path, scale: Scale) -> dict[str, float]:
    count = scale.of(scale.many, entry.share)
    return {"drain": count / _opened(entry, folder).drained(range(count), WORKERS, 0.0)}


def short(entry: Entry, folder: Path, scale: Scale) -> dict[str, float]:
    count = scale.of(scale.short, entry.share)
    ideal = count * units.SHORT / THREADS
    return {"short": _opened(entry, folder).drained(range(count), THREADS, units.SHORT) / ideal}


def start(entry: Entry, folder: Path, scale: Scale) -> dict[str, float]:
    """From before a unit is submitted to its first line, on an idle store, in one process."""
    if entry.package == "parallel":
        return {}
    queue, starts = _opened(entry, folder), units.Starts()
    units.use(starts)
    taken = []
    with queue.working(WORKERS):
        for number in range(scale.latencies + _WARM):
            pause()
            began = time.perf_counter()
            queue.fill([number])
            taken.append((starts.of(number) - began) * 1000)
    return {"start-p50": percentile(taken[_WARM:], 0.5), "start-p99": percentile(taken[_WARM:], 0.99)}


def _opened(entry: Entry, folder: Path) -> Peer:
    return entry.load()(folder)


WORKS: Final = {"submit": submit, "drain": drain, "start": start, "short": short}


def main(work: str, peer: str, folder: str, scale: str) -> None:
    print(json.dumps(WORKS[work](BY_ID[peer], Path(folder), SCALES[scale])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
