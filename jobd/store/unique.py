"""Results, and the period that those of a unique task claim: of one key there is one for each period.

The unique index of (task, key, period) decides, in the transaction that stores a result; what is looked up before it
only says who was first. A result whose period another took over stays, without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobd import zones
from jobd.states import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobd.store.base import Connection, Store


class Unique(NamedTuple):
    """How a task is unique: once for each ``unit``, which is "day", in the time zone of this name."""

    unit: str
    zone: str

    def period(self, at: int) -> str:
        """Return the period of an attempt that starts ``at`` (Unix ms)."""
        return zones.day(at, self.zone)

    def policy(self) -> dict[str, str]:
        """Return what the policy of a job says of it, for who settles its items without knowing the task."""
        return {"unique": self.unit, "zone": self.zone}


class Wanted(NamedTuple):
    """A result that claims a period; with ``refresh`` it takes it over from an older one."""

    item_id: int
    job_id: int
    task: str
    key: str
    period: str
    refresh: bool


class Judged(NamedTuple):
    """Who has which period: ``held`` by item, ``lost`` with the reason by item, ``given_up`` by older items, each with
    the item that takes it over.
    """

    held: dict[int, str]
    lost: dict[int, str]
    given_up: dict[int, int]


def judge(store: Store, connection: Connection, wanted: Sequence[Wanted]) -> Judged:
    """Say which of the results may have their periods, the first of a batch before the next; nothing is written."""
    stored = taken(store, connection, wanted)
    holders = dict(stored)
    held: dict[int, str] = {}
    lost: dict[int, str] = {}
    given_up: dict[int, int] = {}
    for one in wanted:
        of = (one.task, one.key, one.period)
        holder = holders.get(of)
        if holder is not None and holder[0] != one.item_id:
            if not one.refresh:
                lost[one.item_id] = reason(one.period, *holder)
                continue
            held.pop(holder[0], None)
            given_up[stored.get(of, holder)[0]] = one.item_id
        holders[of] = (one.item_id, one.job_id)
        held[one.item_id] = one.period
    return Judged(held, lost, given_up)


def reason(period: str, item_id: int, job_id: int) -> str:
    """Return why an item is skipped whose period that other one has."""
    return f"its day {period} is taken by {job_id}:#{item_id}"


# The third term is that of the partial index, to the letter: SQLite takes it only then.
_TAKEN: Final = (
    "from {rows} as m cross join results as r on r.task = m.task and r.key = m.key and r.period = m.period"
    " and r.period is not null cross join job_items as i on i.id = r.item_id"
)
_TAKEN_COLUMNS: Final = "r.task as task, r.key as key, r.period as period, r.item_id as item_id, i.job_id as job_id"


def taken(
    store: Store, connection: Connection, wanted: Sequence[Wanted]
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Return (item id, job id) of who has each (task, key, period) that is wanted, where anybody has."""
    source = _TAKEN.format(rows=store.rows("task", "key", "period"))
    asked = store.pack([(one.task, one.key, one.period) for one in wanted])
    found = store.gather(connection, _TAKEN_COLUMNS, source, (asked,))
    return {(task, key, period): (item_id, job_id) for task, key, period, item_id, job_id in found}


# -- storing ----------------------------------------------------------------------------------------------------------

_STORE: Final = (
    "insert into results (item_id, attempt, task, key, status, source, value, created_at)"
    " select i.id, i.attempt, j.task, i.key, ?, ?, m.value, ? from {pairs} as m"
    " join job_items as i on i.id = cast(m.id as integer) join jobs as j on j.id = i.job_id where true"
    " on conflict (item_id) do update set attempt=excluded.attempt, status=excluded.status,"
    " source=excluded.source, value=excluded.value, created_at=excluded.created_at, pruned_at=null"
)


def store_results(
    store: Store,
    connection: Connection,
    values: Mapping[int, str],
    *,
    now: int,
    source: str = "handler",
    judged: Judged | None = None,
) -> None:
    """Store results, JSON text by item, for the attempt that each item is at; a later one replaces an earlier one.

    A row that is there keeps its period, a new one has that which ``judged`` says.
    """
    if values:
        statement = _STORE.format(pairs=store.pairs("id", "value"))
        connection.execute(statement, (COMPLETED, source, now, store.pack_pairs(values)))
    if judged is not None:
        hold(store, connection, judged, values.keys())


def hold(store: Store, connection: Connection, judged: Judged, item_ids: Collection[int]) -> None:
    """Write the periods of these items' results, which are stored; whoever has to give one up keeps its row."""
    older = [(item_id,) for item_id, heir in judged.given_up.items() if heir in item_ids]
    if older:
        connection.execute(
            f"update results set period=null where item_id in (select id from {store.rows('id')} as m)",
            (store.pack(older),),
        )
    held = [(item_id, period) for item_id, period in judged.held.items() if item_id in item_ids]
    if held:
        connection.execute(
            f"update results set period=m.period from {store.rows('id', 'period')} as m where results.item_id=m.id",
            (store.pack(held),),
        )


def judge_items(store: Store, connection: Connection, item_ids: Collection[int], *, now: int) -> Judged:
    """Say which of these items may leave a result now, as their jobs tell how their tasks are unique.

    For who has no more than a result and its item: a delivery, a task's own answer about an orphan. Who lost is to be
    skipped with the reason; the results of the others are stored with what this returns.
    """
    wanted = _wanted(store, connection, item_ids, now) if item_ids else []
    return judge(store, connection, wanted) if wanted else Judged({}, {}, {})


_OF_UNIQUE: Final = (
    "from {rows} as m cross join job_items as i on i.id = m.id join jobs as j on j.id = i.job_id"
    " where j.policy <> '{{}}'"
    # A result that this very attempt has stored claimed its period then, and may have given it up since.
    " and not exists (select 1 from results as r where r.item_id = i.id and r.attempt = i.attempt"
    " and r.status = 'completed')"
)
_OF_UNIQUE_COLUMNS: Final = (
    "i.id as id, i.job_id as job_id, j.task as task, i.key as key, i.started_at as started_at, j.policy as policy"
)


def _wanted(store: Store, connection: Connection, item_ids: Collection[int], now: int) -> list[Wanted]:
    if not item_ids:
        return []
    source = _OF_UNIQUE.format(rows=store.rows("id"))
    found = store.gather(connection, _OF_UNIQUE_COLUMNS, source, (store.pack([(i,) for i in item_ids]),))
    wanted = []
    for item_id, job_id, task, key, started_at, policy in found:
        unique, refresh = of_policy(policy)
        if unique is not None:
            # What is queued again has no start: its day is that on which the answer came.
            period = unique.period(now if started_at is None else started_at)
            wanted.append(Wanted(item_id, job_id, task, key, period, refresh))
    return wanted


# -- what a job keeps of it -------------------------------------------------------------------------------------------


def of_policy(policy: str) -> tuple[Unique | None, bool]:
    """Return how the task of a job is unique, and whether the job refreshes, from the policy that its row keeps."""
    if policy == "{}":
        return None, False
    try:
        own: Any = json.loads(policy)
    except (ValueError, RecursionError):
        own = None
    if not isinstance(own, dict):
        return None, False
    unit, zone = own.get("unique"), own.get("zone", zones.UTC)
    return (Unique("day", zone) if unit == "day" and _exists(zone) else None), own.get("refresh") is True


_NOTE_REFRESH: Final = (
    "update jobs set policy = json_patch(policy, ?)"
    " where id = ? and case when json_valid(policy) then coalesce(json_extract(policy, '$.refresh'), 0) end <> ?"
)


def note_refresh(connection: Connection, job_id: int, *, refresh: bool) -> None:
    """Keep with a job whether the results that its items will leave take their periods over from older ones."""
    patch = json.dumps({"refresh": True if refresh else None})
    connection.execute(_NOTE_REFRESH, (patch, job_id, refresh))


def _exists(zone: Any) -> bool:
    # The file may come from a machine that knows other zones.
    try:
        zones.checked(zone)
    except ValueError:
        return False
    return True
