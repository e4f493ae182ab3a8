"""Maintenance from outside a daemon: by the daemon that owns the file where there is one, by this process otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd import process
from jobd.engine import lock, rescue
from jobd.errors import DaemonRunning
from jobd.maintenance.doctor import Doctor, examine
from jobd.maintenance.recover import Holder, Rules
from jobd.maintenance.recover import recover as recover_pass
from jobd.store import removal, steer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobd.config import Settings
    from jobd.maintenance.report import Report
    from jobd.store import SqliteStore
    from jobd.tasks import Task


def recover(  # noqa: PLR0913 - the store, the rules and the time
    store: SqliteStore,
    tasks: Mapping[str, Task[Any, Any]],
    settings: Settings,
    *,
    now: int,
    actor: str,
    check_only: bool,
) -> Report:
    """Settle the running items that nobody runs, and return what was done, or with ``check_only`` what would be.

    What a daemon does at its start is done here too: outcomes of the rescue file, and requests left half carried out.

    Raises:
        StoreUnusable: the lock cannot be taken.
        StoreBusy: the database stayed locked, or the daemon that owns it did not answer.
    """
    claim = lock.Lock(store.path)
    me = process.myself()
    try:
        claim.acquire(lock.Owner(me.pid, me.host, now))
    except DaemonRunning:
        from jobd.engine.daemon import ask  # noqa: PLC0415 - only where a daemon lives

        return ask(store, "recover", check_only=check_only)
    try:
        if not check_only:
            rescue.settle_kept(store, now=now, actor=actor)
        limits = {name: task.policy.max_interruptions for name, task in tasks.items()}
        rules = Rules(boot=me.boot, grace_ms=int(settings.grace * 1000), max_interruptions=limits)
        report = recover_pass(store, holder=Holder(), rules=rules, now=now, actor=actor, check_only=check_only)
        if not check_only:
            _finish_requests(store, now=now, actor=actor)
        return report
    finally:
        claim.release()


def _finish_requests(store: SqliteStore, *, now: int, actor: str) -> None:
    for job_id in steer.open_requests(store):
        steer.work_off(store, job_id, now=now, actor=actor)
    for job_id in removal.open_removals(store):
        removal.remove_job(store, job_id)


def doctor(store: SqliteStore, *, now: int) -> Doctor:
    """Examine the file, its lock and every rule of truth; nothing is changed.

    Raises:
        StoreUnusable: the file cannot be used as it is.
    """
    holder = None
    if lock.probe(store.path):
        owner = lock.owner(store.path)
        holder = f"pid {owner.pid} on {owner.host}" if owner is not None else "an unknown process"
    return examine(store, lock_holder=holder, now=now)
