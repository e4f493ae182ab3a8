"""How a daemon runs a pass: what it has in hand as evidence, a report for whoever asked, and when it is due next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from jobd import clock
from jobd.engine.passes import PASSES, Situation, next_time
from jobd.engine.polls import askers
from jobd.engine.verifying import later, verifiers
from jobd.maintenance.evidence import Holder
from jobd.maintenance.poll import Asker
from jobd.states import ITEM_STATUSES
from jobd.store import daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.config import Settings
    from jobd.engine.account import Account
    from jobd.engine.dispatcher import Dispatcher
    from jobd.engine.suspend import Suspends
    from jobd.maintenance.evidence import Verify
    from jobd.maintenance.report import Report
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

AGAIN_MS: Final = 5_000  # before a pass is rung again that is due still: what it met may be over by then


class PassRunner:
    """Runs the passes of one daemon, by name. ``go_on`` is asked between two batches of one."""

    def __init__(
        self,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        settings: Settings,
        *,
        daemon_id: int,
        account: Account,
        dispatcher: Dispatcher,
        suspends: Suspends,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._settings = settings
        self._daemon_id = daemon_id
        self._actor = f"daemon {daemon_id}"
        self._account = account
        self._dispatcher = dispatcher
        self._suspends = suspends
        self._next: dict[str, int | None] = {}  # when those are due (Unix ms) that say so
        self._asking: set[str] = set()  # the kinds of a user's hooks that are being run

    # -- when it is due -------------------------------------------------------------------------------------------

    def look_ahead(self, name: str) -> float | None:
        """Ask a pass anew when it is due, and return in how many seconds; None: not until something changes."""
        self._next[name] = next_time(self._store, name, self._tasks, now=clock.now())
        return self.until(name)

    def until(self, name: str) -> float | None:
        """Return in how many seconds it is due, as of the last look."""
        following = self._next[name]
        return None if following is None else (following - clock.now()) / 1000

    def look_again(self) -> None:
        """The clock has jumped: what is due by the time of day may be so at another time now."""
        self._next = dict.fromkeys(self._next, clock.now())

    # -- running one ----------------------------------------------------------------------------------------------

    def run(self, name: str, go_on: Callable[[], bool]) -> Report:
        """Run one pass, keep its report for whoever asked, and return it; one that was cut short is asked for still.

        Raises:
            Transient: the store cannot be written now.
        """
        hooks = {task: self._watched("verify", hook) for task, hook in verifiers(self._tasks).items()}
        return self._run(name, go_on, hooks)

    def recover_first(self, go_on: Callable[[], bool]) -> bool:
        """Recover what a former daemon left, and say whether a task's own ``verify`` is to be asked yet.

        It may take its time, and a start must not.

        Raises:
            Transient: the store cannot be written now.
        """
        hooks = later(self._tasks)
        self._run("recover", go_on, hooks)
        return bool(hooks)

    def asks(self, kind: str) -> bool:
        """Say whether a user's hook of this kind is being run: it never has to return."""
        return kind in self._asking

    def _watched(self, kind: str, hook: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
        def ask(asked: Asked) -> Answer:
            self._asking.add(kind)
            try:
                return hook(asked)
            finally:
                self._asking.discard(kind)

        return ask

    def _run(self, name: str, go_on: Callable[[], bool], verify: Mapping[str, Verify]) -> Report:
        now = clock.now()
        if name in self._next:
            self._next[name] = now + AGAIN_MS
        situation = self._situation(name, now, go_on, verify)
        try:
            report = PASSES[name].run(self._store, situation)
        except Exception as error:
            self._account.failed(name, error)
            raise
        if go_on():
            self._account.ran(report)
            daemons.end_pass(self._store, name, report.dumps(), now=clock.now())
            self._follow(name, report)
        for change in report.changes:
            # Whatever moves has its line by its event; what is only removed leaves none.
            if change.to_status not in ITEM_STATUSES:
                log.info("job %d %s by %s: %s", change.job_id, change.to_status, self._actor, change.evidence)
        self._dispatcher.look_for_interrupted()
        return report

    def _situation(self, name: str, now: int, go_on: Callable[[], bool], verify: Mapping[str, Verify]) -> Situation:
        asked = {task: Asker(self._watched("poll", one.ask), one.at_once) for task, one in askers(self._tasks).items()}
        return Situation(
            self._tasks,
            self._settings,
            # The registry as it is at every look, no copy: what is claimed while a pass runs is in hand as well.
            Holder(self._daemon_id, self._dispatcher.registry, woke_at=self._suspends.woke_at),
            now,
            self._actor,
            go_on=go_on,
            verify=verify,
            askers=asked,
            options=daemons.begin_pass(self._store, name, now=now),
            free_since=self._free_since(now),
            interrupt=self._dispatcher.interrupt,
        )

    def _free_since(self, now: int) -> int | None:
        since = self._dispatcher.free_since
        return None if since is None else now - int((clock.awake() - since) * 1000)

    def _follow(self, name: str, report: Report) -> None:
        if name not in self._next:
            return
        following = self.look_ahead(name)
        if following is not None and following <= 0 and report.stays:
            # It could not be seen to: to try at once and again would be a busy loop.
            self._next[name] = clock.now() + AGAIN_MS
