"""How much may be claimed ahead of a free slot: 50 ms of work at each task's own measured pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AHEAD: Final = 0.05
_WEIGHT: Final = 0.3
_FASTEST: Final = 2e-6


class Pace:
    """Seconds that one item of a task takes, as a moving average. Unknown until the first of them has ended."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def observe(self, ended: Iterable[tuple[str, float]]) -> None:
        """Take ended attempts into account: the mean of each task's, as (task, seconds)."""
        sums: dict[str, list[float]] = {}
        for task, seconds in ended:
            entry = sums.setdefault(task, [0.0, 0])
            entry[0] += seconds
            entry[1] += 1
        for task, (total, count) in sums.items():
            mean = total / count
            known = self._seconds.get(task, mean)
            self._seconds[task] = max(known + (mean - known) * _WEIGHT, _FASTEST)

    def known(self, task: str) -> bool:
        """Say whether an attempt of ``task`` has ended."""
        return task in self._seconds

    def room(self, task: str, slots: int, in_flight: Mapping[str, int]) -> int:
        """Return how many more items of ``task`` fit into 50 ms of ``slots`` workers, behind what is in flight."""
        total = sum(in_flight.values())
        if task not in self._seconds:
            return 0
        behind = max(0, total - slots)
        # What is in the slots is not ahead of them; of the rest each counts with its own task's pace.
        waiting = sum(count * self._seconds.get(name, AHEAD) for name, count in in_flight.items())
        budget = AHEAD * slots - (waiting * behind / total if total else 0.0)
        return max(0, int(budget / self._seconds[task]))
