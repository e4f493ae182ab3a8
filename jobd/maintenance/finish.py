"""finish: what was requested of whole jobs and left half carried out, by whoever was killed or has left since.

And what that leaves free in the file goes back to the file system.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jobd.errors import NotFound
from jobd.store import removal, steer, vacuum
from jobd.store.batches import always
from jobd.store.follow import follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.store.sqlite import SqliteStore


def finish(store: SqliteStore, *, now: int, actor: str, go_on: Callable[[], bool] = always) -> bool:
    """Work off open cancel and fail requests and remove the jobs that are being deleted; say whether that was all.

    Where ``go_on`` says no between two batches, the rest is left to the next call.

    Raises:
        Transient: the store cannot be written now; what was written holds, and the next call goes on.
    """
    through = finish_requests(store, now=now, actor=actor, go_on=go_on) and finish_removals(store, go_on=go_on)
    if through:
        vacuum.give_back(store, go_on=go_on)
    return through


def finish_requests(store: SqliteStore, *, now: int, actor: str, go_on: Callable[[], bool] = always) -> bool:
    """Do the half of :func:`finish` that ends jobs, and has others follow them: somebody may wait for it."""
    for job_id in steer.open_requests(store):
        # Somebody else may have deleted it meanwhile.
        with contextlib.suppress(NotFound):
            steer.work_off(store, job_id, now=now, actor=actor, go_on=go_on)
        if not go_on():
            return False
    return follow(store, None, now=now, actor=actor, go_on=go_on)


def finish_removals(store: SqliteStore, *, go_on: Callable[[], bool] = always) -> bool:
    """Do the half of :func:`finish` that removes jobs, which may take minutes and nobody waits for."""
    last = 0
    while job_ids := removal.open_removals(store, last):
        removal.remove_jobs(store, job_ids, go_on=go_on)
        if not go_on():
            return False
        # One that another job waits for stays until that has ended: it is not asked about twice.
        last = job_ids[-1]
    return True
