"""From before submit() to the handler's first line, while the store is idle."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from measure import percentile
from processes import daemon

from jobd import Jobd

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Scale

# Long enough that everything sleeps again, uneven so that no beat of the daemon's is met each time or never.
_PAUSE: Final = (0.01, 0.03)
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
        time.sleep(random.uniform(*_PAUSE))  # noqa: S311 - no secret
        began = time.monotonic()
        submitted.append((app.submit("clock", [number]), began))
    submitted[-1][0].wait(timeout=10)
    taken = [(next(job.results()).value - began) * 1000 for job, began in submitted[_WARM:]]
    return {f"{name}-p50": percentile(taken, 0.5), f"{name}-p99": percentile(taken, 0.99)}
