"""Executors side by side: which of them runs what, and what is claimed for each.

A task says by its ``isolation`` what runs its items. Each executor has slots of its own, and claims of its own that
fill them; threads and asyncio handlers share the process that an item may take along, so who must run alone runs
alone among all of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jobd.engine.solitude import Apart, Solitude
from jobd.store.claim import Lane
from jobd.store.outcome import RUN_ON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobd.engine.claims import Claims
    from jobd.engine.executor import Executor
    from jobd.engine.runner import Attempt
    from jobd.store.base import Connection
    from jobd.store.claim import Claimed
    from jobd.store.outcome import Outcome
    from jobd.tasks import Task

T = TypeVar("T")


class Pool(NamedTuple):
    """One executor, and what is claimed for it."""

    executor: Executor
    claims: Claims

    def free(self, leaving: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return those of ``leaving`` whose places are free for others: what is given up may keep its own."""
        given_up = [outcome for outcome in leaving if outcome.kind in RUN_ON]
        lost = {id(outcome) for outcome in given_up[self.executor.spare :]}
        return [outcome for outcome in leaving if id(outcome) not in lost] if lost else leaving

    def fit(self) -> None:
        """Claim for as many places as there are now."""
        if self.claims.slots != self.executor.size:
            self.claims.resize(self.executor.size)


class Pools:
    """The executors of one daemon. They come into being with the first task that names them.

    ``executor`` makes the one of a name, ``claims`` what is claimed for these tasks, so many slots and
    as many more handlers as can be given up and run on. A task that
    ``rests`` has nothing to do; none is made for it.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., object]],
        *,
        executor: Callable[[str], Executor],
        claims: Callable[[Mapping[str, Task[..., object]], int, int, Solitude], Claims],
        rests: Callable[[Task[..., object]], bool] = lambda _: False,
    ) -> None:
        self._tasks = tasks
        self._executor = executor
        self._claims = claims
        self._rests = rests
        self._pools: dict[str, Pool] = {}
        self._known: dict[str, dict[str, Task[..., object]]] = {}  # the tasks of each
        self._of: dict[str, Pool] = {}  # by task
        self._refused: set[str] = set()
        self._hanging: set[Attempt] = set()
        self.solitude = Solitude()
        try:
            self.grow()
        except BaseException:
            self.close()
            raise

    def grow(self) -> bool:
        """Make the executors of tasks that were registered since, or have something to do; say whether there are any.

        Raises:
            UsageError: one of them cannot run its task, which stays unclaimed.
        """
        if len(self._of) + len(self._refused) == len(self._tasks):
            return False
        known = len(self._of)
        for name, task in tuple(self._tasks.items()):
            if name not in self._of and name not in self._refused and not self._rests(task):
                self._refused.add(name)
                self._of[name] = self._pool(task.policy.isolation, task)
                self._refused.discard(name)
        return len(self._of) > known

    def _pool(self, isolation: str, task: Task[..., object]) -> Pool:
        known = self._known.setdefault(isolation, {})
        if isolation not in self._pools:
            executor = self._executor(isolation)
            solitude = self.solitude if executor.shares_process else Apart()
            claims = self._claims(known, executor.size, executor.spare, solitude)
            self._pools[isolation] = Pool(executor, claims)
        known[task.name] = task
        self._pools[isolation].fit()
        return self._pools[isolation]

    # -- what runs ------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many items run at once."""
        return sum(pool.executor.size for pool in self._all())

    @property
    def ailment(self) -> str | None:
        """Why they run less than they should; None while they are well."""
        return "; ".join(filter(None, (pool.executor.ailment for pool in self._all()))) or None

    @property
    def abandoned(self) -> int:
        """How many attempts were given up and run on."""
        return sum(pool.executor.abandoned for pool in self._all())

    def waiting(self) -> int:
        """Return about how many attempts have not begun."""
        return sum(pool.executor.waiting() for pool in self._all())

    def hand(self, attempts: Sequence[Attempt]) -> None:
        """Hand each attempt to its executor."""
        for pool, theirs in self._by_pool(attempts, lambda attempt: attempt.claimed.task):
            pool.executor.hand(theirs)

    def take_back(self, *, claimed_before: float | None = None) -> list[Attempt]:
        """Return attempts that now never begin: all that wait, or those claimed before an awake time."""
        taken: list[Attempt] = []
        for pool in self._all():
            oldest = pool.executor.oldest()
            if oldest is None or (claimed_before is not None and oldest >= claimed_before):
                continue
            back = pool.executor.take_back(claimed_before=claimed_before)
            if back:
                pool.claims.given_back()
            taken += back
        return taken

    def cancel(self, attempt: Attempt) -> None:
        """Tell an attempt that its job is being cancelled."""
        self._of[attempt.claimed.task].executor.cancel(attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Give up an attempt that has begun; its place is another's."""
        pool = self._of[attempt.claimed.task]
        before = pool.executor.abandoned
        pool.executor.abandon(attempt)
        if pool.executor.tells_late and pool.executor.abandoned > before:
            self._hanging.add(attempt)
            pool.claims.hangs(attempt.claimed)
        pool.claims.resize(pool.executor.size)

    def apart(self, attempt: Attempt) -> bool:
        """Say whether an attempt runs in a process of its own."""
        return not self._of[attempt.claimed.task].executor.shares_process

    def came_back(self, attempt: Attempt) -> None:
        """One that was given up has ended after all."""
        pool = self._of[attempt.claimed.task]
        if attempt in self._hanging:
            self._hanging.discard(attempt)
            pool.claims.came_back(attempt.claimed)
        pool.claims.resize(pool.executor.size)

    def close(self) -> None:
        """Begin nothing more."""
        for pool in self._all():
            pool.executor.close()

    # -- what has happened ----------------------------------------------------------------------------------------

    def arrived(self, ended: Sequence[tuple[str, float]]) -> None:
        """Attempts have ended: (task, seconds) of those that show their task's pace."""
        for pool, theirs in self._by_pool(ended, lambda one: one[0]):
            pool.claims.arrived(theirs)

    def started(self, claimed: Sequence[Claimed], awake: float) -> None:
        """A claim has committed; ``awake`` is when."""
        for pool, theirs in self._by_pool(claimed, lambda one: one.task):
            pool.claims.started(theirs, awake)

    def released(self, attempt: Attempt) -> None:
        """The settlement of an attempt that never began has committed."""
        self._of[attempt.claimed.task].claims.released(attempt.claimed, attempt.claimed_at)

    def left(self, claimed: Sequence[Claimed]) -> None:
        """The settlement of these has committed."""
        for pool, theirs in self._by_pool(claimed, lambda one: one.task):
            pool.claims.left(theirs)
            # It may have ended with its place.
            pool.fit()
        if self.solitude.anybody and not self._busy():
            # Who waited for its end, or for the process to itself, may start now.
            for pool in self._sharing():
                pool.claims.more = True

    def undone(self) -> None:
        """A transaction has failed: what it had claimed is queued as before."""
        for pool in self._all():
            pool.claims.undone()

    def look(self) -> None:
        """There may be something to claim, or a place that was lost may be there again."""
        for pool in self._all():
            pool.fit()
            pool.claims.more = True

    def look_for_interrupted(self) -> None:
        """There may be items that were interrupted."""
        for pool in self._all():
            pool.claims.solitude.anybody = True

    # -- what is next ---------------------------------------------------------------------------------------------

    @property
    def due(self) -> int | None:
        """When there will be something to claim (Unix ms), where that is known and nothing is to be claimed now."""
        return min((pool.claims.due for pool in self._all() if pool.claims.due is not None), default=None)

    def look_at_the_time(self, now: int) -> None:
        """Claim again what is due by ``now`` (Unix ms)."""
        for pool in self._all():
            if pool.claims.due is not None and now >= pool.claims.due:
                pool.claims.due = None
                pool.claims.more = True

    @property
    def free_since(self) -> float | None:
        """Return since when (awake time) each executor had a free slot at any moment, and nothing to claim for it.

        None where one of them has none now.
        """
        found = [pool.claims.free_since for pool in self._all()]
        times = [since for since in found if since is not None]
        return max(times) if times and len(times) == len(found) else None

    def wanted(self) -> bool:
        """Say whether there is a reason to begin a transaction though nothing has arrived."""
        return any(pool.claims.wanted() for pool in self._all())

    def scout(self, now: int) -> None:
        """Before the transaction: where a claim found too much in its way and nothing else, look further."""
        for pool in self._all():
            pool.claims.scout(now)

    def claim(
        self, connection: Connection, leaving: Sequence[Outcome], most: int, now: int
    ) -> tuple[list[Claimed], int]:
        """Claim for each executor what fits while ``leaving`` leave, up to ``most`` items in all; also return how many
        items were skipped instead.
        """
        gone = {id(pool): theirs for pool, theirs in self._by_pool(leaving, lambda one: one.task)}
        claimed: list[Claimed] = []
        skipped = 0
        busy = sum([pool.claims.busy - len(gone.get(id(pool), ())) for pool in self._sharing()])
        for pool in self._all():
            if not pool.claims.more:
                continue
            shared = pool.executor.shares_process
            theirs = pool.free(gone.get(id(pool), ()))
            own = pool.claims.busy - len(gone.get(id(pool), ()))
            beside = busy - own if shared else 0
            if shared and claimed and claimed[-1].lane is Lane.ALONE:
                continue
            found, left_out = pool.claims.claim(connection, theirs, max(0, most - len(claimed)), now, beside=beside)
            claimed += found
            skipped += left_out
            busy += len(found) if shared else 0
        return claimed, skipped

    # -- its parts ------------------------------------------------------------------------------------------------

    def _all(self) -> tuple[Pool, ...]:
        return tuple(self._pools.values())

    def _sharing(self) -> list[Pool]:
        return [pool for pool in self._all() if pool.executor.shares_process]

    def _busy(self) -> int:
        """Return how many items are in flight in this very process."""
        return sum(pool.claims.busy for pool in self._sharing())

    def _by_pool(self, things: Sequence[T], task: Callable[[T], str]) -> Iterable[tuple[Pool, Sequence[T]]]:
        if len(self._pools) == 1:
            return [(pool, things) for pool in self._all()] if things else []
        parts: dict[int, tuple[Pool, list[T]]] = {}
        for thing in things:
            pool = self._of[task(thing)]
            parts.setdefault(id(pool), (pool, []))[1].append(thing)
        return list(parts.values())
