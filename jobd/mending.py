"""Maintenance from outside a daemon: by the daemon that owns the file where there is one, by this process otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobd import process
from jobd.engine import lock, recovery
from jobd.errors import DaemonRunning
from jobd.maintenance.doctor import Doctor, examine
from jobd.maintenance.recover import Holder
from jobd.maintenance.recover import recover as recover_pass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobd.config import Settings
    from jobd.maintenance.report import Report
    from jobd.store import SqliteStore
    from jobd.tasks import Task


_MOMENT: Final = 0.1


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
        # A daemon that lives holds it; only another mending gives it back in a moment.
        claim.acquire(lock.Owner(me.pid, me.host, now), patience=_MOMENT)
    except DaemonRunning:
        from jobd.engine.daemon import ask  # noqa: PLC0415 - only where a daemon lives

        return ask(store, "recover", check_only=check_only)
    try:
        if check_only:
            limits = recovery.rules(tasks, settings)
            return recover_pass(store, holder=Holder(), rules=limits, now=now, actor=actor, check_only=True)
        return recovery.bring_in_order(store, tasks, settings, holder=Holder(), now=now, actor=actor)
    finally:
        claim.release()


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
