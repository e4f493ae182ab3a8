"""The one door: a status changes here and nowhere else.

A :class:`Move` is one guarded UPDATE along one edge, fixed when its module is imported and run over a batch of rows.
The row count says for how many rows the guard held; counters, events, results and endings are written by the caller in
the same transaction, and only for those.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.errors import IllegalTransition, NotFound
from jobd.states import EDGES, ITEM_ENDS, RUNNING, legal
from jobd.store.events import Event
from jobd.store.links import crossed
from jobd.store.watchlist import note_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


# Both terms are true of the same jobs. The first is the condition of the partial indexes, the second is what counts.
OPEN: Final = "completed_at is null and (status = 'queued' or status = 'running')"


class Answer(enum.Enum):
    """What became of one transition: applied now, applied before, or too late because the attempt is not the item's."""

    APPLIED = "applied"
    REPLAYED = "replayed"
    LATE = "late"


class Move:
    """One guarded UPDATE of ``table`` along ``edge`` to ``target``.

    ``columns`` are set from each row, ``sets`` are further assignments; their ``?`` are bound by ``params``. A row is
    ``(id, *guards, *columns)``: ``fenced`` adds the attempt to the guard, ``exact`` the very status that it leaves;
    ``also`` is a further condition, whose ``?`` are bound by the argument of that name.
    """

    def __init__(
        self,
        table: str,
        edge: str,
        target: str,
        *,
        columns: Sequence[str] = (),
        sets: Sequence[str] = (),
        fenced: bool = False,
        exact: bool = False,
        source: str | None = None,
        also: str = "",
    ) -> None:
        self.table = table
        self.edge = EDGES[table][edge]
        self.target = target
        # An edge with several targets leads from each source to every other status, never to itself.
        self.sources = tuple(s for s in self.edge.sources if s != target) if source is None else (source,)
        if target not in self.edge.targets or not set(self.sources) <= set(self.edge.sources):
            raise IllegalTransition(table, edge, " or ".join(self.sources), self.edge.targets)
        self.fenced = fenced
        guards = [name for name, wanted in (("attempt", fenced), ("source", exact)) if wanted]
        self._columns = ("id", *guards, *columns)
        self._alone = len(self._columns) == 1
        assignments = (f"status='{target}'", *sets, *(f"{name}=m.{name}" for name in columns))
        statuses = " or ".join(f"{table}.status = '{status}'" for status in self.sources)
        self._head = f"update {table} set {', '.join(assignments)}"
        self._tail = f" and ({statuses})"
        if fenced:
            self._tail += f" and {table}.attempt = m.attempt"
        if exact:
            self._tail += f" and {table}.status = m.source"
        if also:
            self._tail += f" and {also}"
        self._ends = table == "job_items" and target in ITEM_ENDS
        self._texts: dict[type, str] = {}

    def run(
        self,
        store: Store,
        connection: Connection,
        rows: Sequence[Sequence[Any]],
        params: Sequence[Any] = (),
        also: Sequence[Any] = (),
        *,
        noted: bool = False,
    ) -> int:
        """Move the rows whose guard holds and return how many did; ``noted``: the caller keeps the watchlist."""
        text = self._texts.get(type(store))
        if text is None:
            text = self._texts[type(store)] = self._text(store.rows(*self._columns))
        count: int = connection.execute(text, (*params, store.pack(rows), *also)).rowcount
        if self._ends and count and not noted:
            note_ends(store, connection, rows, self.target)
        return count

    def _text(self, rows: str) -> str:
        # Ids alone are looked up one after the other; what brings columns is gathered first, and costs a third more.
        found = f" where {self.table}.id in (select id from {rows} as m)"
        joined = f" from {rows} as m where {self.table}.id = m.id"
        return self._head + (found if self._alone else joined) + self._tail

    def run_held(
        self,
        store: Store,
        connection: Connection,
        rows: Sequence[Sequence[Any]],
        params: Sequence[Any] = (),
        also: Sequence[Any] = (),
    ) -> set[int]:
        """Move the rows whose guard holds and return their ids."""
        connection.execute("savepoint alike")
        if self.run(store, connection, rows, params, also) != len(rows):
            # One of them is not what it was: which, only each by itself tells.
            connection.execute("rollback to alike")
            rows = [row for row in rows if self.run(store, connection, [row], params, also) == 1]
        connection.execute("release alike")
        return {row[0] for row in rows}


def transition(
    store: Store, connection: Connection, move: Move, row: Sequence[Any], params: Sequence[Any] = ()
) -> Answer:
    """Move one row and say what became of it.

    Raises:
        NotFound: there is no such row.
        IllegalTransition: no edge of that name leaves its present status.
    """
    if move.run(store, connection, [row], params) == 1:
        return Answer.APPLIED
    identity = row[0]
    fence = "attempt" if move.fenced else "null"
    found = connection.execute(
        f"select status, {fence} from {move.table} where id=?",
        (identity,),
    ).fetchone()
    what = f"{'job' if move.table == 'jobs' else 'item'} {identity}"
    if found is None:
        raise NotFound(f"there is no {what}")
    status, attempt = found
    if status == move.target and (not move.fenced or attempt == row[1]):
        return Answer.REPLAYED
    if move.fenced:
        return Answer.LATE
    raise IllegalTransition(what, move.edge.name, status, legal(move.table, status))


class JobMove(NamedTuple):
    """One job of a batch: the status that it leaves, and the message of its event."""

    job_id: int
    source: str
    message: str | None = None


def job_move(edge: str, target: str, *sets: str) -> Move:
    """Return the Move of a job edge; ``sets`` follow the two that every job transition makes."""
    return Move("jobs", edge, target, sets=("status_updated_at=?", "version=version+1", *sets), also="jobs.status = ?")


def move_jobs(
    store: Store,
    connection: Connection,
    move: Move,
    jobs: Sequence[JobMove],
    *,
    now: int,
    actor: str,
    params: Sequence[Any] = (),
) -> None:
    """Move jobs whose status the caller has read in this transaction, each with its event and version.

    Raises:
        IllegalTransition: one of them is not what the caller said.
    """
    alike: dict[tuple[str, str | None], list[int]] = {}
    for job in jobs:
        alike.setdefault((job.source, job.message), []).append(job.job_id)
    for (source, message), ids in alike.items():
        move_alike(store, connection, move, ids, source, now=now, actor=actor, message=message, params=params)


def move_alike(
    store: Store,
    connection: Connection,
    move: Move,
    job_ids: Sequence[int],
    source: str,
    *,
    now: int,
    actor: str,
    message: str | None = None,
    params: Sequence[Any] = (),
) -> None:
    """Move jobs that all leave ``source``, in one statement with their ids alone, and one for their events.

    Raises:
        IllegalTransition: one of them is not what the caller said.
    """
    ids = [(job_id,) for job_id in job_ids]
    if move.run(store, connection, ids, (now, *params), (source,)) != len(ids):
        raise _uneven(connection, move, job_ids)
    connection.execute(
        "insert into job_events (job_id, name, from_status, to_status, at, actor, message)"
        f" select id, ?, ?, ?, ?, ?, ? from {store.rows('id')} as m",
        (move.edge.name, source, move.target, now, actor, message, store.pack(ids)),
    )
    event = Event(0, None, move.edge.name, source, move.target, now, actor, message=message)
    store.news.happened_alike(event, "jobs", job_ids)
    store.news.moved("jobs", move.target, len(ids))
    if move.target != RUNNING:
        crossed(store, connection, move.target, source, job_ids, now)


def _uneven(connection: Connection, move: Move, job_ids: Sequence[int]) -> IllegalTransition:
    """Return the refusal of a batch of which only a part was moved."""
    for job_id in job_ids:
        found = connection.execute("select status from jobs where id=?", (job_id,)).fetchone()
        status = found[0] if found else "deleted"
        if status != move.target:
            return IllegalTransition(f"job {job_id}", move.edge.name, status, legal("jobs", status))
    # Each is at the target now, so some were before this batch: an event for those would be a second one.
    return IllegalTransition(
        "one of jobs " + ", ".join(map(str, job_ids[:20])),
        move.edge.name, move.target, legal("jobs", move.target),
    )  # fmt: skip


def transition_job(
    store: Store,
    connection: Connection,
    move: Move,
    job_id: int,
    *,
    now: int,
    actor: str,
    message: str | None = None,
    params: Sequence[Any] = (),
) -> Answer:
    """Move one job and say what became of it.

    Raises:
        NotFound: there is no such job.
        IllegalTransition: no edge of that name leaves its present status.
    """
    found = connection.execute("select status from jobs where id=?", (job_id,)).fetchone()
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    status = found[0]
    if status == move.target and status not in move.sources:
        return Answer.REPLAYED
    if status not in move.sources:
        raise IllegalTransition(f"job {job_id}", move.edge.name, status, legal("jobs", status))
    move_jobs(store, connection, move, [JobMove(job_id, status, message)], now=now, actor=actor, params=params)
    return Answer.APPLIED
