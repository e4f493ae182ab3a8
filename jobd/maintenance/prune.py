"""prune: what has ended goes when its time is over: whole jobs by their outcome, the values of results apart.

Nothing goes of a job that is open, being submitted or deleted, or that another job waits for. Some 2,000 jobs are asked
for at a time, which frees their keys, and then removed; what a kill leaves of them, ``finish`` removes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobd.maintenance.report import Change, Report
from jobd.store import removal, retention
from jobd.store.batches import BATCH, always, breathe
from jobd.store.retention import Aged, Span
from jobd.store.wording import span as length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jobd.store.base import Store

REMOVED: Final = "removed"
# Of a million jobs nobody reads every line; the counts are of all.
NAMED: Final = 2_000


@dataclass(frozen=True)
class Retention:
    """How long what has ended is kept.

    ``ages`` are in ms by outcome, None for ever; ``values`` is that of the values of results, None for as long as their
    job. The newest ``keep_last`` ended jobs of each task are kept whole, whatever their age.
    """

    ages: Mapping[str, int | None]
    values: int | None = None
    keep_last: int = 0


def prune(
    store: Store,
    *,
    retention: Retention,
    now: int,
    actor: str,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Remove the jobs whose time is over, take the values of results whose time is, and return what that was.

    With ``check_only`` nothing is written and the report says what would be. Where ``go_on`` says no between two
    batches, the rest is left to the next call. ``progress`` is told how many items have been removed, of how many. Of
    more than 2,000 jobs the report counts the rest.
    """
    pruning = _Pruning(store, retention, now=now, actor=actor, check_only=check_only, go_on=go_on, progress=progress)
    changes: list[Change] = []
    counts: Counter[str] = Counter()
    for change, items in pruning.changes():
        counts.update({REMOVED: 1, "items": items} if change.to_status == REMOVED else {"values": 1})
        if len(changes) < NAMED:
            changes.append(change)
    return Report("prune", check_only, changes, dict(counts))


class _Pruning:
    """One run of the pass."""

    def __init__(
        self,
        store: Store,
        kept: Retention,
        *,
        now: int,
        actor: str,
        check_only: bool,
        go_on: Callable[[], bool],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store, self._retention = store, kept
        self._now, self._actor = now, actor
        self._check_only, self._go_on = check_only, go_on
        self._progress = None if check_only else progress
        self._removed = self._whole = 0
        self._newest: dict[str, int] = {}

    def changes(self) -> Iterator[tuple[Change, int]]:
        """Do it, and yield what was done with the job's number of items."""
        ages, values = self._retention.ages.items(), self._retention.values
        old = [
            (Span(status, valued, self._now - age), age)
            for status, age in ages
            if age is not None
            for valued in (True, False)
        ]
        if self._progress is not None:
            self._whole = sum(retention.items(self._store, span) for span, _ in old)
        for span, age in old:
            yield from self._removals(span, age)
        for status, whole in ages:
            if values is not None and (whole is None or values < whole):
                # What is older than that has just been removed, or is kept whole.
                since = retention.EVER if whole is None else self._now - whole
                yield from self._values(Span(status, True, self._now - values, since), values)

    # -- whole jobs -----------------------------------------------------------------------------------------------

    def _removals(self, span: Span, age: int) -> Iterator[tuple[Change, int]]:
        for found in self._aged(span):
            jobs = [job for job in found if not self._kept(job)]
            if not self._check_only:
                jobs = retention.request_removals(self._store, jobs, before=span.before, now=self._now)
                breathe()
                self._remove(jobs)
            for job in jobs:
                yield self._change(job, REMOVED, "", age), job.items

    def _remove(self, jobs: Sequence[Aged]) -> None:
        before = self._removed

        def told(count: int) -> None:
            self._removed = before + count
            if self._progress is not None:
                self._progress(self._removed, max(self._removed, self._whole))

        removal.remove_jobs(self._store, [job.id for job in jobs], told, go_on=self._go_on)

    # -- the values of results ------------------------------------------------------------------------------------

    def _values(self, span: Span, age: int) -> Iterator[tuple[Change, int]]:
        for found in self._aged(span):
            for job in found:
                if not self._kept(job) and (self._check_only or self._take(job, span)):
                    yield self._change(job, job.status, "its results' values: ", age), job.items

    def _take(self, job: Aged, span: Span) -> bool:
        return self._go_on() and retention.prune_values(
            self._store, job, before=span.before, now=self._now, actor=self._actor, go_on=self._go_on
        )

    # -- both -----------------------------------------------------------------------------------------------------

    def _aged(self, span: Span) -> Iterator[list[Aged]]:
        last: Aged | None = None
        while self._go_on():
            found = retention.aged(self._store, span, last)
            if found:
                yield found
            if len(found) < BATCH:
                return
            last = found[-1]

    def _kept(self, job: Aged) -> bool:
        """Say whether it is one of the newest of its task; which those are is looked up once in a run."""
        if not self._retention.keep_last:
            return False
        if job.task not in self._newest:
            self._newest[job.task] = retention.newest(self._store, job.task, self._retention.keep_last)
        return job.id >= self._newest[job.task]

    def _change(self, job: Aged, becomes: str, what: str, age: int) -> Change:
        why = f"{what}{job.status} {length(self._now - job.completed_at)} ago, kept for {length(age)}"
        return Change(job.id, None, None, job.status, becomes, why, since=job.completed_at)
