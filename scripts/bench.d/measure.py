"""One group of lines, measured in a process of its own: what one leaves behind must not weigh on the next.

Called by run.py: measure.py GROUP FOLDER SCALE. The figures are the last line it prints, as JSON.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Scale(NamedTuple):
    """How much of everything; ``idle`` is in seconds."""

    many: int = 10_000
    singles: int = 2_000
    latencies: int = 200
    short: int = 2_000
    rows: int = 1_000_000
    restart: int = 100_000
    idle: float = 10.5
    starts: int = 9
    clients: int = 8
    repeats: int = 3
    raws: int = 400
    commands: int = 1_000


SCALES: Final = {
    "full": Scale(),
    "quick": Scale(
        many=300,
        singles=40,
        latencies=10,
        short=64,
        rows=6_000,
        restart=1_500,
        idle=0.3,
        starts=1,
        clients=2,
        repeats=1,
        raws=32,
        commands=10,
    ),
}

_PAUSE: Final = (0.01, 0.03)

MODULES: Final = {
    "limits": "limits",
    "peers": "peers",
    "submit": "speed",
    "drain": "speed",
    "clients": "clients",
    "here": "latency",
    "there": "latency",
    "short": "speed",
    "warm": "warm",
    "awaiting": "flow",
    "late": "flow",
    "build": "million",
    "reading": "million",
    "commands": "commands",
    "data": "apart",
    "idle": "processes",
    "show": "processes",
    "restart": "processes",
}


def timed(function: Callable[[], object]) -> float:
    """Return how long a call takes, in seconds."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def pause() -> None:
    """Sleep for so long that everything sleeps again, and unevenly: no beat of a daemon's is met each time or never."""
    time.sleep(random.uniform(*_PAUSE))  # noqa: S311 - no secret


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of them lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main(group: str, folder: str, scale: str) -> None:
    module = importlib.import_module(MODULES[group])
    figures = getattr(module, group)(Path(folder), SCALES[scale])
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
