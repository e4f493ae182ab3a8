"""A daemon's upkeep: one thread that says that it lives, watches its files, runs the passes, and answers what is asked.

No beat starves the others: what has many batches to go is cut after a second and rung again, and what only makes room
has a thread of its own. Where the daemon leaves,
it ends with the batch that it is in, and what is left is found by the next holder of the lock.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobd import clock
from jobd.engine.passes import PASSES, Situation, due, next_time, polls_due
from jobd.engine.points import Crash
from jobd.engine.polls import askers, polled
from jobd.engine.verifying import later, verifiers
from jobd.errors import StoreUnusable
from jobd.maintenance.evidence import Holder
from jobd.maintenance.finish import finish_removals, finish_requests
from jobd.maintenance.poll import Asker
from jobd.maintenance.scheduler import Scheduler
from jobd.states import ITEM_STATUSES
from jobd.store import daemons, deadlines, links, steer, vacuum
from jobd.store.base import Transient
from jobd.store.wording import span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.config import Settings
    from jobd.engine.account import Account
    from jobd.engine.dispatcher import Dispatcher
    from jobd.engine.files import Files
    from jobd.engine.sparingly import Sparingly
    from jobd.engine.wake import Wake
    from jobd.engine.wal import Wal
    from jobd.maintenance.evidence import Verify
    from jobd.maintenance.report import Report
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

PATIENCE: Final = 1.0  # seconds that a leaving daemon waits for a user's code
SUSPENDED_MS: Final = 30_000  # that wall and awake time drift apart between two beats
AGAIN_MS: Final = 5_000  # before a pass is rung again that is due still: what it met may be over by then
LOOK: Final = 1.0  # seconds between looks whether the outside is to be asked about anything
SLICE: Final = 1.0  # seconds that the finishing of requests may take before the other beats get their turn


class Upkeep:
    """The maintenance of one daemon. Its thread runs from ``begin`` to ``end``."""

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
        wake: Wake,
        wal: Wal,
        trouble: Sparingly,
        pulse: Callable[[str], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._settings = settings
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._dispatcher = dispatcher
        self._files = files
        self._wake = wake
        self._wal = wal
        self._trouble = trouble
        self._pulse = pulse
        self._felt_at = float("-inf")
        self._beaten_at = clock.awake()  # its row, made just now, is a beat
        self._seen = clock.now(), clock.awake() - dispatcher.stood
        self._woke_at: int | None = None
        self._account = account
        self._next: dict[str, int | None] = {}  # when those passes are due that have no beat
        self._asking: set[str] = set()  # the user's code that is being run
        self._scheduler = Scheduler()
        self._thread = threading.Thread(target=self._run, name="jobd-maintenance", daemon=True)
        self._long = Scheduler()
        self._long_thread = threading.Thread(
            target=self._run_lane, args=(self._long,), name="jobd-long-maintenance", daemon=True
        )
        self._outside = Scheduler()
        self._looks_outside = False
        self._outside_thread = threading.Thread(
            target=self._run_lane, args=(self._outside,), name="jobd-polls", daemon=True
        )

    # -- its life -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Set the beats and start the thread; what was requested and left half carried out is its first work."""
        settings = self._settings
        self._every(settings.heartbeat, "heartbeat", self.heartbeat)
        for name, found in PASSES.items():
            ring = self._carefully(name, functools.partial(self._ring_pass, name))
            if found.every is not None:
                self._lane(name).every(getattr(settings, found.every), name, ring)
            else:
                self._next[name] = next_time(self._store, name, self._tasks, now=clock.now())
                self._scheduler.as_due(name, ring, functools.partial(self._until, name))
        self._every(settings.checkpoint_every, "checkpoint", self._wal.beat)
        self._scheduler.on_demand("look", lambda: None)
        for lane in (self._scheduler, self._long, self._outside):
            lane.on_demand("answer", self._carefully("answer", functools.partial(self._answer, lane)))
        self._look_outside_where_there_is_one()
        self._scheduler.on_demand("finish", self._carefully("finish", self._finish))
        self._long.on_demand("removals", self._carefully("removals", self._finish_removals))
        self._ask_to_finish()
        # A daemon that never lives as long as a beat is would never ring it.
        for name in due(self._store, settings, self._tasks, now=clock.now()):
            self._lane(name).ask(name)
        self._thread.start()
        self._long_thread.start()
        self._outside_thread.start()

    def look_at_the_clock(self) -> None:
        """Run at once what is due: time has passed that nobody has waited for."""
        self._scheduler.ask("look")

    def end(self) -> None:
        """Stop after the batch that the thread is in, and wait for that; for a user's code only a moment."""
        self._scheduler.stop()
        self._long.stop()
        self._outside.stop()
        if self._long_thread.is_alive():
            self._long_thread.join()
        until = clock.awake() + PATIENCE
        self._leave(self._thread, "verify", until)
        self._leave(self._outside_thread, "poll", until)

    def _leave(self, thread: threading.Thread, hook: str, until: float) -> None:
        while thread.is_alive():
            thread.join(PATIENCE / 10)
            if hook in self._asking and clock.awake() >= until:
                # A user's code never has to return. Its thread writes nothing any more once it is told to leave.
                log.warning("a task's %s has not answered; it is left behind", hook)
                return

    def _every(self, seconds: float, name: str, beat: Callable[[], None]) -> None:
        self._scheduler.every(seconds, name, self._carefully(name, beat))

    def _run(self) -> None:
        try:
            self._carefully("the watch of the log", self._files.open_log)()
            self._scheduler.run()
        finally:
            self._store.close()

    def _run_lane(self, lane: Scheduler) -> None:
        try:
            lane.run()
        finally:
            self._store.close()

    def _lane(self, name: str) -> Scheduler:
        if PASSES[name].asks:
            return self._outside
        return self._long if PASSES[name].long else self._scheduler

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
        # It may have been registered since.
        self._look_outside_where_there_is_one()
        # Before the store is written: whether that can be is another question.
        self._feel()
        state: dict[str, Any] = {**self._account.json(), "workers": self._dispatcher.workers}
        if ailment := self._dispatcher.ailment:
            state["degraded"] = ailment
        if self._dispatcher.abandoned:
            state["abandoned_threads"] = self._dispatcher.abandoned
        if self._wal.pinned:
            state["wal_pinned"] = True
        if self._wal.checkpointed_at is not None:
            state["checkpointed_at"] = self._wal.checkpointed_at
        self._beaten_at = clock.awake()
        daemons.beat(self._store, self._daemon_id, state=state, now=clock.now(), patience=0)

    def _make_up(self) -> None:
        """Move the deadlines by the time for which this machine was suspended or this process stopped.

        Before anything is judged by them. A clock that was put forward looks the same, and does no harm.
        """
        wall, awake = clock.now(), clock.awake() - self._dispatcher.stood
        slept = wall - self._seen[0] - int((awake - self._seen[1]) * 1000)
        if slept >= SUSPENDED_MS:
            deadlines.move(self._store, slept, now=wall, go_on=lambda: not self._scheduler.stopped)
            log.info("deadlines moved by %s, for which nothing could run here", span(slept))
        if abs(slept) >= SUSPENDED_MS:
            self._woke_at = wall
            # What is due by the time of day may be so at another time now.
            for name in self._next:
                self._next[name] = wall
        self._seen = wall, awake

    def run_pass(self, name: str) -> Report:
        """Run one pass, keep its report for whoever asked, and return it; one that was cut short is asked for still.

        Raises:
            Transient: the store cannot be written now.
        """
        hooks = {task: self._watched("verify", hook) for task, hook in verifiers(self._tasks).items()}
        return self._run_pass(name, hooks)

    def _watched(self, kind: str, hook: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
        def ask(asked: Asked) -> Answer:
            self._asking.add(kind)
            try:
                return hook(asked)
            finally:
                self._asking.discard(kind)

        return ask

    def first_pass(self) -> None:
        """Recover what a former daemon left, before anything is claimed.

        A task's own ``verify`` is asked soon after, in this upkeep's thread: it may take its time, and a start must
        not.

        Raises:
            Transient: the store cannot be written now.
        """
        hooks = later(self._tasks)
        self._run_pass("recover", hooks)
        if hooks:
            self._scheduler.ask("recover")

    def _run_pass(self, name: str, verify: Mapping[str, Verify]) -> Report:
        now, lane = clock.now(), self._lane(name)
        if name in self._next:
            self._next[name] = now + AGAIN_MS
        go_on = self._stays if lane is self._scheduler else functools.partial(self._stays_beside, lane)
        if lane is self._scheduler:
            self._make_up()
        options = daemons.begin_pass(self._store, name, now=now)
        # The registry as it is at every look, no copy: what is claimed while a pass runs is in hand as well.
        holder = Holder(self._daemon_id, self._dispatcher.registry, woke_at=self._woke_at)
        situation = Situation(
            self._tasks,
            self._settings,
            holder,
            now,
            self._actor,
            go_on=go_on,
            verify=verify,
            askers={
                task: Asker(self._watched("poll", one.ask), one.at_once) for task, one in askers(self._tasks).items()
            },
            options=options,
            free_since=self._free_since(now),
            interrupt=self._dispatcher.interrupt,
        )
        try:
            report = PASSES[name].run(self._store, situation)
        except Exception as error:
            self._account.failed(name, error)
            raise
        if go_on():
            self._account.ran(report)
            daemons.end_pass(self._store, name, report.dumps(), now=clock.now())
            self._look_ahead(name, report)
            self._ask_to_finish()
        for change in report.changes:
            # Whatever moves has its line by its event; what is only removed leaves none.
            if change.to_status not in ITEM_STATUSES:
                log.info("job %d %s by %s: %s", change.job_id, change.to_status, self._actor, change.evidence)
        self._dispatcher.look_for_interrupted()
        return report

    def _look_ahead(self, name: str, report: Report) -> None:
        if name not in self._next:
            return
        now = clock.now()
        following = next_time(self._store, name, self._tasks, now=now)
        if following is not None and following <= now and report.stays:
            # It could not be seen to: to try at once and again would be a busy loop.
            following = now + AGAIN_MS
        self._next[name] = following

    def _until(self, name: str) -> float | None:
        following = self._next[name]
        return None if following is None else (following - clock.now()) / 1000

    def _free_since(self, now: int) -> int | None:
        since = self._dispatcher.free_since
        return None if since is None else now - int((clock.awake() - since) * 1000)

    def _ring_pass(self, name: str) -> None:
        self.run_pass(name)

    def _look_outside_where_there_is_one(self) -> None:
        """Look for polls that are due once a task has one: a daemon that has none sleeps on."""
        if not self._looks_outside and polled(self._tasks):
            self._looks_outside = True
            self._outside.every(LOOK, "look", self._carefully("poll", self._look_outside))
            self._outside.ask("answer")

    def _look_outside(self) -> None:
        if polls_due(self._store, self._tasks, clock.now()):
            self.run_pass("poll")

    def finish_soon(self) -> None:
        """Work off what was asked of whole jobs; from any thread."""
        self._scheduler.ask("finish")

    def _ask_to_finish(self) -> None:
        self._scheduler.ask("finish")
        self._long.ask("removals")

    def _finish(self) -> None:
        until = clock.awake() + SLICE

        def go_on() -> bool:
            return self._stays() and clock.awake() < until

        if not finish_requests(self._store, now=clock.now(), actor=self._actor, go_on=go_on):
            self._scheduler.ask("finish")

    def _finish_removals(self) -> None:
        if not finish_removals(self._store, go_on=self._stays_long):
            return
        # Of a large file this takes long, and nobody waits for it: what is left is for the next time.
        until = clock.awake() + SLICE
        vacuum.give_back(self._store, go_on=lambda: self._stays_long() and clock.awake() < until)

    def _stays_long(self) -> bool:
        return self._stays_beside(self._long)

    def _stays_beside(self, lane: Scheduler) -> bool:
        # The log grows by all that is removed, and the dispatcher, who looks after it, may have nothing to commit.
        self._wal.after_commit()
        return not lane.stopped

    def _stays(self) -> bool:
        # A pass may take longer than whoever listens for the pulse, or looks for the heartbeat, waits.
        self._feel()
        if clock.awake() - self._beaten_at >= self._settings.heartbeat:
            self._carefully("heartbeat", self.heartbeat)()
        self._wal.after_commit()
        return not self._scheduler.stopped

    def _feel(self) -> None:
        awake = clock.awake()
        if awake - self._felt_at >= 1.0 and self._dispatcher.turns:
            self._felt_at = awake
            why = self._dispatcher.ailment
            self._pulse(f"degraded: {why}" if why else "ok")

    # -- what is asked of it --------------------------------------------------------------------------------------

    def attend(self) -> None:
        """Somebody rang: look for requests that are not items. Called in the dispatcher's thread."""
        if self._asked():
            self._scheduler.ask("answer")
            self._long.ask("answer")
            self._outside.ask("answer")
        requested = steer.open_requests(self._store)
        if requested:
            self._dispatcher.withdraw(requested)
        if links.untold(self._store):
            self.finish_soon()

    def _answer(self, lane: Scheduler) -> None:
        # Asked again here: a second run would answer the same request, and its report would miss what the first did.
        for name in self._asked():
            if self._lane(name) is lane:
                self.run_pass(name)

    def _asked(self) -> list[str]:
        # Other names are for other versions of the daemon.
        return [request.name for request in daemons.requests(self._store) if request.name in PASSES]
