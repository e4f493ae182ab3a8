"""The whole from outside: its health, and its figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from jobd.engine.passes import PASSES
from jobd.maintenance import health as health_
from jobd.maintenance.beats import Beat, passes
from jobd.store import stats as stats_
from jobd.store import vitals
from jobd.store.stats import Tally
from jobd.store.views import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.config import Settings
    from jobd.maintenance.beats import PassHealth
    from jobd.maintenance.health import Health
    from jobd.store import SqliteStore
    from jobd.store.stats import Stats, TaskStats
    from jobd.store.views import Runner


def health(store: SqliteStore, settings: Settings, runner: Runner, *, now: int) -> Health:
    """Look at the whole as ``runner`` (who runs items, by the lock's word) leaves it; nothing is changed.

    Raises: what :func:`jobd.maintenance.health.examine` raises.
    """
    effective = _effective(settings, runner)
    return health_.examine(
        store,
        runner=runner,
        heartbeat=effective["heartbeat"],
        beats={name: effective[found.every] for name, found in PASSES.items() if found.every is not None},
        stall_after=effective["stall_after"],
        now=now,
    )


class Overview(NamedTuple):
    """The figures at ``at`` (Unix ms) of every task, or of one; what is recent lies within ``window`` (seconds)."""

    database: str
    at: int
    window: float
    found: Stats
    settings: Mapping[str, Any]
    passes: tuple[PassHealth, ...]
    runner: Runner

    @property
    def tasks(self) -> tuple[TaskStats, ...]:
        """The tasks by name."""
        return self.found.tasks

    @property
    def active(self) -> Tally:
        """Open jobs by how they stand, and their open items by status."""
        return _together(one.active for one in self.tasks)

    @property
    def recent(self) -> Tally:
        """Jobs that ended within the window, and the ended items of these and of open ones."""
        return _together(one.recent for one in self.tasks)

    def json(self) -> dict[str, Any]:
        runner = self.runner
        moved = runner.state.get("moved") if runner.alive else None
        return {
            "database": self.database,
            "at": iso(self.at),
            "window_seconds": self.window,
            "complete": self.found.complete,
            "active": _tally(self.active),
            "recent": {**_tally(self.recent), "success_rate": success_rate(self.recent)},
            "tasks": [_task(one) for one in self.tasks],
            "settings": dict(self.settings),
            "passes": [one.json() for one in self.passes],
            "daemon": {
                "alive": runner.alive, "id": runner.id, "pid": runner.pid, "started_at": iso(runner.started_at),
                "moved": moved,
            },
        }  # fmt: skip


def stats(  # noqa: PLR0913 - what is looked at, by which settings, for which span
    store: SqliteStore, settings: Settings, runner: Runner, *, task: str | None, window: float, now: int
) -> Overview:
    """Return the figures; of a task that nothing is known of they are empty.

    Raises:
        StoreBusy: the database cannot be read now.
    """
    effective = _effective(settings, runner)
    beats = [
        Beat(name, int(effective[found.every] * 1000)) for name, found in PASSES.items() if found.every is not None
    ]
    return Overview(
        database=store.path,
        at=now,
        window=window,
        found=stats_.stats(store, since=now - int(window * 1000), task=task),
        settings=effective,
        passes=passes(vitals.vitals(store).passes, beats, runner=runner, now=now),
        runner=runner,
    )


def success_rate(tally: Tally) -> float | None:
    """Return the share of items that completed among those that completed or failed; None where none has."""
    completed, failed = tally.items.get("completed", 0), tally.items.get("failed", 0)
    return round(completed / (completed + failed), 4) if completed + failed else None


def _together(tallies: Iterable[Tally]) -> Tally:
    jobs: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for tally in tallies:
        jobs.update(tally.jobs)
        items.update(tally.items)
    return Tally(jobs, items)


def _tally(tally: Tally) -> dict[str, dict[str, int]]:
    return {"jobs": dict(tally.jobs), "items": dict(tally.items)}


def _task(one: TaskStats) -> dict[str, Any]:
    return {
        "task": one.task, "active": _tally(one.active), "recent": _tally(one.recent),
        "success_rate": success_rate(one.recent), "p50_ms": one.p50_ms, "p95_ms": one.p95_ms, "samples": one.samples,
    }  # fmt: skip


def _effective(settings: Settings, runner: Runner) -> dict[str, Any]:
    """Return the settings that count: the live daemon's own, where it has said them."""
    said = runner.state.get("settings") if runner.alive else None
    return {**asdict(settings), **(said if isinstance(said, dict) else {})}
