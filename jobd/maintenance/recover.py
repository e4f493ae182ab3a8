"""recover: what is ``running`` in the store and that nobody runs goes back to ``queued``, by evidence before time.

In this order: a stored result decides; an item whose daemon is not the holder of the file's lock is run by nobody,
now; and only where there is no proof, silence for the whole grace. Whoever calls holds the lock.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd.maintenance.report import Change, Report
from jobd.states import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING
from jobd.store.ending import Ended, end_jobs
from jobd.store.removal import GAP_SECONDS, dead_submissions, remove_job, request_removal
from jobd.store.transitions import OPEN, Event, Move, count_moves, last_errors, record

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobd.store.base import Connection, Store

GRACE_MS: Final = 600_000
MAX_INTERRUPTIONS: Final = 5
_BATCH: Final = 2_000


def _move(edge: str, target: str, *columns: str, sets: tuple[str, ...] = (), silent: bool) -> Move:
    return Move(
        "job_items",
        edge,
        target,
        source=RUNNING,
        fenced=True,
        columns=columns,
        sets=sets,
        also=_SILENT if silent else "",
    )


# Where only the clock speaks, it is asked again in the statement that acts.
_SILENT: Final = (
    "job_items.completed_at is null and coalesce(job_items.started_at, 0) < ?"
    " and not exists (select 1 from daemons as d"
    " where d.id = job_items.daemon_id and d.heartbeat_at >= ? and d.id <> ?)"
)
_MOVES: Final = {
    (edge, target, silent): _move(edge, target, *columns, sets=sets, silent=silent)
    for silent in (False, True)
    for edge, target, columns, sets in (
        (
            "recover",
            QUEUED,
            ("interruptions", "lone_deaths"),
            ("daemon_id=null", "available_at=0", "completed_at=null"),
        ),
        ("abandon", FAILED, ("interruptions", "lone_deaths", "error", "completed_at"), ("error_type=null",)),
        ("cancel", CANCELLED, ("completed_at",), ()),
        ("reconcile", COMPLETED, ("completed_at",), ("error_type=null", "error=null")),
        ("reconcile", FAILED, ("completed_at", "error"), ("error_type=null",)),
    )
}


@dataclass(frozen=True)
class Holder:
    """Who holds the file's lock: the daemon's id and the items that its registry knows.

    ``daemon_id`` None: no daemon, the caller holds it. ``locks`` false: the file system has none, so that nothing is
    proved by another daemon's id and only its heartbeat counts.
    """

    daemon_id: int | None = None
    known: Collection[int] = frozenset()
    locks: bool = True


@dataclass(frozen=True)
class Rules:
    """What decides beside the evidence: the grace in ms, this boot, and how often a task's item may die alone."""

    boot: str
    grace_ms: int = GRACE_MS
    max_interruptions: Mapping[str, int] | None = None

    def limit(self, task: str) -> int:
        """Return how many lone deaths an item of ``task`` may have."""
        return (self.max_interruptions or {}).get(task, MAX_INTERRUPTIONS)


class _Running(NamedTuple):
    """A running item and what is known of it."""

    id: int
    job_id: int
    key: str
    attempt: int
    daemon_id: int | None
    since: int
    interruptions: int
    lone_deaths: int
    task: str
    requested: int
    result: str | None
    value: str | None
    boot: str | None
    heartbeat_at: int | None
    completed_at: int | None


# In the order of the small index of running items: by their id alone SQLite would pass over every item there is. A
# result counts only for the attempt that left it; a daemon that left in order was killed by nobody.
_RUNNING: Final = (
    "select i.id, i.job_id, i.key, i.attempt, i.daemon_id, coalesce(i.started_at, j.started_at, j.created_at),"
    " i.interruptions, i.lone_deaths, j.task,"
    " j.cancel_requested_at is not null or j.fail_requested_at is not null,"
    " r.status, r.value, case when d.stopped_at is null then d.boot end, d.heartbeat_at, i.completed_at"
    " from job_items as i join jobs as j on j.id = i.job_id"
    " left join results as r on r.item_id = i.id and r.attempt = i.attempt left join daemons as d on d.id = i.daemon_id"
    " where i.status = 'running' and (i.job_id, i.id) > (?, ?) and j.deleted_at is null"
    " order by i.job_id, i.id limit ?"
)
_ROWS_OF: Final = "select daemon_id, count(*) from job_items where status = 'running' group by daemon_id"


class _Verdict(NamedTuple):
    """What becomes of one orphan, and why."""

    item: _Running
    edge: str
    target: str
    evidence: str
    silent: bool
    columns: tuple[Any, ...]
    error: str | None = None


def recover(store: Store, *, holder: Holder, rules: Rules, now: int, actor: str, check_only: bool = False) -> Report:
    """Settle every orphan, remove dead submissions, end jobs that have nothing open; return what was changed.

    With ``check_only`` nothing is written and the report says what would be.
    """
    verdicts: list[_Verdict] = []
    last = (0, 0)
    # Before anything is changed: in the last of several batches a daemon's one row left is not its only one.
    rows_of = store.read(lambda connection: dict(connection.execute(_ROWS_OF).fetchall()))
    while rows_of:

        def batch(connection: Connection, last: tuple[int, int] = last) -> tuple[list[_Running], list[_Verdict]]:
            found = [_Running(*row) for row in connection.execute(_RUNNING, (*last, _BATCH)).fetchall()]
            judged = _judge(found, rows_of, holder=holder, rules=rules, now=now)
            if not check_only:
                judged = _carry_out(store, connection, judged, holder=holder, rules=rules, now=now, actor=actor)
            return found, judged

        found, judged = store.read(batch) if check_only else store.write(batch)
        verdicts += judged
        if len(found) < _BATCH:
            break
        last = (found[-1].job_id, found[-1].id)
        time.sleep(0.0 if check_only else GAP_SECONDS)
    submissions = dead_submissions(store)
    if not check_only:
        _request_removals(store, [job_id for job_id, _ in submissions], now)
        for job_id, _ in submissions:
            remove_job(store, job_id)
    changes = [
        Change(v.item.job_id, v.item.id, v.item.key, RUNNING, v.target, v.evidence, v.item.since, v.item.attempt)
        for v in verdicts
    ]
    changes += [Change(job_id, None, None, QUEUED, "removed", "its submitter is gone") for job_id, _ in submissions]
    changes += _end_finished(store, now=now, actor=actor, check_only=check_only)
    return Report("recover", check_only, changes, dict(Counter(change.to_status for change in changes)))


def _judge(
    found: Sequence[_Running], rows_of: Mapping[int | None, int], *, holder: Holder, rules: Rules, now: int
) -> list[_Verdict]:
    verdicts = []
    for item in found:
        if item.result is not None:
            target = COMPLETED if item.result == COMPLETED else FAILED
            error = None if target == COMPLETED else item.value or "failed"
            columns = (now,) if error is None else (now, error)
            verdicts.append(_Verdict(item, "reconcile", target, "a result is stored", False, columns, error))
            continue
        evidence = _evidence(item, holder, rules, now)
        if evidence is not None:
            alone = rows_of.get(item.daemon_id) == 1 and item.boot == rules.boot
            verdicts.append(_interrupted(item, evidence, rules, now, alone=alone))
    return verdicts


def _evidence(item: _Running, holder: Holder, rules: Rules, now: int) -> tuple[str, bool] | None:
    """Return what tells that nobody runs the item and whether it is only silence; None while somebody may."""
    mine = item.daemon_id is not None and item.daemon_id == holder.daemon_id
    if mine and item.id in holder.known:
        return None
    if item.daemon_id is not None and not mine and holder.locks:
        return "its daemon is gone", False
    if item.since >= now - rules.grace_ms or item.completed_at is not None:
        return None
    if not mine and item.heartbeat_at is not None and item.heartbeat_at >= now - rules.grace_ms:
        return None
    return f"silent for over {rules.grace_ms // 1000} s", True


def _interrupted(item: _Running, evidence: tuple[str, bool], rules: Rules, now: int, *, alone: bool) -> _Verdict:
    why, silent = evidence
    if item.requested:
        return _Verdict(item, "cancel", CANCELLED, why, silent, (now,))
    interruptions = item.interruptions + 1
    deaths = item.lone_deaths + (1 if alone and not silent else 0)
    if deaths > rules.limit(item.task):
        error = f"interrupted: its daemon died {deaths} times while it ran alone"
        columns = (interruptions, deaths, error, now)
        return _Verdict(item, "abandon", FAILED, f"alone at {deaths} deaths", silent, columns, error)
    return _Verdict(item, "recover", QUEUED, why, silent, (interruptions, deaths))


def _carry_out(
    store: Store,
    connection: Connection,
    verdicts: Sequence[_Verdict],
    *,
    holder: Holder,
    rules: Rules,
    now: int,
    actor: str,
) -> list[_Verdict]:
    """Carry the verdicts out and return those whose guard held."""
    moved: dict[str, Counter[int]] = {}
    events = []
    carried = []
    since = now - rules.grace_ms
    for v in verdicts:
        move = _MOVES[v.edge, v.target, v.silent]
        also = (since, since, holder.daemon_id or 0) if v.silent else ()
        if move.run(store, connection, [(v.item.id, v.item.attempt, *v.columns)], also=also) != 1:
            continue
        carried.append(v)
        moved.setdefault(v.target, Counter())[v.item.job_id] += 1
        events.append(
            Event(v.item.job_id, v.item.id, v.edge, RUNNING, v.target, now, actor, v.item.attempt, message=v.evidence)
        )
    record(store, connection, events)
    for target, jobs in moved.items():
        count_moves(store, connection, jobs, RUNNING, target, progress=now)
    last_errors(store, connection, {v.item.job_id: v.error for v in carried if v.error is not None})
    end_jobs(store, connection, {v.item.job_id for v in carried}, now=now, actor=actor)
    return carried


def _request_removals(store: Store, job_ids: Sequence[int], now: int) -> None:
    """Free the keys of dead submissions at once: their rows go in batches, and their submitter may be back by then."""

    def work(connection: Connection) -> None:
        for job_id in job_ids:
            request_removal(store, connection, job_id, now)

    if job_ids:
        store.write(work)


def _end_finished(store: Store, *, now: int, actor: str, check_only: bool) -> list[Change]:
    """End the jobs that were left open though nothing of them is."""

    def find(connection: Connection) -> list[int]:
        left = connection.execute(
            f"select id from jobs where {OPEN} and sealed_at is not null and deleted_at is null"  # noqa: S608 - our own text
            " and items_total = items_completed + items_failed + items_skipped + items_cancelled"
        ).fetchall()
        return [row[0] for row in left]

    def work(connection: Connection) -> list[Ended]:
        return end_jobs(store, connection, job_ids, now=now, actor=actor, check_only=check_only)

    # Looked for outside the write lock: among 100,000 open jobs it takes 40 ms, and mostly there is none. end_jobs asks
    # again which of them have nothing open.
    job_ids = store.read(find)
    if not job_ids:
        return []
    ended = store.read(work) if check_only else store.write(work)
    return [Change(job.job_id, None, None, job.before, job.status, "nothing of it is open") for job in ended]
