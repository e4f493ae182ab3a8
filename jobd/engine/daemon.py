"""The daemon: the process that holds the file's lock and runs items."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import jobd
from jobd import clock, process
from jobd.engine import rescue
from jobd.engine.dispatcher import Dispatcher
from jobd.engine.files import Files
from jobd.engine.lock import Lock, Owner
from jobd.engine.recovery import bring_in_order
from jobd.engine.runner import run
from jobd.engine.sparingly import Sparingly
from jobd.engine.threads import Threads
from jobd.engine.wake import Wake
from jobd.engine.wal import Wal
from jobd.errors import JobdError, StoreBusy, StoreUnusable
from jobd.filesystem import NETWORK, file_system
from jobd.maintenance.recover import Holder, Rules, recover
from jobd.maintenance.report import Report
from jobd.maintenance.scheduler import Scheduler
from jobd.store import daemons, steer
from jobd.store.base import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.config import Settings
    from jobd.store.settle import Outcome
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

ANSWER_WITHIN: Final = 30.0
_MOMENT: Final = 0.2


class Daemon:
    """Runs the items of one database in this process. Start it once; it owns its threads and no signal handler."""

    def __init__(
        self,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        settings: Settings,
        *,
        workers: int,
        allow_network: bool = False,
    ) -> None:
        self.id = 0
        self.failure: JobdError | None = None
        self._store = store
        self._tasks = tasks
        self._settings = settings
        self._workers = workers
        self._allow_network = allow_network
        self._lock = Lock(store.path)
        self._left = threading.Event()
        self._stopping = False
        self._started_at = 0
        self._trouble = Sparingly(log)

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the lock, settle what a former daemon left, and begin to run items.

        Raises:
            DaemonRunning: another daemon holds the lock.
            StoreUnusable: the file or its file system cannot be used.
        """
        self._refuse_network()
        me = process.myself()
        self._lock.acquire(Owner(me.pid, me.host, clock.now()))
        with contextlib.ExitStack() as undo:
            undo.callback(self._lock.release)
            self._begin(me, undo)
            undo.pop_all()

    def _refuse_network(self) -> None:
        kind = file_system(self._store.path)
        if kind in NETWORK and not self._allow_network:
            raise StoreUnusable(
                f"{self._store.path} is on a network file system ({kind}), where WAL and locks do not hold",
                hint="put it on a local disk, or jobd start --allow-network if only this machine ever opens it",
            )

    def _begin(self, me: process.Process, undo: contextlib.ExitStack) -> None:
        self._store.open()
        self._files = Files(self._store, self._lock)
        self._started_at = clock.now()
        self.id = daemons.register(self._store, me, tasks=self._tasks, version=jobd.__version__, now=self._started_at)
        self._actor = f"daemon {self.id}"
        self._wake = Wake(self._store.path)
        undo.callback(self._wake.close)
        self._wal = Wal(self._store, self._settings.checkpoint_bytes, self._trouble)
        self._scheduler = Scheduler()
        self._dispatcher = Dispatcher(
            self._store,
            daemon_id=self.id,
            tasks=self._tasks,
            wake=self._wake,
            executor=self._threads,
            rescue=self._keep,
            after_commit=self._wal.after_commit,
            rung=self._attend,
            drain=self._settings.drain,
            trouble=self._trouble,
        )
        undo.callback(self._dispatcher.close)
        self._recover()
        self._beats()
        self._bell, self._store.wake = self._store.wake, self._wake.ring
        self._maintenance = threading.Thread(target=self._maintain, name="jobd-maintenance", daemon=True)
        self._thread = threading.Thread(target=self._dispatch, name="jobd-dispatcher", daemon=True)
        log.info("daemon %d runs %s with %d workers", self.id, self._store.path, self._workers)
        self._maintenance.start()
        self._thread.start()

    def _threads(self, deliver: Callable[..., None]) -> Threads:
        return Threads(
            self._workers, run=functools.partial(run, self._store), deliver=deliver, at_end=self._store.close
        )

    def stop(self, *, drain: bool = True) -> None:
        """Ask it to leave: claim no more, let what runs end for the drain's time, give the rest back. Returns at once.

        With ``drain`` false, or called so after a first call, it gives everything back now.
        """
        self._stopping = True
        if not drain:
            self._store.hurried = True
        self._dispatcher.stop(self._settings.drain if drain else 0.0)

    @property
    def stopping(self) -> bool:
        """Say whether it was asked to leave."""
        return self._stopping

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has left; False when the time ran out first. Handlers that never return have threads still."""
        left = self._left.wait(timeout)
        if left:
            self._thread.join()
        return left

    @property
    def degraded(self) -> str | None:
        """Return why the store cannot be written at present; None while it can."""
        return self._dispatcher.degraded

    def _dispatch(self) -> None:
        try:
            self._dispatcher.run()
        except JobdError as error:
            # A file that is gone shows in many ways; this is the one that says what happened.
            self.failure = (isinstance(error, StoreUnusable) and self._files.lost()) or error
            log.error("the daemon leaves: %s", self.failure)  # noqa: TRY400 - a finding about the file, no traceback
        except BaseException as error:
            log.exception("the dispatcher failed")
            self.failure = JobdError(f"the dispatcher failed: {type(error).__name__}: {error}", hint="please report it")
        finally:
            self._leave()

    def _leave(self) -> None:
        self._scheduler.stop()
        self._maintenance.join()
        self._store.wake = self._bell
        with contextlib.ExitStack() as last:
            # In this order from the bottom up, whatever any of them raises: a lock that is kept keeps the next one out.
            last.callback(self._left.set)
            last.callback(self._lock.release)
            last.callback(setattr, self._store, "hurried", False)
            last.callback(self._store.close)
            last.callback(self._wake.close)
            self._sign_off()

    def _sign_off(self) -> None:
        if isinstance(self.failure, StoreUnusable):
            return
        try:
            # Also after a failure of another kind: nobody killed it, and what it ran is interrupted, not its cause.
            daemons.leave(self._store, self.id, now=clock.now(), patience=0)
            self._wal.beat()
        except JobdError as error:
            log.warning("its row could not be closed: %s", error)

    # -- its maintenance ------------------------------------------------------------------------------------------

    def _beats(self) -> None:
        self._scheduler.every(self._settings.heartbeat, "heartbeat", self._heartbeat)
        self._scheduler.every(self._settings.recover_every, "recover", self._recover)
        self._scheduler.every(self._settings.checkpoint_every, "checkpoint", self._checkpoint)
        self._scheduler.on_demand("answer", self._answer)

    def _maintain(self) -> None:
        try:
            self._open_log()
            self._scheduler.run()
        finally:
            self._store.close()

    def _open_log(self) -> None:
        try:
            self._files.open_log()
        except Transient as error:
            self._put_off("the log could not be opened", error)
        except JobdError as error:
            self._dispatcher.fail(error)

    def _heartbeat(self) -> None:
        if lost := self._files.lost():
            self._dispatcher.fail(lost)
            return
        state: dict[str, Any] = {}
        if self._dispatcher.degraded:
            state["degraded"] = self._dispatcher.degraded
        if self._wal.pinned:
            state["wal_pinned"] = True
        try:
            daemons.beat(self._store, self.id, state=state, now=clock.now(), patience=0)
        except Transient as error:
            self._put_off("no heartbeat could be written", error)
        except StoreUnusable as error:
            self._dispatcher.fail(error)

    def _put_off(self, what: str, error: Transient) -> None:
        # A degraded dispatcher has said why already, and of two lines a minute one is for the end of it.
        if self._dispatcher.degraded is None:
            self._trouble.warning("%s: %s", what, error)

    def _checkpoint(self) -> None:
        self._wal.beat()

    def _recover(self) -> None:
        """Settle what nobody runs and what the rescue file keeps; carry out what was requested and left half."""
        now = clock.now()
        try:
            daemons.begin_pass(self._store, "recover", now=now)
            holder = Holder(self.id, frozenset(self._dispatcher.registry))
            report = bring_in_order(self._store, self._tasks, self._settings, holder=holder, now=now, actor=self._actor)
            daemons.end_pass(self._store, "recover", report.dumps(), now=clock.now())
        except Transient as error:
            self._put_off("recover has to wait", error)
            return
        for change in report.changes:
            moved = (change.from_status, change.to_status, change.evidence)
            log.info("job %d item %s: %s -> %s (%s)", change.job_id, change.key, *moved)
        self._dispatcher.solitude.anybody = True
        self._wake.ring()

    def _asked(self) -> bool:
        # Other names are for other versions of the daemon.
        return any(request.name == "recover" for request in daemons.requests(self._store))

    def _answer(self) -> None:
        # Asked again here: a second run would answer the same request, and its report would miss what the first did.
        if self._asked():
            self._recover()

    def _attend(self) -> None:
        """Somebody rang: look for requests that are not items."""
        if self._asked():
            self._scheduler.ask("answer")
        requested = steer.open_requests(self._store)
        if requested:
            self._dispatcher.withdraw(requested)

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        try:
            rescue.keep(self._store.path, (self.id, self._started_at), outcomes)
        except OSError as error:
            # The last place left: a person can settle them from the log.
            log.critical("the rescue file cannot be written (%s): %s", error, [list(outcome) for outcome in outcomes])


class _Everything(frozenset[int]):
    """What a live daemon's registry may know, as seen from outside: any item."""

    def __contains__(self, item: object) -> bool:
        return True


def ask(store: SqliteStore, name: str, *, check_only: bool) -> Report:
    """Have the live daemon run its pass ``name`` and return the report; with ``check_only`` look without asking.

    Raises:
        StoreBusy: the daemon did not answer in time.
    """
    now = clock.now()
    if check_only:
        newest = store.read(lambda connection: connection.execute("select max(id) from daemons").fetchone()[0])
        rules = Rules(boot=process.boot())
        return recover(store, holder=Holder(newest, _Everything()), rules=rules, now=now, actor="", check_only=True)
    daemons.request(store, name, now=now)
    until = clock.awake() + ANSWER_WITHIN
    while clock.awake() < until:
        answer = daemons.answered(store, name)
        if answer is not None:
            return Report.loads(answer)
        time.sleep(_MOMENT / 10)
    raise StoreBusy(f"the daemon did not answer within {ANSWER_WITHIN:.0f} s", hint="jobd doctor")
