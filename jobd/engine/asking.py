"""What a client asks of the daemon that lives: to run one of its passes, now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from jobd import clock
from jobd.engine import lock
from jobd.engine.passes import PASSES, Situation
from jobd.errors import StoreBusy
from jobd.maintenance.evidence import Holder
from jobd.maintenance.report import Report
from jobd.store import daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.config import Settings
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

ANSWER_WITHIN: Final = 30.0
_LOOK_EVERY: Final = 0.02
_PROBE_EVERY: Final = 10  # looks: a probe holds the lock for an instant, and is in the way of a daemon that starts


class _Everything(frozenset[int]):
    """What a live daemon's registry may know, as seen from outside: any item."""

    def __contains__(self, item: object) -> bool:
        return True


def look(
    store: SqliteStore,
    name: str,
    tasks: Mapping[str, Task[..., object]],
    settings: Settings,
    *,
    now: int,
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Return what the pass ``name`` would do beside the live daemon, by the caller's own tasks and settings.

    What the daemon's registry knows is not seen from here: of the daemon's own items none is judged.
    """
    holder = Holder(daemons.newest(store), _Everything())
    situation = Situation(tasks, settings, holder, now, actor="", check_only=True, options=options or {})
    return PASSES[name].run(store, situation)


def ask(
    store: SqliteStore,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    waiting: Callable[[], object] | None = None,
) -> Report | None:
    """Have the live daemon run its pass ``name`` and return the report; None where it left before it answered.

    ``options`` are JSON: what the pass takes beside its name. A pass that has begun may take its time. ``waiting`` is
    called every now and then until the answer is there; what it raises ends the waiting, not the pass.

    Raises:
        StoreBusy: the daemon did not begin in time.
    """
    daemons.request(store, name, now=clock.now(), options=options)
    until = clock.awake() + ANSWER_WITHIN
    looks = 0
    while clock.awake() < until:
        try:
            answer = daemons.answered(store, name, options)
        except daemons.OtherOptions:
            daemons.request(store, name, now=clock.now(), options=options)
            continue
        if answer is not None:
            return Report.loads(answer)
        looks += 1
        if looks % _PROBE_EVERY == 0:
            if not lock.probe(store.path):
                return None
            if daemons.under_way(store, name):
                until = clock.awake() + ANSWER_WITHIN
        if waiting is not None:
            waiting()
        time.sleep(_LOOK_EVERY)
    raise StoreBusy(f"the daemon did not answer within {ANSWER_WITHIN:.0f} s", hint="jobd doctor")
