"""Who holds the file's lock: takes it, makes the parts that run items, and signs off. How they run is its heirs'."""

from __future__ import annotations

import abc
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import jobd
from jobd import clock, process
from jobd.engine import rescue
from jobd.engine.account import Account
from jobd.engine.dispatcher import Dispatcher
from jobd.engine.files import Files
from jobd.engine.lock import Lock, Owner
from jobd.engine.pace import AHEAD
from jobd.engine.points import Crash
from jobd.engine.sparingly import Sparingly
from jobd.engine.turn import Turn
from jobd.engine.upkeep import Upkeep
from jobd.engine.wake import Wake
from jobd.engine.wal import Wal
from jobd.errors import JobdError, StoreUnusable
from jobd.filesystem import NETWORK, file_system
from jobd.loading import refuse_apart
from jobd.store import daemons, lost_time
from jobd.store.failures import Transient
from jobd.store.follow import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.config import Settings
    from jobd.engine.bounds import Started
    from jobd.engine.executor import Deliver, Executor
    from jobd.store.outcome import Outcome
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")

_MOMENT: Final = 1.0  # seconds that a leaving daemon takes for what others follow


class Holder(abc.ABC):
    """Owns one database in this process, with a row of its own in ``daemons``."""

    _ahead = AHEAD  # seconds of work that may be claimed before there is a slot for it

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
        # Called at each beat with how the daemon is, in a word or two, while all of it is alive.
        self.pulse: Callable[[str], None] = lambda _: None
        self.failure: JobdError | Crash | None = None
        self._store = store
        self._tasks = tasks
        self._settings = settings
        self._workers = workers
        self._allow_network = allow_network
        self._lock = Lock(store.path)
        self._started_at = 0
        self._trouble = Sparingly(log)
        self._rated: Started = {}

    # -- its parts ------------------------------------------------------------------------------------------------

    def _own(self, undo: contextlib.ExitStack) -> None:
        """Take the lock and make the parts; nothing runs yet. ``undo`` gives everything back."""
        # Each of its workers would start another, without end.
        refuse_apart("starts a daemon")
        self._refuse_network()
        me = process.myself()
        self._lock.acquire(Owner(me.pid, me.host, clock.now()))
        undo.callback(self._lock.release)
        self._assemble(me, undo)

    def _refuse_network(self) -> None:
        kind = file_system(self._store.path)
        if kind in NETWORK and not self._allow_network:
            raise StoreUnusable(
                f"{self._store.path} is on a network file system ({kind}), where WAL and locks do not hold",
                hint="put it on a local disk, or jobd start --allow-network if only this machine ever opens it",
            )

    def _assemble(self, me: process.Process, undo: contextlib.ExitStack) -> None:
        self._store.open()
        self._files = Files(self._store, self._lock)
        self._started_at = clock.now()
        self._make_up(me)
        self._account = Account(self._store, self._settings, workers=self._workers, tasks=self._tasks)
        self.id = daemons.register(
            self._store,
            me,
            tasks=self._tasks,
            version=jobd.__version__,
            now=self._started_at,
            # By its settings a reader knows by when it should be heard again.
            state=self._account.json(),
        )
        self._wake = Wake(self._store.path)
        undo.callback(self._wake.close)
        self._wal = Wal(self._store, self._settings.checkpoint_bytes, self._trouble)
        self._dispatcher = Dispatcher(
            self._store,
            self._turning(),
            wake=self._wake,
            rescue=self._keep,
            rung=self._attend,
            drain=self._settings.drain,
            trouble=self._trouble,
        )
        undo.callback(self._dispatcher.close)
        self._upkeep = self._keeping()

    def _make_up(self, me: process.Process) -> None:
        """Move the deadlines by the time in which there was no daemon: nothing times out because of it.

        Before it has a row of its own: were it killed meanwhile, the next one would find the former sign of life.
        """
        last = daemons.last_sign(self._store)
        if last is not None and not self._lived_on(last, me):
            lost_time.move(self._store, last.at, now=self._started_at)

    def _lived_on(self, last: daemons.Sign, me: process.Process) -> bool:  # noqa: ARG002 - it can tell of others
        return False

    def _turning(self) -> Turn:
        return Turn(
            self._store,
            daemon_id=self.id,
            tasks=self._tasks,
            nudge=self._wake.nudge,
            executor=self._executor,
            rescue=self._keep,
            after_commit=self._wal.after_commit,
            halted=self._finish_halted,
            trouble=self._trouble,
            ahead=self._ahead,
            started=self._rated,
        )

    def _keeping(self) -> Upkeep:
        return Upkeep(
            self._store,
            self._tasks,
            self._settings,
            daemon_id=self.id,
            account=self._account,
            dispatcher=self._dispatcher,
            files=self._files,
            wal=self._wal,
            trouble=self._trouble,
            pulse=self._pulse,
        )

    @abc.abstractmethod
    def _executor(self, isolation: str, deliver: Deliver) -> Executor:
        """Return who runs the attempts of tasks of this isolation."""

    @abc.abstractmethod
    def _finish_halted(self) -> None:
        """Have what was requested carried out soon."""

    # -- what they call -------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        self._upkeep.attend()

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        try:
            rescue.keep(self._store.path, (self.id, self._started_at), outcomes)
        except OSError as error:
            # The last place left: a person can settle them from the log.
            log.critical("the rescue file cannot be written (%s): %s", error, [list(outcome) for outcome in outcomes])

    def _pulse(self, word: str) -> None:
        self.pulse(word)

    # -- its end --------------------------------------------------------------------------------------------------

    def _sign_off(self) -> None:
        if isinstance(self.failure, StoreUnusable | Crash):
            return
        if self.failure is None:
            # Nobody may come for days to let other jobs follow the last that have ended here.
            with contextlib.suppress(Transient):
                until = clock.awake() + _MOMENT
                now, actor = clock.now(), f"daemon {self.id}"
                follow(self._store, None, now=now, actor=actor, go_on=lambda: clock.awake() < until)
        try:
            # Also after a failure of another kind: nobody killed it, and what it ran is interrupted, not its cause.
            daemons.leave(self._store, self.id, state=self._account.json(), now=clock.now(), patience=0)
            self._wal.beat()
        except JobdError as error:
            log.warning("its row could not be closed: %s", error)
