"""What else runs items than threads, and who waits for whom."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING

from limits import SHORT
from measure import pause, timed
from speed import WORKERS, fresh, texts, until_ended

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Scale

    from jobd import Jobd

_LATE = 3  # items of the job that comes later


async def nothing_awaited(_number: object) -> None:
    await asyncio.sleep(0)


def awaiting(folder: Path, scale: Scale) -> dict[str, float]:
    """Async handlers that await once and do nothing: what one of them costs."""
    app = fresh(folder / "awaiting.db")
    app.task(nothing_awaited)
    took = []
    with app.daemon(workers=WORKERS):
        app.submit("nothing_awaited", texts(5)).wait()
        for _ in range(scale.repeats):
            job = app.submit("nothing_awaited", texts(scale.many))
            took.append(timed(lambda: until_ended(app, job.id)))  # noqa: B023 - called in this turn
    return {"async-items": scale.many / median(took)}


def late(folder: Path, scale: Scale) -> dict[str, float]:
    """A small job beside one that keeps every worker busy: from before submit() to its first handler's first line."""
    app = fresh(folder / "late.db")
    app.task(lambda _number: time.sleep(SHORT), name="short")
    app.task(lambda _number: time.monotonic(), name="clock")
    with app.daemon(workers=WORKERS):
        app.submit("short", texts(scale.restart))
        taken = [_start_of_a_small_job(app) for _ in range(max(5, scale.latencies // 10))]
    return {"late-p50": median(taken), "late-worst": max(taken)}


def _start_of_a_small_job(app: Jobd) -> float:
    pause()
    began = time.monotonic()
    job = app.submit("clock", texts(_LATE)).wait(timeout=60)
    return (min(result.value for result in job.results()) - began) * 1000
