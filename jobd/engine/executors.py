"""Which executor a task's isolation stands for; each is loaded once a task asks for it."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from jobd import clock
from jobd.engine.points import Crash
from jobd.engine.runner import run
from jobd.engine.threads import Threads
from jobd.policy import ASYNCIO, COMMAND, PROCESS
from jobd.states import FAILED
from jobd.store.outcome import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent import futures

    from jobd.engine.executor import Deliver, Executor
    from jobd.engine.processes import Asked
    from jobd.engine.runner import Attempt
    from jobd.store.outcome import Outcome
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

log = logging.getLogger("jobd.daemon")


class Executors:
    """Makes the executors of one daemon. ``named`` are the program's own; ``crashed`` ends the daemon over a crash in
    one of their places, and ``freed`` is called when a place is free again.
    """

    def __init__(
        self,
        store: SqliteStore,
        tasks: Mapping[str, Task[..., object]],
        *,
        workers: int,
        named: Mapping[str, futures.Executor],
        crashed: Callable[[Crash], None],
        freed: Callable[[], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._workers = workers
        self._named = named
        self._crashed = crashed
        self._freed = freed

    def make(self, isolation: str, deliver: Deliver) -> Executor:
        """Return a new one; outcomes go to ``deliver``."""
        if isolation == PROCESS:
            from jobd.engine.handlers import Handlers  # noqa: PLC0415 - who has no such task does not pay for it

            return self._processes(Handlers(self._store, self._tasks), deliver)
        if isolation == COMMAND:
            from jobd.engine.commands import Commands  # noqa: PLC0415 - as above

            return self._processes(Commands(self._store.path), deliver)
        if isolation == ASYNCIO:
            return self._loop(deliver)
        if isolation in self._named:
            return self._futures(isolation, deliver)
        here = functools.partial(self._until_crash, functools.partial(run, self._store))
        return Threads(self._workers, run=here, deliver=deliver, at_end=self._store.close)

    def _processes(self, asked: Asked, deliver: Deliver) -> Executor:
        from jobd.engine.processes import Processes  # noqa: PLC0415 - as above

        return Processes(
            self._workers,
            asked=asked,
            deliver=deliver,
            freed=self._freed,
            within=self._until_crash,
            at_end=self._store.close,
        )

    def _loop(self, deliver: Deliver) -> Executor:
        from jobd.engine.aio import Aio  # noqa: PLC0415 - as above

        return Aio(self._tasks, run=self._await, deliver=deliver, at_end=self._store.close)

    def _futures(self, name: str, deliver: Deliver) -> Executor:
        from jobd.engine.futures import Futures  # noqa: PLC0415 - as above

        return Futures(
            self._named[name],
            name=name,
            workers=self._workers,
            store=self._store,
            tasks=self._tasks,
            deliver=deliver,
        )

    def _until_crash(self, run: Callable[[Attempt], Outcome], attempt: Attempt) -> Outcome:
        try:
            return run(attempt)
        except Crash as crash:
            return self._crash(attempt, crash)
        except Exception as error:  # noqa: BLE001 - whatever it is, the place stays
            return _defect(attempt, error)

    async def _await(self, attempt: Attempt) -> Outcome:
        from jobd.engine.awaiting import run_async  # noqa: PLC0415 - as for its executor

        try:
            return await run_async(self._store, attempt)
        except Crash as crash:
            return self._crash(attempt, crash)
        except Exception as error:  # noqa: BLE001 - as a thread's
            return _defect(attempt, error)

    def _crash(self, attempt: Attempt, crash: Crash) -> Outcome:
        # The whole daemon ends with it, before anybody looks at what its thread leaves.
        self._crashed(crash)
        return attempt.outcome(STOPPED, 0, 0)


def _defect(attempt: Attempt, error: Exception) -> Outcome:
    """Fail the item over a defect of jobd's own: a place that ended with it would leave it running for ever."""
    log.error("item %d could not be run", attempt.claimed.item_id, exc_info=error)
    why = f"jobd could not run it: {type(error).__name__}: {error}"
    return attempt.outcome(FAILED, attempt.began_at, max(attempt.began_at, clock.now()), error=why)
