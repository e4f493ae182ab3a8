"""How items come to say what their stored results say, and their jobs with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.store.contradicted import Contradicted, bring_in_line
from jobd.store.ending import decide_anew, end_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobd.store.base import Connection, Store


def carry_out(
    store: Store, connection: Connection, found: Sequence[Contradicted], *, now: int, actor: str
) -> list[Contradicted]:
    """Bring items in line with their results, end their jobs or decide anew how those ended; return what moved."""
    if not found:
        return []
    brought = bring_in_line(store, connection, found, now=now, actor=actor)
    jobs = {item.job_id for item in brought}
    end_jobs(store, connection, jobs, now=now, actor=actor)
    decide_anew(store, connection, jobs, now=now, actor=actor)
    return brought
