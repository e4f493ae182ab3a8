"""How jobs follow what they come after: they fall with a parent that will not complete, and come back with it.

A parent that changed has ``jobs.untold_at`` until its children, one batch after the other, have fallen, have come back
or have been counted anew. Each of them that moves is such a parent itself, and so it goes on to their children. Killed
in between, the same call finishes it, and so does the daemon.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.errors import Conflict, NotFound
from jobd.states import CANCELLED, COMPLETED, FAILED
from jobd.store import links, retry, steer
from jobd.store.batches import BATCH, Pace, always, breathe
from jobd.store.ending import end_jobs
from jobd.store.fall import fall
from jobd.store.links import BLOCKED, BROKEN, LOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobd.store.base import Connection, Store


def follow(
    store: Store, job_ids: Iterable[int] | None, *, now: int, actor: str, go_on: Callable[[], bool] = always
) -> bool:
    """Let the children of these jobs, or of all, follow what became of them, and theirs; say whether that was all.

    Where ``go_on`` says no between two batches, the rest is left to the next call.

    Raises:
        Transient: the store cannot be written now; what was written holds, and the next call goes on.
    """
    todo = deque(links.untold(store) if job_ids is None else _marked(store, list(job_ids)))
    while todo:
        moved = _Telling(store, todo.popleft(), now, actor).run(go_on)
        todo.extend(_marked(store, moved))
        if moved:
            store.wake()
        if not go_on():
            return False
    return True


def _marked(store: Store, job_ids: Sequence[int]) -> list[int]:
    """Return those of these jobs whose children have yet to follow them: of many that fell at once most have none."""
    source = f"from {store.rows('id')} as m cross join jobs as j on j.id = m.id and j.untold_at is not null"
    params = (store.pack([(one,) for one in job_ids]),)
    found = store.read(lambda connection: store.gather(connection, "j.id as id", source, params)) if job_ids else []
    return [row[0] for row in found]


class _Child(NamedTuple):
    """A child as the telling of its parent finds it."""

    id: int
    status: str
    fell: int
    requested: int
    deleting: int
    cancelled: int


class _Step(NamedTuple):
    """What a batch has come to: the last child that was told, in which version of the parent, and who moved.

    ``large`` is a child that has more items to bring back than fit into a batch.
    """

    last: int
    version: int
    moved: tuple[int, ...] = ()
    large: int | None = None


_CHILDREN: Final = (
    "from job_dependencies as d cross join jobs as c on c.id = d.job_id"
    " where d.after_id = ? and d.job_id > ? order by d.job_id limit ?"
)
_CHILD: Final = (
    "c.id as id, c.status as status, d.cancelled_at is not null as fell,"
    " c.cancel_requested_at is not null or c.fail_requested_at is not null as requested,"
    " c.deleted_at is not null as deleting, c.items_cancelled as cancelled"
)
_LARGE: Final = BATCH // 2  # items
_TOLD: Final = "update jobs set untold_at = null where id = ? and version = ?"


class _Telling:
    """One parent whose children follow what became of it."""

    def __init__(self, store: Store, parent: int, now: int, actor: str) -> None:
        self._store = store
        self._parent = parent
        self._now = now
        self._actor = actor

    def run(self, go_on: Callable[[], bool]) -> list[int]:
        """Tell all of them, and return those that moved, in whatever way: their own children have to follow.

        Where ``go_on`` says no in between, this one keeps its mark, and so do those that moved.
        """
        pace, moved = Pace(BATCH), list[int]()
        step: _Step | None = _Step(0, -1)
        while step is not None and (step := self._next(pace, step)) is not None:
            self._work_off(step.moved, go_on)
            moved += step.moved
            if step.large is not None:
                self._bring_large_back(step.large)
                moved.append(step.large)
            breathe()
            if not go_on():
                break
        return moved

    def _next(self, pace: Pace, before: _Step) -> _Step | None:
        return pace.write(self._store, lambda connection, size: self._step(connection, before, size))

    def _step(self, connection: Connection, before: _Step, size: int) -> _Step | None:
        found = connection.execute(
            "select status, version from jobs where id = ? and untold_at is not null and deleted_at is null",
            (self._parent,),
        ).fetchone()
        if found is None:
            return None
        status, version = found
        # It changed in between: what the first of them were told is not true any more.
        last = before.last if before.version in {-1, version} else 0
        children = [
            _Child(*row) for row in self._store.gather(connection, _CHILD, _CHILDREN, (self._parent, last, size))
        ]
        if not children:
            if last == before.last:
                connection.execute(_TOLD, (self._parent, version))
                return None
            return _Step(0, version)
        ids = [child.id for child in children]
        self._count(connection, ids)
        if status in BROKEN:
            moved = fall(self._store, connection, ids, now=self._now, actor=self._actor)
            self._cancel(connection, moved, size)
            return _Step(ids[-1], version, tuple(moved))
        ended = end_jobs(self._store, connection, ids, now=self._now, actor=self._actor)
        step = self._bring_back(connection, children, version, size, last)
        # Of a long row of jobs without items the last that ended has children of its own to tell.
        return step._replace(moved=(*step.moved, *(job.job_id for job in ended)))

    def _count(self, connection: Connection, ids: Sequence[int]) -> None:
        """Count what blocks these children: where they are many, the move of their parent has not."""
        connection.execute(
            f"update jobs set blocked = {BLOCKED} where id in (select id from {self._store.rows('id')} as m)"
            f" and completed_at is null and blocked <> {BLOCKED}",
            (self._store.pack([(one,) for one in ids]),),
        )

    # -- those that fall ------------------------------------------------------------------------------------------

    def _cancel(self, connection: Connection, children: Sequence[int], size: int) -> None:
        """Cancel the items of children that have just been asked to fall, as far as they fit into this batch."""
        left = size
        for child in children:
            if left <= 0:
                break
            left -= 1 + steer.cancel_in(self._store, connection, child, left, now=self._now, actor=self._actor)

    def _work_off(self, children: Sequence[int], go_on: Callable[[], bool]) -> None:
        """Finish what did not fit: whoever is killed before leaves open requests."""
        if not children:
            return
        source = (
            f"from {self._store.rows('id')} as m cross join jobs as c on c.id = m.id"
            " and c.completed_at is null and c.cancel_requested_at is not null"
        )
        params = (self._store.pack([(child,) for child in children]),)
        for (child,) in self._store.read(lambda connection: self._store.gather(connection, "c.id", source, params)):
            if go_on():
                steer.work_off(self._store, child, now=self._now, actor=self._actor, go_on=go_on)

    # -- those that come back -------------------------------------------------------------------------------------

    def _bring_back(
        self, connection: Connection, children: Sequence[_Child], version: int, size: int, last: int
    ) -> _Step:
        left, moved = size, list[int]()
        for child in children:
            if child.fell and not self._stays(connection, child):
                if child.cancelled > _LARGE:
                    return _Step(child.id, version, tuple(moved), large=child.id)
                if child.cancelled > left and moved:
                    break
                retry.bring_back_in(
                    self._store, connection, child.id, now=self._now, actor=self._actor, message=self._back(connection)
                )
                self._forget(connection, child.id)
                left -= 1 + child.cancelled
                moved.append(child.id)
            last = child.id
            if left <= 0:
                break
        return _Step(last, version, tuple(moved))

    def _stays(self, connection: Connection, child: _Child) -> bool:
        """Say whether a child that fell with this parent stays as it is, now that the parent is back."""
        if child.deleting or child.status in {COMPLETED, FAILED}:
            self._forget(connection, child.id)
            return True
        if child.requested and child.status != CANCELLED:
            # It is falling still: when that is over, its end has this parent told again.
            return True
        other = (
            "select min(p.id) from job_dependencies as d cross join jobs as p on p.id = d.after_id"
            f" where d.job_id = ? and {LOST}"
        )
        heir = connection.execute(other, (child.id,)).fetchone()[0]
        if heir is None:
            return False
        # It waits for that one as well, and comes back with it.
        connection.execute(
            "update job_dependencies set cancelled_at = ? where job_id = ? and after_id = ?",
            (self._now, child.id, heir),
        )
        self._forget(connection, child.id)
        return True

    def _forget(self, connection: Connection, child: int) -> None:
        connection.execute(
            "update job_dependencies set cancelled_at = null where job_id = ? and after_id = ?", (child, self._parent)
        )

    def _back(self, connection: Connection) -> str:
        status = connection.execute("select status from jobs where id = ?", (self._parent,)).fetchone()[0]
        return f"job {self._parent} is {status}" if status != COMPLETED else f"job {self._parent} completed"

    def _bring_large_back(self, child: int) -> None:
        """Bring back a child whose items are many, batch by batch; killed in between, it is found as one that fell."""
        text = (
            "select 1 from job_dependencies as d cross join jobs as p on p.id = d.after_id"
            " where d.job_id = ? and d.after_id = ? and d.cancelled_at is not null"
            " and p.status <> 'failed' and p.status <> 'cancelled' and p.deleted_at is null"
        )

        def still(connection: Connection) -> bool:
            return connection.execute(text, (child, self._parent)).fetchone() is not None

        message = self._store.read(self._back)
        try:
            retry.bring_back(self._store, child, still, now=self._now, actor=self._actor, message=message)
        except (NotFound, Conflict):
            # Somebody has asked something else of it meanwhile.
            return
        self._store.write(lambda connection: self._forget(connection, child) if still(connection) else None)
