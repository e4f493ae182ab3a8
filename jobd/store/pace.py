"""A job's recent pace: what it settled in the last minute, or its last few items where it is slower than that.

No counter keeps it, and no index has items by their end. But items start in the order of their ids, so those just
before the first that is still under way were settled last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobd.store.base import Connection

# Two items of one commit are no pace: what was settled within less says nothing of what comes. In milliseconds.
SHORTEST_SPAN: Final = 1_000
RECENT: Final = 60_000
# So many items are a pace, however long they took.
_FEW: Final = 8
# The quicker the items, the more of them it takes to fill a second.
_SAMPLES: Final = (256, 1_024, 4_096)
# Of a job whose items other jobs' lie between: so many ids are passed over for each item of it.
_BETWEEN: Final = 4

_FRONT: Final = (
    "select coalesce((select max(id) from job_items where job_id = j.id and status = 'running'),"
    " (select id from job_items where job_id = j.id and status = 'queued' order by available_at, id limit 1))"
    " from (select ? as id) as j"
)
# The sign keeps the planner on the ids: by the job it would sort all its items.
_BEHIND: Final = (
    "select completed_at as at from job_items where +job_id = ? and id <= ? and id > ? order by id desc limit ?"
)
_LATELY: Final = (
    "select count(*) filter (where at is null), count(*) filter (where at between ? and ?),"
    f" count(*) filter (where at between ? and ?), min(at) filter (where at between ? and ?) from ({_BEHIND})"
)
_LAST_FEW: Final = (
    "select count(*), min(at) from"
    f" (select at from ({_BEHIND}) where at between ? and ? order by at desc limit {_FEW + 1})"
)


def front(connection: Connection, job_id: int) -> int | None:
    """Return the id up to which a job's items have started: of the last that runs, or of the first that is queued."""
    found: int | None = connection.execute(_FRONT, (job_id,)).fetchone()[0]
    return found


def recent_pace(connection: Connection, job_id: int, *, since: int, until: int) -> float | None:
    """Return the items a second that a job settled lately, up to ``until``; None where nothing tells.

    ``since`` is when this run of the job began; both are Unix ms. At most 5,400 items are looked at, of most jobs 256.
    """
    last = front(connection, job_id)
    if last is None:
        return None
    lately = max(since, until - RECENT)
    for sample in _SAMPLES:
        behind = (job_id, last, last - _BETWEEN * sample, sample)
        spans = (since, until, lately, until, lately, until)
        under_way, ended, count, first = connection.execute(_LATELY, (*spans, *behind)).fetchone()
        if count <= _FEW:
            count, first = connection.execute(_LAST_FEW, (*behind, since, until)).fetchone()
        if count > 1 and until - first >= SHORTEST_SPAN:
            return _pace(count, first, until)
        if under_way + ended < sample:
            return None
    # So many within less than a second are a pace, too.
    return _pace(count, first, until) if count > _FEW and until > first else None


def _pace(count: int, first: int, until: int) -> float:
    # The first of them only begins the span: so many were settled after it.
    return round((count - 1) * 1000 / (until - first), 3)
