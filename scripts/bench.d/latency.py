"""From before submit() to the handler's first line, while the store is idle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from measure import pause, percentile
from processes import daemon

from jobd import Jobd

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Scale

_WARM: Final = 5


def here(folder: Path, scale: Scale) -> dict[str, float]:
    app = Jobd(folder / "here.db")
    app.task(lambda _number: time.monotonic(), name="clock")
    with app.daemon(workers=4):
        return _latencies(app, "here", scale)


def there(folder: Path, scale: Scale) -> dict[str, float]:
    path = folder / "there.db"
    with daemon(path):
        return _latencies(Jobd(path), "there", scale)


def _latencies(app: Jobd, name: str, scale: Scale) -> dict[str, float]:
    # One clock for both ends, in two processes too: on Linux and macOS it counts from the machine's start.
    submitted = []
    for number in range(scale.latencies + _WARM):
        pause()
        began = time.monotonic()
        submitted.append((app.submit("clock", [number]), began))
    submitted[-1][0].wait(timeout=10)
    taken = [(next(job.results()).value - began) * 1000 for job, began in submitted[_WARM:]]
    return {f"{name}-p50": percentile(taken, 0.5), f"{name}-p99": percentile(taken, 0.99)}
