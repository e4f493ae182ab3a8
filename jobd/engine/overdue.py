"""Attempts that are given up: past their task's own ``timeout``, or of a job that has timed out.

An attempt's time is awake time from its real start, and looked at only when the first of them may be over: where no
task has a time-out it costs nothing.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from jobd.policy import COMMAND
from jobd.store.outcome import INTERRUPTED, OVERDUE, TIMED_OUT
from jobd.store.wording import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobd.engine.runner import Attempt
    from jobd.maintenance.time_out import Hung
from jobd.store.outcome import Outcome

NEVER: Final = float("inf")


class Overdue:
    """Says which attempts of ``registry`` are given up. ``next`` is the awake time at which to look again."""

    def __init__(self, registry: Mapping[int, Attempt]) -> None:
        self.next = NEVER
        self._registry = registry
        self._hung: collections.deque[Hung] = collections.deque()

    def handed(self, attempts: Iterable[Attempt], awake: float) -> None:
        """Take note of attempts that begin now or later."""
        seen = None
        for attempt in attempts:
            # They come by hundreds of one job, and what this says is the same for all of them.
            if seen == (alike := (attempt.task, attempt.claimed.policy)):
                continue
            seen = alike
            timeout = _timeout(attempt)
            if timeout is not None and awake + timeout < self.next:
                self.next = awake + timeout

    def interrupt(self, hung: Iterable[Hung]) -> None:
        """Give these up at the next look; from any thread."""
        self._hung.extend(hung)

    def stood(self, seconds: float) -> None:
        """Give what runs the time in which this process could not run it."""
        self.next += seconds
        for attempt in self._registry.values():
            if attempt.started:
                attempt.began += seconds

    def due(self, awake: float) -> bool:
        """Say whether there is something to look at."""
        return awake >= self.next or bool(self._hung)

    def outcomes(self, awake: float, now: int) -> list[tuple[Attempt, Outcome]]:
        """Return an outcome for each attempt that is given up; ``now`` is in Unix ms."""
        found = []
        while self._hung:
            item_id, number, why = self._hung.popleft()
            attempt = self._registry.get(item_id)
            # One that has ended since waits to be settled, by its own outcome.
            if attempt is not None and attempt.claimed.attempt == number and _runs(attempt):
                found.append((attempt, attempt.outcome(INTERRUPTED, attempt.began_at, now, error=why)))
        if awake >= self.next:
            given_up = {id(attempt) for attempt, _ in found}
            found += [
                (attempt, _timed_out(attempt, now)) for attempt in self._look(awake) if id(attempt) not in given_up
            ]
        return found

    def _look(self, awake: float) -> list[Attempt]:
        self.next = NEVER
        overdue = []
        for attempt in self._registry.values():
            timeout = _timeout(attempt)
            if timeout is None or attempt.collected:
                continue
            due = (attempt.began if attempt.started else awake) + timeout
            if due <= awake:
                overdue.append(attempt)
            else:
                self.next = min(self.next, due)
        return overdue


def _timeout(attempt: Attempt) -> float | None:
    # A command's own guard ends it in time, and still tells what it has printed.
    return None if attempt.policy.isolation == COMMAND else attempt.policy.timeout


def _runs(attempt: Attempt) -> bool:
    return attempt.started and not attempt.collected


def _timed_out(attempt: Attempt, now: int) -> Outcome:
    policy = attempt.policy
    words = seconds(policy.timeout or 0.0)
    at = max(now, attempt.began_at)
    outcome = attempt.outcome(TIMED_OUT, attempt.began_at, at, f"timed out after {words}")._replace(
        error_type="TimeOut"
    )
    wait = policy.retry_in(attempt.claimed.failures) if policy.retries_on(TimeoutError) else None
    return outcome if wait is None else outcome._replace(kind=OVERDUE, available_at=at + int(wait * 1000))
