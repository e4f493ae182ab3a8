"""Submitting and draining: many items of one job, many jobs of one item, short items on many threads."""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import TYPE_CHECKING, Final

from limits import SHORT, THREADS, ideal
from measure import timed

from jobd import Jobd
from jobd.store.transitions import OPEN

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Scale

WORKERS: Final = 4
# By the index of what is open: left to itself the planner passes over everything that has ended.
_OPEN: Final = f"select exists (select 1 from jobs indexed by jobs_open where {OPEN} and id <= ?)"
_ENDED: Final = "select count(*) from jobs where status = 'completed' and completed_at is not null"
# The poller takes the interpreter's lock from those it watches: rarely enough not to weigh, often enough to be exact.
_LOOK: Final = 0.005
_PATIENCE: Final = 120.0


def nothing(_number: object) -> None:
    pass


def fresh(path: Path) -> Jobd:
    """Return an app with the task that does nothing and a file that is there already."""
    app = Jobd(path)
    app.task(nothing)
    app.writing()
    return app


def texts(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def until_ended(app: Jobd, last: int) -> None:
    """Wait until every job up to the id ``last`` has ended."""
    store, until = app.store, time.monotonic() + _PATIENCE
    while store.read(lambda connection: connection.execute(_OPEN, (last,)).fetchone()[0]):
        if time.monotonic() > until:
            raise TimeoutError(f"jobs are open after {_PATIENCE:.0f} s")
        time.sleep(_LOOK)


def ended(app: Jobd) -> int:
    """Return how many jobs have completed."""
    return int(app.store.read(lambda connection: connection.execute(_ENDED).fetchone()[0]))


def submit(folder: Path, scale: Scale) -> dict[str, float]:
    many, one, four = [], [], []
    for turn in range(scale.repeats):
        app = fresh(folder / f"submit{turn}.db")
        items = texts(scale.many)
        many.append(scale.many / timed(lambda: app.submit("nothing", items)))  # noqa: B023 - called in this turn
        one.append(scale.singles / timed(lambda: submit_one_by_one(app, scale.singles)))  # noqa: B023 - the same
        four.append(4 * scale.singles / timed(lambda: _submit_at_once(app, scale.singles)))  # noqa: B023 - the same
    return {"submit-many": median(many), "submit-one": median(one), "submit-four": median(four)}


def submit_one_by_one(app: Jobd, count: int) -> None:
    for number in range(count):
        app.submit("nothing", [number])


def _submit_at_once(app: Jobd, count: int) -> None:
    threads = [threading.Thread(target=submit_one_by_one, args=(app, count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def drain(folder: Path, scale: Scale) -> dict[str, float]:
    items, jobs = [], []
    for turn in range(scale.repeats):
        app = fresh(folder / f"items{turn}.db")
        with app.daemon(workers=WORKERS):
            app.submit("nothing", texts(5)).wait()
            job = app.submit("nothing", texts(scale.many))
            items.append(scale.many / timed(lambda: until_ended(app, job.id)))  # noqa: B023 - called in this turn
        jobs.append(_drain_jobs(fresh(folder / f"jobs{turn}.db"), scale.many))
    return {"drain-items": median(items), "drain-jobs": median(jobs)}


def _drain_jobs(app: Jobd, count: int) -> float:
    """Return the pace of jobs of one item that were there before the daemon, from when that runs."""
    submit_one_by_one(app, count)
    with app.daemon(workers=WORKERS):
        began = time.perf_counter()
        left = count - ended(app)
        until_ended(app, count)
        return left / (time.perf_counter() - began)


def short(folder: Path, scale: Scale) -> dict[str, float]:
    app = fresh(folder / "short.db")
    app.task(lambda _number: time.sleep(SHORT), name="short")
    took = []
    with app.daemon(workers=THREADS):
        app.submit("short", texts(THREADS)).wait()
        for _ in range(scale.repeats):
            job = app.submit("short", texts(scale.short))
            took.append(timed(lambda: until_ended(app, job.id)))  # noqa: B023 - called in this turn
    return {"short": median(took) / ideal(scale)}
