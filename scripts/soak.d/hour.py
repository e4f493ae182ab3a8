"""An hour of an ordinary life: eight writers, 50 items a second, 100 jobs at once, and a reader that pins the log.

Memory, threads, descriptors, the log's size and how long writes take are looked at all along; a slope is what they gain
in an hour, by least squares, without the first tenth.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import psutil
from report import Told, percentile

from jobd import Jobd, JobdError

_WRITERS: Final = 8
_RATE: Final = 50.0
# Besides what the writers submit, so many jobs have one item in flight each, all the time.
_AT_ONCE: Final = 100
_ITEM_SECONDS: Final = 4.0
_MB: Final = 1_000_000
_WAL_MB: Final = 16.0
_SLOPE_MB: Final = 1.0
_RUNNING: Final = "select count(*) from jobs where status = 'running' and task = 'linger'"
# Of an hour a reader pins the log for five minutes, half a minute at a time.
_PINS: Final = 10
_PINNED: Final = 1 / 120


class Sample(NamedTuple):
    """How the daemon was at one moment: ``at`` in seconds, ``p99`` in ms of the writes since the last one.

    ``running`` counts those of the hundred jobs that run.
    """

    at: float
    memory_mb: float
    threads: int
    descriptors: int
    wal_mb: float
    p99: float
    pinned: bool
    running: int


def run(folder: Path, seed: int, *, out: Path, seconds: float) -> Told:  # noqa: ARG001 - the machine's load is the chance
    """Live so long; write samples and plot to ``out``."""
    database = folder / "jobs.db"
    app = Jobd(database)
    app.writing()
    for number in range(_AT_ONCE):
        app.submit("linger", range(int(seconds / _ITEM_SECONDS) + 10), key=f"one of many {number}", concurrency=1)
    names = ["drain", *(f"write {number}" for number in range(_WRITERS)), "pin"]
    command = [sys.executable, __file__, str(database), str(seconds)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([*command, *name.split()], stdout=subprocess.PIPE, text=True))
            for name in names
        ]
        samples = _watch(app, psutil.Process(processes[0].pid), folder, seconds)
        (folder / "stop").touch()
        reports = [json.loads(process.communicate(timeout=120)[0] or "{}") for process in processes]
    lingered = sum(job.counts.completed for job in app.jobs(task="linger", limit=_AT_ONCE))
    app.close()
    (out / "hour-samples.json").write_text(json.dumps([sample._asdict() for sample in samples]))
    with contextlib.suppress(ImportError):
        import plot  # noqa: PLC0415 - in an environment without it the figures are told all the same

        plot.hour([sample._asdict() for sample in samples], out / "hour.png")
    return _judge(samples, reports, seconds, lingered)


def _watch(app: Jobd, daemon: psutil.Process, folder: Path, seconds: float) -> list[Sample]:
    samples, began, read = [], time.monotonic(), [0] * _WRITERS
    while (at := time.monotonic() - began) < seconds:
        time.sleep(max(1.0, seconds / 720))
        writes: list[float] = []
        for number in range(_WRITERS):
            lines = _lines(folder / f"writes-{number}", read[number])
            read[number] += len(lines)
            writes += map(float, lines)
        wal = folder / "jobs.db-wal"
        samples.append(
            Sample(
                at,
                daemon.memory_info().rss / _MB,
                daemon.num_threads(),
                daemon.num_fds(),
                (wal.stat().st_size if wal.exists() else 0) / _MB,
                percentile(writes, 0.99),
                (folder / "pinned").exists(),
                app.store.read(lambda c: c.execute(_RUNNING).fetchone()[0]),
            )
        )
    return samples


def _lines(path: Path, known: int) -> list[str]:
    return path.read_text().split("\n")[known:-1] if path.exists() else []


def _judge(samples: list[Sample], reports: list[dict[str, list[str]]], seconds: float, lingered: int) -> Told:
    settled = samples[len(samples) // 10 :]
    slopes = {name: _slope(settled, name) for name in ("memory_mb", "threads", "descriptors")}
    # A checkpoint comes within a second after the reader has gone.
    free = [now.wal_mb for before, now in itertools.pairwise(samples) if not (before.pinned or now.pinned)]
    wrong = [error for report in reports for error in report.get("errors", ())]
    if max(free, default=0.0) > _WAL_MB:
        wrong.append(f"the log grew to {max(free):.0f} MB though nobody pinned it")
    at_once = min(sample.running for sample in settled)
    if at_once < _AT_ONCE:
        wrong.append(f"of {_AT_ONCE} jobs only {at_once:.0f} ran at once")
    if seconds >= 3_600:
        # In less, what a slope says is chance.
        if slopes["memory_mb"] > _SLOPE_MB:
            wrong.append(f"memory grew by {slopes['memory_mb']:.2f} MB an hour")
        wrong += [
            f"{name} grew by {slopes[name]:.1f} an hour" for name in ("threads", "descriptors") if slopes[name] > 1
        ]
    latencies = [sample.p99 for sample in samples]
    figures = {
        "items/s": sum(len(report.get("written", ())) for report in reports) / seconds,
        "jobs at once": at_once,
        "items/s of these": lingered / seconds,
        "memory MB": settled[-1].memory_mb,
        "memory MB/h": slopes["memory_mb"],
        "threads": settled[-1].threads,
        "threads/h": slopes["threads"],
        "descriptors": settled[-1].descriptors,
        "descriptors/h": slopes["descriptors"],
        "log MB": max(free, default=0.0),
        "log MB pinned": max((sample.wal_mb for sample in samples), default=0.0),
        "p99 ms, median": percentile(latencies, 0.5),
        "p99 ms, worst": max(latencies),
    }
    return Told(figures, wrong)


def _slope(samples: list[Sample], name: str) -> float:
    """Return what ``name`` gains in an hour, by least squares."""
    count = len(samples)
    at = sum(sample.at for sample in samples) / count
    mean = sum(getattr(sample, name) for sample in samples) / count
    spread = sum((sample.at - at) ** 2 for sample in samples)
    return 3_600 * sum((s.at - at) * (getattr(s, name) - mean) for s in samples) / spread if spread else 0.0


# -- the processes ----------------------------------------------------------------------------------------------------


async def _linger(number: int) -> int:
    await asyncio.sleep(_ITEM_SECONDS)
    return number


def _drain(app: Jobd, folder: Path, seconds: float) -> dict[str, list[str]]:  # noqa: ARG001 - as the others are called
    with app.daemon(workers=4):
        while not (folder / "stop").exists():
            time.sleep(0.2)
    return {}


def _write(app: Jobd, folder: Path, seconds: float, number: str) -> dict[str, list[str]]:  # noqa: ARG001 - as above
    errors, written, following = [], [], time.monotonic()
    with (folder / f"writes-{number}").open("w", buffering=1) as told:
        while not (folder / "stop").exists():
            following += _WRITERS / _RATE
            time.sleep(max(0.0, following - time.monotonic()))
            began = time.perf_counter()
            try:
                app.submit("work", [len(written)])
            except JobdError as error:
                errors.append(f"{type(error).__name__}: {error}")
            written.append("")
            told.write(f"{1000 * (time.perf_counter() - began):.3f}\n")
    return {"errors": errors, "written": written}


def _rest(folder: Path, seconds: float) -> None:
    """Sleep so long, and no longer than the others go on."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not (folder / "stop").exists():
        time.sleep(0.2)


def _pin(app: Jobd, folder: Path, seconds: float) -> dict[str, list[str]]:
    reader = sqlite3.connect(app.path, isolation_level=None)
    while not (folder / "stop").exists():
        _rest(folder, seconds / _PINS - seconds * _PINNED)
        (folder / "pinned").touch()
        reader.execute("begin")
        reader.execute("select count(*) from jobs").fetchone()
        _rest(folder, seconds * _PINNED)
        reader.execute("rollback")
        (folder / "pinned").unlink()
    return {}


def main(database: str, seconds: str, role: str, *more: str) -> None:
    """Be one of the processes, and print what it has seen."""
    app = Jobd(database, keep_completed="10m")
    app.task(lambda number: number, name="work")
    app.task(_linger, name="linger")
    roles = {"drain": _drain, "write": _write, "pin": _pin}
    print(json.dumps(roles[role](app, Path(database).parent, float(seconds), *more)))


if __name__ == "__main__":
    main(*sys.argv[1:])
