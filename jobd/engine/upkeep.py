"""A daemon's upkeep: it says that it lives, watches its files, runs the passes, and answers what is asked.

No beat starves the others: what has many batches to go is cut after a second and rung again; what only makes room has
a thread of its own, and so has what asks the outside. Where the daemon leaves, each ends with the batch that it is in,
and what is left is found by the next holder of the lock.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final

from jobd import clock
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.lane import Lane
from jobd.engine.pass_runner import PassRunner
from jobd.engine.passes import PASSES, due
from jobd.engine.points import Crash
from jobd.engine.polls import polled
from jobd.engine.suspend import Suspends
from jobd.errors import StoreUnusable
from jobd.maintenance.finish import finish_removals, finish_requests
from jobd.store import daemons, links, polling, steer, vacuum
from jobd.store.failures import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.config import Settings
    from jobd.engine.account import Account
    from jobd.engine.dispatcher import Dispatcher
    from jobd.engine.files import Files
    from jobd.engine.sparingly import Sparingly
    from jobd.engine.wal import Wal
    from jobd.maintenance.report import Report
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

PATIENCE: Final = 1.0  # seconds that a leaving daemon waits for a user's code
SLICE: Final = 1.0  # seconds that the finishing of requests may take before the other beats get their turn


class Upkeep:
    """The maintenance of one daemon. Its threads run from ``begin`` to ``end``."""

    def __init__(
        self,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        settings: Settings,
        *,
        daemon_id: int,
        account: Account,
        dispatcher: Dispatcher,
        files: Files,
        wal: Wal,
        trouble: Sparingly,
        pulse: Callable[[str], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._settings = settings
        self._actor = f"daemon {daemon_id}"
        self._dispatcher = dispatcher
        self._files = files
        self._wal = wal
        self._trouble = trouble
        self._suspends = Suspends(store, lambda: dispatcher.stood)
        self._heart = Heartbeat(
            store, daemon_id=daemon_id, account=account, dispatcher=dispatcher, wal=wal, pulse=pulse
        )
        self._passes = PassRunner(
            store, tasks, settings, daemon_id=daemon_id, account=account, dispatcher=dispatcher, suspends=self._suspends
        )
        self._short = self._made("jobd-maintenance")
        self._long = self._made("jobd-long-maintenance")
        self._outside = self._made("jobd-polls")

    # -- its life -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Set the beats and start the threads; what was requested and left half carried out is the first work."""
        self._short.every(self._settings.heartbeat, "heartbeat", self.heartbeat)
        for name in PASSES:
            self._set(name)
        self._short.every(self._settings.checkpoint_every, "checkpoint", self._wal.beat)
        for lane in self._lanes():
            lane.on_demand("look", self._see_when_to_ask if lane is self._outside else lambda: None)
            lane.on_demand("answer", functools.partial(self._answer, lane))
        self._short.on_demand("finish", self._finish)
        self._long.on_demand("removals", self._finish_removals)
        self._ask_to_finish()
        # A daemon that never lives as long as a beat is would never ring it.
        for name in due(self._store, self._settings, self._tasks, now=clock.now()):
            self._lane(name).ask(name)
        self._short.begin(self._files.open_log)
        self._long.begin()
        self._outside.begin(self._take_up)

    def _set(self, name: str) -> None:
        found, lane = PASSES[name], self._lane(name)
        ring = functools.partial(self._ring_pass, name)
        if found.every is not None:
            lane.every(getattr(self._settings, found.every), name, ring)
        if found.next is not None:
            self._passes.look_ahead(name)
            lane.as_due(name, ring, functools.partial(self._passes.until, name))

    def look_at_the_clock(self) -> None:
        """Run at once what is due: time has passed that nobody has waited for."""
        for lane in self._lanes():
            lane.ask("look")

    def end(self) -> None:
        """Stop after the batches that the threads are in, and wait for that; for a user's code only a moment."""
        for lane in self._lanes():
            lane.stop()
        self._long.join()
        until = clock.awake() + PATIENCE
        for lane, hook in ((self._short, "verify"), (self._outside, "poll")):
            if not lane.left(until, functools.partial(self._passes.asks, hook)):
                # A user's code never has to return. Its thread writes nothing any more once it is told to leave.
                log.warning("a task's %s has not answered; it is left behind", hook)

    def _made(self, name: str) -> Lane:
        return Lane(name, guard=self._carefully, at_end=self._store.close)

    def _lanes(self) -> tuple[Lane, Lane, Lane]:
        return self._short, self._long, self._outside

    def _lane(self, name: str) -> Lane:
        if PASSES[name].asks:
            return self._outside
        return self._long if PASSES[name].long else self._short

    def _carefully(self, name: str, beat: Callable[[], None]) -> Callable[[], None]:
        """Return a beat that waits where the store cannot be written now, and ends a daemon whose file is gone."""

        def ring() -> None:
            try:
                beat()
            except Transient as error:
                self._put_off(name, error)
            except (StoreUnusable, Crash) as error:
                self._dispatcher.fail(error)

        return ring

    def _put_off(self, name: str, error: Transient) -> None:
        # A degraded dispatcher has said why already, and of two lines a minute one is for the end of it.
        if self._dispatcher.degraded is None:
            self._trouble.warning("%s has to wait: %s", name, error)

    # -- its beats ------------------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Say that the daemon lives and how it is, unless its files are gone."""
        if lost := self._files.lost():
            raise lost
        self._make_up()
        # A task with a poll may have been registered since.
        self._look_outside()
        self._heart.beat()

    def _make_up(self) -> None:
        if self._suspends.make_up(lambda: not self._short.stopped):
            self._passes.look_again()

    def run_pass(self, name: str) -> Report:
        """Run one pass, keep its report for whoever asked, and return it; one that was cut short is asked for still.

        Raises:
            Transient: the store cannot be written now.
        """
        lane = self._lane(name)
        if lane is self._short:
            self._make_up()
        report = self._passes.run(name, self._stays if lane is self._short else functools.partial(self._beside, lane))
        self._ask_to_finish()
        return report

    def first_pass(self) -> None:
        """Recover what a former daemon left, before anything is claimed.

        Raises:
            Transient: the store cannot be written now.
        """
        self._make_up()
        if self._passes.recover_first(self._stays):
            self._short.ask("recover")

    def _ring_pass(self, name: str) -> None:
        self.run_pass(name)

    def finish_soon(self) -> None:
        """Work off what was asked of whole jobs; from any thread."""
        self._short.ask("finish")

    def _ask_to_finish(self) -> None:
        self._short.ask("finish")
        self._long.ask("removals")

    def _finish(self) -> None:
        until = clock.awake() + SLICE

        def go_on() -> bool:
            return self._stays() and clock.awake() < until

        if not finish_requests(self._store, now=clock.now(), actor=self._actor, go_on=go_on):
            self._short.ask("finish")

    def _finish_removals(self) -> None:
        stays = functools.partial(self._beside, self._long)
        if not finish_removals(self._store, go_on=stays):
            return
        # Of a large file this takes long, and nobody waits for it: what is left is for the next time.
        until = clock.awake() + SLICE
        vacuum.give_back(self._store, go_on=lambda: stays() and clock.awake() < until)

    def _beside(self, lane: Lane) -> bool:
        # The log grows by all that is removed, and the dispatcher, who looks after it, may have nothing to commit.
        self._wal.after_commit()
        return not lane.stopped

    def _stays(self) -> bool:
        # A pass may take longer than whoever listens for the pulse, or looks for the heartbeat, waits.
        self._heart.feel()
        if self._heart.older_than(self._settings.heartbeat):
            self._carefully("heartbeat", self.heartbeat)()
        return self._beside(self._short)

    # -- what is asked of it --------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Somebody rang: look for requests that are not items. Called in the dispatcher's thread."""
        if self._asked():
            for lane in self._lanes():
                lane.ask("answer")
        requested = steer.open_requests(self._store)
        if requested:
            self._dispatcher.withdraw(requested)
        if links.untold(self._store):
            self.finish_soon()
        # What was left to the outside meanwhile may be asked about sooner than anything before.
        self._look_outside()

    def _look_outside(self) -> None:
        """See when the outside is to be asked next, where a task has a poll: a daemon that has none sleeps on.

        In the lane's own thread: what waits for jobs that are paused is passed over each time, and may be much.
        """
        if polled(self._tasks):
            self._outside.ask("look")

    def _take_up(self) -> None:
        polling.take_up(self._store, polled(self._tasks), now=clock.now(), go_on=lambda: not self._outside.stopped)
        self._see_when_to_ask()

    def _see_when_to_ask(self) -> None:
        self._passes.look_ahead("poll")

    def _answer(self, lane: Lane) -> None:
        # Asked again here: a second run would answer the same request, and its report would miss what the first did.
        for name in self._asked():
            if self._lane(name) is lane:
                self.run_pass(name)

    def _asked(self) -> list[str]:
        # Other names are for other versions of the daemon.
        return [request.name for request in daemons.requests(self._store) if request.name in PASSES]
