"""All that brings a file in order, for whoever holds its lock: a daemon, or ``jobd recover`` where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd import process
from jobd.engine import rescue
from jobd.maintenance.recover import Rules, recover
from jobd.store import removal, steer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.config import Settings
    from jobd.maintenance.recover import Holder
    from jobd.maintenance.report import Report
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task


def bring_in_order(
    store: SqliteStore,
    tasks: Mapping[str, Task[..., object]],
    settings: Settings,
    *,
    holder: Holder,
    now: int,
    actor: str,
) -> Report:
    """Settle what the rescue file keeps and what nobody runs; carry out requests that were left half carried out.

    Raises:
        Transient: the store cannot be written now; what was written holds, and the next call goes on.
    """
    rescue.settle_kept(store, now=now, actor=actor)
    report = recover(store, holder=holder, rules=rules(tasks, settings), now=now, actor=actor)
    for job_id in steer.open_requests(store):
        steer.work_off(store, job_id, now=now, actor=actor)
    for job_id in removal.open_removals(store):
        removal.remove_job(store, job_id)
    return report


def rules(tasks: Mapping[str, Task[..., object]], settings: Settings) -> Rules:
    """Return what decides beside the evidence."""
    limits = {name: task.policy.max_interruptions for name, task in tasks.items()}
    return Rules(boot=process.boot(), grace_ms=int(settings.grace * 1000), max_interruptions=limits)
