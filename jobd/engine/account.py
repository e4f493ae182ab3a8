"""What a daemon has done since it started, and by which settings: the account that its heartbeat puts into its row."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jobd.engine.passes import declared
from jobd.maintenance.report import UNANSWERED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.config import Settings
    from jobd.maintenance.report import Report
    from jobd.store.base import Store
    from jobd.tasks import Task


@dataclass
class _Ran:
    """What one pass has come to: how often it ran, what it changed in its own words, and why it failed last."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    error: str | None = None

    def json(self) -> dict[str, Any]:
        return {"runs": self.runs, "counts": dict(self.counts), "error": self.error}


class Account:
    """Of one daemon. What other daemons of this process moved before it is not its own."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        workers: int,
        tasks: Mapping[str, Task[..., object]] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._said = {"settings": asdict(settings), "workers": workers}
        self._before = dict(store.news.totals)
        self._passes: dict[str, _Ran] = {}

    def ran(self, report: Report) -> None:
        """A pass has run to its end."""
        ran = self._passes.setdefault(report.name, _Ran())
        ran.runs += 1
        # What stays is met again at every beat: it would be counted once for each.
        ran.counts.update({word: count for word, count in report.counts.items() if word != UNANSWERED})
        ran.error = None

    def failed(self, name: str, error: BaseException) -> None:
        """A pass ended with an error; its next run clears it."""
        self._passes.setdefault(name, _Ran()).error = f"{type(error).__name__}: {error}"

    def json(self) -> dict[str, Any]:
        """Return it: settings, workers, rows moved into each status since the start, what each pass came to; and which
        schedules it knows.
        """
        moved: dict[str, dict[str, int]] = {"jobs": {}, "items": {}}
        for (table, status), total in dict(self._store.news.totals).items():
            if count := total - self._before.get((table, status), 0):
                moved[table][status] = count
        passes = {name: ran.json() for name, ran in self._passes.items()}
        said = {**self._said, "moved": moved, "passes": passes}
        if names := sorted(declared(self._tasks)):
            said["schedules"] = names
        return said
