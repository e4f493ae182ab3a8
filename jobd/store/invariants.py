"""What holds at every commit, as named queries that return the rows for which it does not.

A job that is being submitted or deleted is exempt: its halves are several transactions, and nobody acts on it between
them. Each query is one statement and so one snapshot; a daemon may work on meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.codec import KEY_LIMIT, VALUE_LIMIT
from jobd.states import EDGES, ITEM_ENDS, JOB_ENDS
from jobd.store.links import UNMET
from jobd.store.schema import apply_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobd.store.base import Connection, Store

# A broken store may break one rule a million times; so many rows of each tell as much.
LIMIT: Final = 100


class Invariant(NamedTuple):
    """A rule: its name, what it says, and the query of (job id, item id, what is wrong) for the rows that break it."""

    name: str
    sentence: str
    sql: str


class Violation(NamedTuple):
    """A row that breaks the rule ``name``; ids are None where it is no job's or no item's."""

    name: str
    job_id: int | None
    item_id: int | None
    text: str


def _texts(statuses: Iterable[str]) -> str:
    return ", ".join(f"'{status}'" for status in statuses)


def _edges(table: str) -> str:
    """Return the legal (name, from, to) of a table as a list for IN."""
    return ", ".join(
        f"('{edge.name}', '{source}', '{target}')"
        for edge in EDGES[table].values()
        for source in edge.sources
        for target in edge.targets
    )


_WHOLE: Final = "j.sealed_at is not null and j.deleted_at is null"
_ITEMS: Final = f"from job_items i join jobs j on j.id = i.job_id and {_WHOLE}"
_COUNTED: Final = ("running", "waiting", "completed", "failed", "skipped", "cancelled")
_COUNTS: Final = ", ".join(f"count(*) filter (where status = '{status}') as {status}" for status in _COUNTED)
_COUNT_DIFFERS: Final = " or ".join(f"j.items_{name} <> coalesce(c.{name}, 0)" for name in ("total", *_COUNTED))
_COUNT_TEXT: Final = " || ', ' || ".join(
    f"'{name} ' || j.items_{name} || ' for ' || coalesce(c.{name}, 0)" for name in ("total", *_COUNTED)
)


INVARIANTS: Final = (
    Invariant(
        "counters",
        "the counters of a job equal its items",
        f"select j.id, null, 'the counters differ from the items: ' || {_COUNT_TEXT} from jobs j left join"
        f" (select job_id, count(*) as total, {_COUNTS} from job_items group by job_id) c on c.job_id = j.id"
        f" where {_WHOLE} and ({_COUNT_DIFFERS})",
    ),
    Invariant(
        "job_end",
        "a job has a time of its end if and only if it ended",
        "select j.id, null, j.status || case when j.completed_at is null then ' without' else ' with' end"
        f" || ' completed_at' from jobs j where {_WHOLE}"
        f" and (j.status in ({_texts(JOB_ENDS)})) <> (j.completed_at is not null)",
    ),
    Invariant(
        "item_end",
        "an item has a time of its end if and only if it ended",
        "select i.job_id, i.id, i.status || case when i.completed_at is null then ' without' else ' with' end"
        f" || ' completed_at' {_ITEMS}"
        f" where (i.status in ({_texts(ITEM_ENDS)})) <> (i.completed_at is not null)",
    ),
    Invariant(
        "ended_job",
        "a job that ended has no open item",
        f"select i.job_id, i.id, i.status || ' in a job that is ' || j.status {_ITEMS}"
        f" where j.status in ({_texts(JOB_ENDS)}) and i.status not in ({_texts(ITEM_ENDS)})",
    ),
    Invariant(
        "running_job",
        "a running item belongs to a running job",
        f"select i.job_id, i.id, 'running in a job that is ' || j.status {_ITEMS}"
        f" where i.status = 'running' and j.status not in ('running', {_texts(JOB_ENDS)})",
    ),
    Invariant(
        "running_item",
        "a running item names an attempt, a start and a daemon",
        "select i.job_id, i.id, 'running without' || case when i.attempt < 1 then ' an attempt' else '' end"
        " || case when i.started_at is null then ' a start' else '' end"
        f" || case when i.daemon_id is null then ' a daemon' else '' end {_ITEMS}"
        " where i.status = 'running' and (i.attempt < 1 or i.started_at is null or i.daemon_id is null)",
    ),
    Invariant(
        "result",
        "a completed item has one result, of its winning attempt",
        "select i.job_id, i.id, case when r.item_id is null then 'completed without a result'"
        " when r.status <> 'completed' then 'completed, its result is ' || r.status"
        " else 'completed by attempt ' || i.attempt || ', its result is of attempt ' || r.attempt end"
        f" {_ITEMS} left join results r on r.item_id = i.id"
        " where i.status = 'completed' and (r.item_id is null or r.attempt <> i.attempt or r.status <> 'completed')",
    ),
    Invariant(
        "error",
        "a failed item has an error",
        f"select i.job_id, i.id, 'failed without an error' {_ITEMS}"
        " where i.status = 'failed' and coalesce(i.error, '') = '' and coalesce(i.error_type, '') = ''",
    ),
    Invariant(
        "job_events",
        "the events of a job chain along legal edges",
        "select e.job_id, null, 'event ' || e.id || ' (' || e.name || ') goes from '"
        " || coalesce(e.from_status, 'nothing') || ' to ' || coalesce(e.to_status, 'nothing')"
        " || ' after ' || coalesce(e.before, 'nothing')"
        " from (select *, lag(to_status) over (partition by job_id order by id) as before from job_events"
        f" where item_id is null and count is null) e join jobs j on j.id = e.job_id and {_WHOLE}"
        " where coalesce(e.from_status, '') <> coalesce(e.before, '') or not coalesce(case"
        " when e.before is null then e.name = 'submit' and e.to_status = 'queued'"
        " when e.from_status = e.to_status then true"
        f" else (e.name, e.from_status, e.to_status) in (values {_edges('jobs')}) end, false)",
    ),
    Invariant(
        "job_version",
        "the events of a job end in its status and number its version",
        "select j.id, null, j.status || ' at version ' || j.version || ', its ' || coalesce(e.events, 0)"
        " || ' events end in ' || coalesce((select to_status from job_events where id = e.last), 'nothing')"
        " from jobs j left join (select job_id, count(*) as events, max(id) as last from job_events"
        " where item_id is null and count is null group by job_id) e on e.job_id = j.id"
        f" where {_WHOLE} and (j.version <> coalesce(e.events, 0) or j.status <>"
        " coalesce((select to_status from job_events where id = e.last), ''))",
    ),
    Invariant(
        "item_events",
        "an event of an item is a legal edge, or from a status to itself",
        "select e.job_id, e.item_id, 'event ' || e.id || ' (' || e.name || ') goes from '"
        " || coalesce(e.from_status, 'nothing') || ' to ' || coalesce(e.to_status, 'nothing')"
        f" from job_events e join jobs j on j.id = e.job_id and {_WHOLE} where e.item_id is not null"
        " and not coalesce(e.from_status = e.to_status"
        f" or (e.name, e.from_status, e.to_status) in (values {_edges('job_items')}), false)",
    ),
    Invariant(
        "held_back",
        "no job is held back longer than its items",
        "select i.job_id, i.id, 'due at ' || i.available_at || ', its job is held back until ' || j.available_at"
        f" {_ITEMS} where j.completed_at is null and j.available_at > coalesce(j.not_before, 0)"
        " and i.status = 'queued' and i.interruptions = 0 and i.available_at < j.available_at",
    ),
    Invariant(
        "blocked",
        "an open job counts the jobs that it waits for",
        "select b.id, null, 'it waits for ' || b.parents || ' jobs, its counter says ' || b.blocked from"
        " (select j.id, j.blocked, (select count(*) from job_dependencies as d join jobs as p on p.id = d.after_id"
        f" where d.job_id = j.id and {UNMET}) as parents from jobs j where {_WHOLE} and j.completed_at is null) b"
        " where b.parents <> b.blocked and not exists (select 1 from job_dependencies as d join jobs as p"
        " on p.id = d.after_id where d.job_id = b.id and p.untold_at is not null)",
    ),
    Invariant(
        "keys",
        f"a key has 1 to {KEY_LIMIT:,} bytes and no NUL",
        f"select job_id, id, 'a key that is empty, longer than {KEY_LIMIT:,} bytes or has a NUL' from"
        " (select job_id, id, key from job_items union all select id, null, key from jobs where key is not null) k"
        f" where length(cast(key as blob)) not between 1 and {KEY_LIMIT} or instr(key, char(0)) > 0",
    ),
    Invariant(
        "values",
        f"what is kept as JSON is JSON, a payload, a result and params of at most {VALUE_LIMIT // 1024:,} KiB",
        "select job_id, id, what || ' is not JSON, or too long' from"
        " (select job_id, id, 'payload' as what, payload as value, true as bounded from job_items"
        " union all select i.job_id, i.id, 'result', r.value, true from results r join job_items i on i.id = r.item_id"
        " union all select id, null, 'params', params, true from jobs"
        " union all select id, null, 'policy', policy, true from jobs"
        " union all select id, null, 'submitter', submitter, false from jobs"
        " union all select job_id, id, 'progress', progress, false from job_items"
        " union all select null, null, 'state of daemon ' || id, state, false from daemons"
        " union all select null, null, 'tasks of daemon ' || id, tasks, false from daemons"
        " union all select null, null, 'options of ' || name, options, false from passes"
        " union all select null, null, 'report of ' || name, report, false from passes"
        " union all select null, null, 'items of ' || name, items, false from schedules"
        " union all select null, null, 'params of ' || name, params, false from schedules) v"
        f" where not json_valid(value) and value is not null"
        f" or bounded and length(cast(value as blob)) > {VALUE_LIMIT}",
    ),
)

_TYPES: Final = Invariant("types", "a column holds what the schema says", "")
_FOREIGN: Final = Invariant("foreign_keys", "what a row refers to exists", "pragma foreign_key_check")
_INTEGRITY: Final = Invariant("integrity", "the file is whole", "pragma integrity_check(100)")
_QUICK: Final = Invariant("integrity", "the file is whole but perhaps for its indexes", "pragma quick_check(100)")


def invariants(*, quick: bool = False) -> tuple[Invariant, ...]:
    """Return every rule that :func:`check` runs; ``quick`` leaves the indexes unverified."""
    return (*INVARIANTS, _TYPES, _FOREIGN, _QUICK if quick else _INTEGRITY)


def violations(store: Store, invariant: Invariant) -> list[Violation]:
    """Return the first 100 rows that break one rule.

    Raises:
        StoreUnusable: the file is too damaged to be read.
    """
    return store.read(lambda connection: found(connection, invariant))


def found(connection: Connection, invariant: Invariant) -> list[Violation]:
    """Return what ``violations`` does, by a connection of any kind."""
    if invariant is _TYPES:
        return [
            Violation(invariant.name, None, None, f"row {row} of {table} has another type than its column {column}")
            for row, table, column in connection.execute(_of_another_type()).fetchmany(LIMIT)
        ]
    rows = connection.execute(invariant.sql).fetchmany(LIMIT)
    if invariant.name == "foreign_keys":
        return [
            Violation(invariant.name, None, None, f"row {rowid} of {table} refers to a missing row of {parent}")
            for table, rowid, parent, _ in rows
        ]
    if invariant.name == "integrity":
        return [Violation(invariant.name, None, None, text) for (text,) in rows if text != "ok"]
    return [Violation(invariant.name, *row) for row in rows]


@functools.cache
def _of_another_type() -> str:
    """Return the query of (row, table, column) for what no statement of jobd's stores: a flipped bit does."""
    # By a new schema and not by the file's own, whose text may have a flipped bit as well.
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        apply_schema(new)
        columns = new.execute(
            "select m.name, c.name, lower(c.type) from sqlite_master as m join pragma_table_info(m.name) as c"
            " where m.type = 'table' and m.name not like 'sqlite_%'"
        ).fetchall()
    wrong: dict[str, list[str]] = {}
    for table, column, kind in columns:
        wrong.setdefault(table, []).append(f"when typeof({column}) not in ('{kind}', 'null') then '{column}'")
    # One pass over each table, however many columns it has.
    looks = (
        f"select rowid as id, '{table}' as t, case {' '.join(of)} end as c from {table}" for table, of in wrong.items()
    )
    return f"select id, t, c from ({' union all '.join(looks)}) where c is not null"


def check(store: Store, *, quick: bool = False) -> list[Violation]:
    """Return what breaks any rule, at most 100 rows for each; an empty list is a store that is true.

    Raises:
        StoreUnusable: the file is too damaged to be read.
    """
    return [violation for invariant in invariants(quick=quick) for violation in violations(store, invariant)]
