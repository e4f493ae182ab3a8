"""fire: what a program schedules is submitted when its time has come, each slot once ever."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jobd.errors import Conflict, UsageError
from jobd.maintenance.report import Change, Report, Tally
from jobd.states import QUEUED
from jobd.store.batches import always
from jobd.store.failures import Permanent
from jobd.store.firing import fire_by_hand, fire_slot
from jobd.store.schedules import take_over
from jobd.store.views import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.store.base import Store
    from jobd.store.firing import Fired
    from jobd.store.schedules import Declared

log = logging.getLogger("jobd.maintenance")

FIRED: Final = "fired"
LEFT_OUT: Final = "left_out"


def _nothing(point: str) -> None:
    """Go on."""


def fire(
    store: Store,
    *,
    declared: Mapping[str, Declared],
    now: int,
    by_hand: str | None = None,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
    reached: Callable[[str], None] = _nothing,
) -> Report:
    """Take over what the program declares, fire the slots that are due, and return what that was.

    A schedule that the program does not declare is left as it is: its code is not here. ``by_hand`` names one to make a
    job of now, apart from its slots, and then nothing else is done. With ``check_only`` nothing is written; what is not
    stored yet is not due. Where ``go_on`` says no, the rest is left to the next call.
    """
    tally = Tally()
    if not check_only:
        take_over(store, declared.values(), now=now)
    if by_hand is not None:
        _by_hand(store, declared, by_hand, tally, now=now, check_only=check_only)
        return tally.report("fire", check_only=check_only)
    for schedule in declared.values():
        if not go_on():
            break
        try:
            fired = fire_slot(store, schedule, now=now, check_only=check_only, reached=reached)
        except (Conflict, UsageError, Permanent) as error:
            # One that cannot be fired now must not keep the others from it.
            log.warning("schedule %s could not be fired: %s", schedule.name, error)
            tally.stay(f"schedule {schedule.name}: {error}")
        else:
            if fired is not None:
                _tell(tally, schedule, fired)
    return tally.report("fire", check_only=check_only)


def _tell(tally: Tally, schedule: Declared, fired: Fired) -> None:
    slot = f"schedule {schedule.name}: the slot of {iso(fired.slot)}"
    if fired.why is None:
        tally.add(Change(fired.job_id, None, None, None, QUEUED, slot), FIRED)
        return
    log.info("%s is left out: %s", slot, fired.why)
    tally.add(Change(fired.job_id, None, None, fired.job_status, LEFT_OUT, f"{slot}: {fired.why}"), LEFT_OUT)


def _by_hand(
    store: Store, declared: Mapping[str, Declared], name: str, tally: Tally, *, now: int, check_only: bool
) -> None:
    if name not in declared:
        tally.stay(f"schedule {name}: its code is not in the program that runs")
        return
    try:
        job_id = None if check_only else fire_by_hand(store, declared[name], now=now)
    except Conflict as error:
        tally.stay(str(error))
        return
    tally.add(Change(job_id, None, None, None, QUEUED, f"schedule {name}: by hand"), FIRED)
