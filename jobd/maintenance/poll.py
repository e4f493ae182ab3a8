"""poll: asks the outside, by the tasks' own code, about the items that wait for it and are due to be asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from jobd.maintenance.report import Change, Report, Tally
from jobd.states import WAITING
from jobd.store import polling
from jobd.store.batches import Pace, always, breathe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.store.base import Connection, Store
    from jobd.store.polling import Said, Waiting

# What a task's own code says of these items of it, as far as it was asked. It raises nothing, and is called outside of
# every transaction: it may take its time.
Poll: TypeAlias = Callable[[Sequence["Waiting"]], Sequence["Said"]]

MOST: Final = 500  # items that one pass asks about; what else is due comes next
DUE: Final = "due"
NOT_YET: Final = "not_yet"


class Asker:
    """How a task asks: its hook, and about how many items that is asked at once."""

    def __init__(self, ask: Poll, at_once: int) -> None:
        self.ask = ask
        self.at_once = at_once


def poll(
    store: Store,
    *,
    askers: Mapping[str, Asker],
    now: int,
    actor: str,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
) -> Report:
    """Ask about up to 500 items that are due, write what is answered, and return what changed.

    With ``check_only`` nobody is asked and nothing is written; the report says how many are due. Where ``go_on`` says
    no between two questions, the rest is left to the next call.
    """
    tally = Tally()
    found = store.read(lambda connection: polling.due(store, connection, askers.keys(), now, MOST)) if askers else []
    if check_only:
        tally.counts[DUE] = len(found)
        return tally.report("poll", check_only=True)
    for task, items in _by_task(found).items():
        asker = askers[task]
        for start in range(0, len(items), asker.at_once):
            if not go_on():
                break
            said = asker.ask(items[start : start + asker.at_once])
            if not go_on():
                # That may have taken long: who was told to leave meanwhile may not hold the lock any more.
                break
            _settle(store, said, tally, actor=actor)
    return tally.report("poll", check_only=False)


def _by_task(found: Sequence[Waiting]) -> dict[str, list[Waiting]]:
    by_task: dict[str, list[Waiting]] = {}
    for item in found:
        by_task.setdefault(item.task, []).append(item)
    return by_task


def _settle(store: Store, said: Sequence[Said], tally: Tally, *, actor: str) -> None:
    pace, start, ended = Pace(100), 0, False
    while start < len(said):
        batch = said[start : start + pace.size]

        def write(connection: Connection, _: int, batch: Sequence[Said] = batch) -> list[str | None]:
            return [polling.settle(store, connection, one, actor=actor) for one in batch]

        for one, status in zip(batch, pace.write(store, write), strict=True):
            item = one.item
            if status == WAITING:
                tally.counts[NOT_YET] += 1
            elif status is not None:
                why = f"its poll has answered about {item.external_id}"
                tally.add(Change(item.job_id, item.item_id, item.key, WAITING, status, why, item.poll_at, item.attempt))
                ended = True
        start += len(batch)
        breathe()
    if ended:
        store.wake()
