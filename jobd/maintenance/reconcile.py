"""reconcile: what is not what its stored result says becomes that, and its job follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.maintenance.report import Change, Report, Tally
from jobd.states import RUNNING
from jobd.store import contradicted
from jobd.store.batches import BATCH, Pace, always, breathe
from jobd.store.reconcile import carry_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobd.maintenance.evidence import Holder
    from jobd.store.base import Connection, Store
    from jobd.store.contradicted import Contradicted


def reconcile(
    store: Store,
    *,
    holder: Holder,
    now: int,
    actor: str,
    every: bool = False,
    check_only: bool = False,
    go_on: Callable[[], bool] = always,
) -> Report:
    """Bring running, waiting, failed and queued items in line with their results; return what changed.

    It looks at the newest 10,000 of each kind, of the queued at those that were interrupted; with ``every`` at all
    results that there are. What the daemon that holds the lock has in hand is left to its own settlement. With
    ``check_only`` nothing is written. Where ``go_on`` says no between two batches, the rest is left to the next call.
    """
    tally, pace = Tally(), Pace(BATCH)

    def loose(found: Sequence[Contradicted]) -> list[Contradicted]:
        return [item for item in found if item.status != RUNNING or not holder.has_in_hand(item.daemon_id, item.id)]

    def move(chosen: Sequence[Contradicted]) -> list[Contradicted]:
        def work(connection: Connection, _: int) -> list[Contradicted]:
            # Looked at again: each of them may have moved in between, and the daemon may have taken it in hand.
            again = loose(contradicted.of_items(store, connection, [item.id for item in chosen]))
            return carry_out(store, connection, again, now=now, actor=actor)

        return pace.write(store, work)

    for chunk in _all(store) if every else [store.read(contradicted.recent)]:
        found = loose(chunk)
        while found:
            batch, found = found[: pace.size], found[pace.size :]
            for item in batch if check_only else move(batch):
                tally.add(_change(item))
            breathe()
            if not go_on():
                return tally.report("reconcile", check_only=check_only)
        if not go_on():
            break
    return tally.report("reconcile", check_only=check_only)


def _all(store: Store) -> Iterator[list[Contradicted]]:
    last: int | None = 0
    while last is not None:

        def look(connection: Connection, last: int = last) -> tuple[list[Contradicted], int | None]:
            return contradicted.after(connection, last)

        found, last = store.read(look)
        yield found


def _change(item: Contradicted) -> Change:
    return Change(
        item.job_id, item.id, item.key, item.status, item.said, contradicted.STORED, item.since, item.attempt
    )  # fmt: skip
