"""Maintenance from outside a daemon: by the daemon that owns the file where there is one, by this process otherwise."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobd import process
from jobd.atomic import refuse_inside
from jobd.engine import asking, lock
from jobd.engine.passes import PASSES, Situation
from jobd.errors import DaemonRunning
from jobd.maintenance.checkpoint import checkpoint
from jobd.maintenance.doctor import Doctor, examine
from jobd.maintenance.evidence import Holder
from jobd.maintenance.finish import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from jobd.config import Settings
    from jobd.maintenance.report import Report
    from jobd.store import SqliteStore
    from jobd.tasks import Task

_MOMENT: Final = 0.1


def run_pass(  # noqa: PLR0913 - the store, the rules and the time
    store: SqliteStore,
    name: str,
    tasks: Mapping[str, Task[Any, Any]],
    settings: Settings,
    *,
    now: int,
    actor: str,
    check_only: bool,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Run the pass ``name``, or have the live daemon run it; return what was done, or with ``check_only`` would be.

    ``options`` are JSON: what the pass takes beside its name. ``progress`` is told how many items it was so far, of how
    many, where this process does it; while a daemon is waited for that is 0 of 0.

    Without a daemon, what was requested and left half carried out is finished as well, as a daemon does at its start.

    Raises:
        StoreUnusable: the lock cannot be taken.
        StoreBusy: the database stayed locked, or the daemon that owns it did not answer.
    """
    refuse_inside(store, "a pass")
    while True:
        with _unowned(store, now) as unowned:
            if unowned:
                go_on = functools.partial(_relieve, store, settings)
                situation = Situation(
                    tasks, settings, Holder(), now, actor, check_only, go_on, options=options or {}, progress=progress
                )
                report = PASSES[name].run(store, situation)
                if not check_only:
                    finish(store, now=now, actor=actor, go_on=go_on)
                return report
        if check_only:
            return asking.look(store, name, tasks, settings, now=now, options=options)
        answer = asking.ask(store, name, options, waiting=None if progress is None else lambda: progress(0, 0))
        if answer is not None:
            return answer


def _relieve(store: SqliteStore, settings: Settings) -> bool:
    """Go on, with a log that stays small: who holds the lock is the one that may checkpoint."""
    if store.wal_bytes() > settings.checkpoint_bytes:
        checkpoint(store)
    return True


@contextmanager
def _unowned(store: SqliteStore, now: int) -> Iterator[bool]:
    """Hold the file's lock within the context; false where a daemon does."""
    claim = lock.Lock(store.path)
    me = process.myself()
    try:
        # A daemon that lives holds it; only another mending gives it back in a moment.
        claim.acquire(lock.Owner(me.pid, me.host, now), patience=_MOMENT)
    except DaemonRunning:
        yield False
        return
    try:
        yield True
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
