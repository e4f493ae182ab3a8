"""What is known of a running item, and what becomes of it: by evidence before time.

What the holder of the file's lock has in hand is left alone, whatever is stored: its own settlement decides. Of the
rest, in this order: a stored result decides; an item whose daemon is not the holder is run by nobody, now; and only
where there is no proof, silence for the whole grace. What nobody runs is first asked about by its task's own
``verify``, where it has one: work that is in fact done completes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED
from jobd.store.contradicted import STORED
from jobd.store.orphans import Subject, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobd.store.orphans import Running

GRACE_MS: Final = 600_000
MAX_INTERRUPTIONS: Final = 5


class Unanswered(Exception):
    """A task's ``verify`` cannot say now; its item stays as it is and is asked about again. Its text says why."""


# What a task's own code says of an orphan: its result as JSON text, or None where its work was not done. It raises
# Unanswered and nothing else, and is called outside of every transaction: it may take its time.
Verify: TypeAlias = Callable[[Subject], str | None]
# By (item id, attempt).
Answers: TypeAlias = dict[tuple[int, int], str | None]


@dataclass(frozen=True)
class Holder:
    """Who holds the file's lock: the daemon's id and the items that its registry knows.

    ``daemon_id`` None: no daemon, the caller holds it. ``locks`` false: the file system has none, so that nothing is
    proved by another daemon's id and only its heartbeat counts. ``woke_at`` (Unix ms): when the machine last woke from
    a suspend under it.
    """

    daemon_id: int | None = None
    known: Collection[int] = frozenset()
    locks: bool = True
    woke_at: int | None = None

    def has_in_hand(self, daemon_id: int | None, item_id: int) -> bool:
        """Say whether an item that runs in a daemon's name is one that the holder knows: its own settlement decides."""
        return daemon_id is not None and daemon_id == self.daemon_id and item_id in self.known


@dataclass(frozen=True)
class Rules:
    """What decides beside the evidence: the grace in ms, this boot, and how often a task's item may die alone.

    ``tasks`` are those that are registered here: what an item of another one meant to do (its ``intent``), nobody here
    can judge. ``verify`` holds, by task, the code that knows whether an orphan's work was done.
    """

    boot: str
    grace_ms: int = GRACE_MS
    max_interruptions: Mapping[str, int] | None = None
    tasks: Collection[str] = frozenset()
    verify: Mapping[str, Verify] = field(default_factory=dict)

    def limit(self, task: str) -> int:
        """Return how many lone deaths an item of ``task`` may have."""
        return (self.max_interruptions or {}).get(task, MAX_INTERRUPTIONS)


@dataclass(frozen=True)
class Evidence:
    """Judges running items. ``rows_of`` counts them by daemon, as they were before any was moved."""

    holder: Holder
    rules: Rules
    rows_of: Mapping[int | None, int]
    now: int

    @property
    def since(self) -> int:
        """Return when the grace began (Unix ms): who was heard since then is not silent."""
        began, woke = self.now - self.rules.grace_ms, self.holder.woke_at
        # Nobody could be heard in a suspend: the whole grace has to pass awake. Who was ever heard is not silent then.
        return began if woke is None or woke <= began else 0

    def doubtful(self, found: Sequence[Running]) -> list[Running]:
        """Return the orphans whose task's own code is to be asked before they are judged."""
        tasks = self.rules.verify
        return [item for item in found if item.task in tasks and item.result is None and self._of(item) is not None]

    def foreign(self, found: Sequence[Running]) -> list[Running]:
        """Return the orphans that nobody here can judge, whatever else is known of them."""
        return [item for item in found if self._meant(item) and item.result is None and self._of(item) is not None]

    def judge(self, found: Sequence[Running], answers: Answers) -> list[Verdict]:
        """Return what becomes of those that nobody runs; a doubtful one without an answer stays as it is."""
        return [verdict for item in found if (verdict := self._judge(item, answers)) is not None]

    def _judge(self, item: Running, answers: Answers) -> Verdict | None:
        if item.result is not None and not self.holder.has_in_hand(item.daemon_id, item.id):
            return Verdict(item, "reconcile", item.result, STORED)
        evidence = self._of(item)
        if evidence is None or self._meant(item):
            return None
        token = (item.id, item.attempt)
        if item.task in self.rules.verify and token not in answers:
            return None
        value = answers.get(token)
        if value is not None:
            why, silent = evidence
            return Verdict(item, "reconcile", COMPLETED, f"{why}; verify: it is done", silent, value=value)
        return self._interrupted(item, *evidence)

    def _meant(self, item: Running) -> bool:
        """Say whether the item had begun something that only a task unknown here can tell of."""
        return item.intent is not None and item.task not in self.rules.tasks

    def _of(self, item: Running) -> tuple[str, bool] | None:
        """Return what tells that nobody runs the item and whether it is only silence; None while somebody may."""
        holder = self.holder
        mine = item.daemon_id is not None and item.daemon_id == holder.daemon_id
        if holder.has_in_hand(item.daemon_id, item.id):
            return None
        if item.daemon_id is not None and not mine and holder.locks:
            return "its daemon is gone", False
        if item.since >= self.since or item.completed_at is not None:
            return None
        if not mine and item.heartbeat_at is not None and item.heartbeat_at >= self.since:
            return None
        return f"silent for over {self.rules.grace_ms // 1000} s", True

    def _interrupted(self, item: Running, why: str, silent: bool) -> Verdict:
        if item.requested:
            return Verdict(item, "cancel", CANCELLED, why, silent)
        alone = not silent and item.boot == self.rules.boot and self.rows_of.get(item.daemon_id) == 1
        deaths = item.lone_deaths + alone
        if deaths > self.rules.limit(item.task):
            error = f"interrupted: its daemon died {deaths} times while it ran alone"
            return Verdict(item, "abandon", FAILED, f"alone at {deaths} deaths", silent, alone, error)
        return Verdict(item, "recover", QUEUED, why, silent, alone)
