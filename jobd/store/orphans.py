"""Running items with what is known of each, and how one that nobody runs leaves that status.

Who decides is ``maintenance/recover.py``; what it decided is guarded again here, in the statement that acts.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, SKIPPED
from jobd.store import reconcile
from jobd.store.batches import BATCH
from jobd.store.contradicted import Contradicted
from jobd.store.counters import count_moves, last_errors
from jobd.store.ending import end_jobs
from jobd.store.events import Event, record_alike
from jobd.store.halting import halt
from jobd.store.transitions import Move
from jobd.store.unique import Judged, judge_items, store_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


# -- what is running --------------------------------------------------------------------------------------------------


class Running(NamedTuple):
    """A running item and what is known of it. Times are Unix ms.

    ``result`` is the status of a stored result of this very attempt, ``value`` what a failed one says; ``boot`` and
    ``heartbeat_at`` are its daemon's, and ``boot`` None of one that left in order: it was killed by nobody.
    """

    id: int
    job_id: int
    key: str
    attempt: int
    daemon_id: int | None
    since: int
    lone_deaths: int
    task: str
    intent: str | None
    requested: int
    result: str | None
    value: str | None
    boot: str | None
    heartbeat_at: int | None
    completed_at: int | None


# In the order of the small index of running items: by their id alone SQLite would pass over every item there is.
_RUNNING: Final = (
    "select i.id, i.job_id, i.key, i.attempt, i.daemon_id, coalesce(i.started_at, j.started_at, j.created_at),"
    " i.lone_deaths, j.task, i.intent,"
    " j.cancel_requested_at is not null or j.fail_requested_at is not null,"
    " r.status, case when r.status = 'failed' then r.value end,"
    " case when d.stopped_at is null then d.boot end, d.heartbeat_at, i.completed_at"
    " from job_items as i join jobs as j on j.id = i.job_id"
    " left join results as r on r.item_id = i.id and r.attempt = i.attempt left join daemons as d on d.id = i.daemon_id"
    " where i.status = 'running' and (i.job_id, i.id) > (?, ?) and j.deleted_at is null"
    " order by i.job_id, i.id limit ?"
)


def running(connection: Connection, after: tuple[int, int] = (0, 0), limit: int = BATCH) -> list[Running]:
    """Return up to ``limit`` running items after (job id, item id), in that order."""
    return [Running(*row) for row in connection.execute(_RUNNING, (*after, limit)).fetchall()]


def rows_of_daemons(connection: Connection) -> dict[int | None, int]:
    """Return how many items are running in the name of each daemon; None counts those that name none."""
    statement = "select daemon_id, count(*) from job_items where status = 'running' group by daemon_id"
    return dict(connection.execute(statement).fetchall())


class Subject(NamedTuple):
    """An orphan as its task's own code is asked about it. ``payload`` and ``params`` are JSON text."""

    item_id: int
    job_id: int
    task: str
    key: str
    attempt: int
    payload: str
    params: str
    intent: str | None
    job_created_at: int


def subject(store: Store, item_id: int, attempt: int) -> Subject | None:
    """Return a running item at this attempt whole; None where it is that no more."""
    found = store.read(
        lambda connection: connection.execute(
            "select i.id, i.job_id, j.task, i.key, i.attempt, i.payload, j.params, i.intent, j.created_at"
            " from job_items as i join jobs as j on j.id = i.job_id"
            " where i.id = ? and i.attempt = ? and i.status = 'running'",
            (item_id, attempt),
        ).fetchone()
    )
    return Subject(*found) if found else None


# -- how an orphan leaves ---------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What becomes of one orphan, and why.

    ``silent``: only the clock speaks. ``alone``: its daemon died while it ran nothing else. ``error`` is that of a
    failed one, ``value`` (JSON text) a result that is not stored yet.
    """

    item: Running
    edge: str
    target: str
    evidence: str
    silent: bool = False
    alone: bool = False
    error: str | None = None
    value: str | None = None


# Where only the clock speaks, it is asked again in the statement that acts.
_SILENT: Final = (
    "job_items.completed_at is null and coalesce(job_items.started_at, 0) < ?"
    " and not exists (select 1 from daemons as d"
    " where d.id = job_items.daemon_id and d.heartbeat_at >= ? and d.id <> ?)"
)


class _Way(NamedTuple):
    """A Move, and the fields of a verdict that its rows carry."""

    move: Move
    fields: tuple[str, ...]


_Key = tuple[str, str, bool, bool]  # edge, target, silent, alone


def _ways(edge: str, target: str, *fields: str, sets: tuple[str, ...]) -> dict[_Key, _Way]:
    ways = {}
    for silent, also in ((False, ""), (True, _SILENT)):
        for alone, death in ((False, ()), (True, ("lone_deaths=lone_deaths+1",))):
            move = Move(
                "job_items",
                edge,
                target,
                source=RUNNING,
                fenced=True,
                columns=fields,
                sets=(*sets, *death),
                also=also,
            )
            ways[edge, target, silent, alone] = _Way(move, fields)
    return ways


_INTERRUPTED: Final = "interruptions=interruptions+1"
_WAYS: Final = {
    **_ways("recover", QUEUED, sets=(_INTERRUPTED, "daemon_id=null", "available_at=0", "completed_at=null")),
    **_ways("abandon", FAILED, "error", sets=("completed_at=?", "error_type=null", _INTERRUPTED)),
    **_ways("cancel", CANCELLED, sets=("completed_at=?",)),
    **_ways("skip", SKIPPED, "error", sets=("completed_at=?", "error_type='Skip'")),
    **_ways("reconcile", COMPLETED, sets=("completed_at=?", "error_type=null", "error=null")),
}


def carry_out(
    store: Store,
    connection: Connection,
    verdicts: Sequence[Verdict],
    *,
    since: int,
    holder: int | None,
    now: int,
    actor: str,
) -> list[Verdict]:
    """Move orphans as decided, with events, counters and results, end their jobs, and return those whose guard held.

    What only its silence condemns started before ``since`` (Unix ms), and nothing was heard since then of the daemon in
    whose name it runs, unless that is ``holder``, who asks.
    """
    judged = judge_items(store, connection, [v.item.id for v in verdicts if v.value is not None], now=now)
    verdicts = [_skipped(v, judged.lost[v.item.id]) if v.item.id in judged.lost else v for v in verdicts]
    stored = [v for v in verdicts if v.edge == "reconcile" and v.value is None]
    others = [v for v in verdicts if v.edge != "reconcile" or v.value is not None]
    alike: dict[_Key, list[Verdict]] = {}
    for v in others:
        alike.setdefault((v.edge, v.target, v.silent, v.alone), []).append(v)
    held: set[int] = set()
    for (edge, target, silent, alone), group in alike.items():
        way = _WAYS[edge, target, silent, alone]
        rows = [(v.item.id, v.item.attempt, *(getattr(v, name) for name in way.fields)) for v in group]
        params = () if target == QUEUED else (now,)
        also = (since, since, holder or 0) if silent else ()
        held |= way.move.run_held(store, connection, rows, params, also)
    carried = [verdict for verdict in others if verdict.item.id in held]
    _follow(store, connection, carried, judged, now=now, actor=actor)
    brought = reconcile.carry_out(store, connection, [_contradicted(v.item) for v in stored], now=now, actor=actor)
    held |= {item.id for item in brought}
    return [verdict for verdict in verdicts if verdict.item.id in held]


def _contradicted(item: Running) -> Contradicted:
    assert item.result is not None  # noqa: S101 - only who has one is reconciled to it
    return Contradicted(
        item.id, item.job_id, item.key, item.attempt, RUNNING, item.since, item.result, item.value
    )  # fmt: skip


def _skipped(verdict: Verdict, why: str) -> Verdict:
    """Return what becomes of work that is done, and of whose key another result counts already."""
    return verdict._replace(
        edge="skip", target=SKIPPED, value=None, error=why, evidence=f"{verdict.evidence}; Skip: {why}"
    )


def _follow(
    store: Store, connection: Connection, carried: Sequence[Verdict], judged: Judged, *, now: int, actor: str
) -> None:
    """Write what follows from the moves, in their transaction."""
    values = {v.item.id: v.value for v in carried if v.value is not None}
    store_results(store, connection, values, now=now, source="verify", judged=judged)
    moved: dict[str, Counter[int]] = {}
    told: dict[tuple[str, str, str], list[int]] = {}
    for v in carried:
        moved.setdefault(v.target, Counter())[v.item.job_id] += 1
        told.setdefault((v.edge, v.target, v.evidence), []).append(v.item.id)
    for (edge, target, why), items in told.items():
        record_alike(store, connection, items, Event(0, None, edge, RUNNING, target, now, actor, message=why))
    for target, jobs in moved.items():
        # What only went back to the queue is no progress.
        progress = None if target == QUEUED else now
        count_moves(store, connection, jobs, RUNNING, target, progress=progress)
    last_errors(store, connection, {v.item.job_id: v.error for v in carried if v.target == FAILED and v.error})
    if failed := moved.get(FAILED):
        halt(store, connection, failed, now=now, actor=actor)
    end_jobs(store, connection, {v.item.job_id for v in carried}, now=now, actor=actor)
