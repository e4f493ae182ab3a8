"""What is kept where the store is gone: every outcome, in a file beside it, also of what still ends in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd import clock
from jobd.store.outcome import RELEASED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from jobd.engine.arrivals import Arrivals
    from jobd.engine.pools import Pools
    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome


def kept(
    pending: Sequence[tuple[Attempt, Outcome]],
    *,
    pools: Pools,
    arrivals: Arrivals,
    attempts: Collection[Attempt],
    sleep: Callable[[], bool],
) -> Iterator[list[Outcome]]:
    """Yield what is to be kept: at once what is here, and then what of ``attempts`` still ends.

    ``sleep`` waits for an arrival, for as long as it likes, and says whether to wait any longer.
    """
    now = clock.now()
    waiting = [(attempt, attempt.outcome(RELEASED, now, now)) for attempt in pools.take_back()]
    # What never began is kept as stopped: a release gives its attempt's number back, so that the same line read again
    # would meet the next attempt of that number.
    here = [o._replace(kind=STOPPED) if o.kind == RELEASED else o for _, o in (*pending, *waiting)]
    running = {attempt.claimed.item_id for attempt in attempts if attempt.started}
    while True:
        here += arrivals.take_all()
        running -= {outcome.item_id for outcome in here}
        yield here
        here = []
        if not running or not sleep():
            return
