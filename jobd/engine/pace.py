"""How much may be claimed ahead of a free slot: 50 ms of work at each task's own measured pace.

A slot turns over while what runs in it is quick: it ends within 50 ms. What is not quick, or was never seen, holds its
slot; so many of it are claimed as there are slots that turn over, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AHEAD: Final = 0.05
_WEIGHT: Final = 0.3
_FASTEST: Final = 2e-6


class Pace:
    """Seconds that one item of a task takes, as a moving average. Unknown until the first of them has ended.

    ``ahead`` is in seconds; with 0 no slot ever counts as quick, and nothing is claimed ahead.
    """

    def __init__(self, ahead: float = AHEAD) -> None:
        self._ahead = ahead
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

    def quick(self, task: str) -> bool:
        """Say whether an item of ``task`` is known to end within 50 ms."""
        return self._seconds.get(task, float("inf")) <= self._ahead

    def room(self, task: str, slots: int, in_flight: Mapping[str, int]) -> int:
        """Return how many more items of ``task`` may be claimed for ``slots`` workers, behind what is in flight."""
        quick = {name: count for name, count in in_flight.items() if count and self.quick(name)}
        total = sum(quick.values())
        turning = slots - (sum(in_flight.values()) - total)
        if turning <= 0 or not self.quick(task):
            return max(0, turning)
        # What is in the slots is not ahead of them; of the rest each counts with its own task's pace.
        waiting = sum(count * self._seconds[name] for name, count in quick.items())
        behind = max(0, total - turning)
        whole = self._ahead * turning
        line = waiting * behind / total if total else 0.0
        # One claim for many: item by item each would cost as much as the whole of its settlement.
        return 0 if line > whole / 2 else int((whole - line) / self._seconds[task])
