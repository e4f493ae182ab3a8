"""A job among those that it is linked to: all that it comes after, and all that comes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd.states import COMPLETED
from jobd.store.views import Phase, Phases

if TYPE_CHECKING:
    from jobd.store.base import Connection

MOST: Final = 1_000  # jobs each way that are counted: 5 ms
SHOWN: Final = 12
_CHAIN: Final = (
    "with recursive up (id) as (select ? union"
    " select d.after_id from up cross join job_dependencies as d on d.job_id = up.id limit ?),"
    " down (id) as (select ? union"
    " select d.job_id from down cross join job_dependencies as d on d.after_id = down.id limit ?)"
    " select j.id, j.task, j.status from (select id from up union select id from down) as c"
    " cross join jobs as j on j.id = c.id and j.deleted_at is null order by j.id"
)


def has_children(connection: Connection, job_id: int) -> bool:
    """Say whether any job comes after this one."""
    text = "select exists (select 1 from job_dependencies where after_id = ?)"
    return bool(connection.execute(text, (job_id,)).fetchone()[0])


def phases(connection: Connection, job_id: int) -> Phases:
    """Return how far a job has come with all that it comes after, and all that comes after it."""
    found = [Phase(*row) for row in connection.execute(_CHAIN, (job_id, MOST, job_id, MOST)).fetchall()]
    completed = sum(phase.status == COMPLETED for phase in found)
    # Of many those around the job itself.
    place = next((index for index, phase in enumerate(found) if phase.id == job_id), 0)
    first = max(0, min(place - SHOWN // 2, len(found) - SHOWN))
    return Phases(completed, len(found), len(found) >= MOST, tuple(found[first : first + SHOWN]))
