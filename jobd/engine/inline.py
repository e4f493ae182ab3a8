"""The daemon without threads: it runs in the thread that calls, only what is due now, and never waits.

For tests, and for programs that run their items at a moment of their own choosing. Claims, settlements and passes are
those of the daemon; what differs is who runs an attempt.
"""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from jobd import clock, process
from jobd.engine.bounds import Bounds
from jobd.engine.holder import Holder
from jobd.engine.one_by_one import OneByOne
from jobd.engine.passes import PASSES, due, is_due, next_time
from jobd.engine.points import Crash
from jobd.engine.polls import polled
from jobd.engine.runner import run
from jobd.errors import JobdError, UsageError
from jobd.maintenance.finish import finish
from jobd.policy import ASYNCIO, COMMAND
from jobd.states import ITEM_ENDS, SKIPPED
from jobd.store import links, polling
from jobd.store.deadlines import next_deadline
from jobd.store.failures import Transient
from jobd.store.outcome import status_of
from jobd.store.ready import next_due, tasks_due

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from jobd.config import Settings
    from jobd.engine.bounds import Started
    from jobd.engine.commands import Commands
    from jobd.engine.executor import Deliver
    from jobd.engine.runner import Attempt
    from jobd.maintenance.report import Change, Report
    from jobd.store import daemons
    from jobd.store.outcome import Outcome
    from jobd.store.settle import Settled
    from jobd.store.sqlite import SqliteStore
    from jobd.tasks import Task

# What a handler does not keep to itself: the thread is the caller's.
_THROUGH: Final = (KeyboardInterrupt, Crash)


class Drained(NamedTuple):
    """What one drain did.

    ``counts`` holds, by status, how many attempts left their item in it. ``next_due`` (Unix ms) is when the next thing
    that waits for its time is due; None where nothing does. ``recovered`` is what the pass before them changed.
    """

    counts: dict[str, int]
    next_due: int | None
    recovered: list[Change]


class Inline(Holder):
    """Owns the database within the context, with a row of its own as any daemon."""

    # What is claimed runs at once: under a clock that stands still every item looks quick enough to be claimed ahead,
    # and a crash would find thousands running.
    _ahead = 0.0

    def __init__(
        self, store: SqliteStore, tasks: Mapping[str, Task[..., object]], settings: Settings, *, started: Started
    ) -> None:
        """``started``: when items of tasks with a rate did, in the drains before this one; it is kept."""
        super().__init__(store, tasks, settings, workers=1)
        self._rated = started
        self._undo = contextlib.ExitStack()
        self._line: OneByOne | None = None
        self._commands: Commands | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            DaemonRunning: another daemon holds it.
            StoreUnusable: the file or its file system cannot be used.
        """
        with contextlib.ExitStack() as undo:
            self._own(undo)
            # Who cancels a job tells its handlers at once: there is no other thread that would look.
            undo.callback(setattr, self._store, "wake", self._store.wake)
            self._store.wake = self._attend
            self._undo = undo.pop_all()
        self._beaten_at = self._started_at
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sign off and give the lock back. After a crash the row stays as it is: nobody was left to sign off."""
        with self._undo:
            if isinstance(error, JobdError | Crash):
                self.failure = error
            self._sign_off()

    # -- what it does ---------------------------------------------------------------------------------------------

    def drain(self) -> Drained:
        """Recover, fire and time out what is due once, then run all that is due now until nothing is.

        Raises:
            UsageError: an event loop runs in this thread, and there are async handlers.
            KeyboardInterrupt: its item is queued again.
            StoreBusy: the store could not be written; what had ended is kept beside it.
        """
        self._refuse_loop()
        recovered = self._pass("recover").changes
        if "fire" in self._due():
            self._pass("fire")
        counts: collections.Counter[str] = collections.Counter()
        polling.take_up(self._store, polled(self._tasks), now=clock.now())
        # One pass asks about so many; what is not there yet is due later.
        while is_due(self._store, "poll", self._tasks, now=clock.now()):
            counts.update(_answered(self._pass("poll")))
        if (deadline := next_deadline(self._store)) is not None and deadline <= clock.now():
            # Nobody else may: what is said to be due next is acted on by the drain of that time.
            counts.update(_answered(self._pass("time_out")))
        try:
            while (turn := self._dispatcher.step()).settled or turn.claimed or turn.skipped:
                if turn.settled:
                    counts.update(_ends(turn.settled))
                if turn.skipped:
                    counts[SKIPPED] += turn.skipped
                if links.untold(self._store):
                    # A job has ended that others come after: they may fall with it, or come back.
                    self._finish_halted()
                self._beat()
                if self._line is not None:
                    self._line.work()
        except KeyboardInterrupt:
            self._dispatcher.stop(self._settings.drain)
            self._dispatcher.step()
            raise
        return Drained(dict(counts), self._next_at(), recovered)

    def _next_at(self) -> int | None:
        now = clock.now()
        item = self._store.read(lambda connection: next_due(self._store, connection, self._tasks, now))
        deadline = next_deadline(self._store)
        if deadline is not None and deadline <= now:
            # It was looked at just now, and stays.
            deadline = None
        passes = (next_time(self._store, name, self._tasks, now=now) for name in PASSES)
        times = (item, deadline, self._next_in_rate(now), *passes)
        return min((at for at in times if at is not None), default=None)

    def _next_in_rate(self, now: int) -> int | None:
        """Return when (Unix ms) a rate lets the next item start that is there to be claimed."""
        bounds, awake = Bounds(self._tasks, self._rated), clock.awake()
        waits = bounds.waits(bounds.room({}, awake), awake)
        held = self._store.read(lambda connection: tasks_due(self._store, connection, waits, now)) if waits else ()
        return min((now + int(waits[name] * 1000) + 1 for name in held), default=None)

    def _refuse_loop(self) -> None:
        if any(task.policy.isolation == ASYNCIO for task in self._tasks.values()):
            from jobd.engine.awaiting import in_a_loop  # noqa: PLC0415 - asyncio, only where there are async handlers

            if in_a_loop():
                raise UsageError(
                    "an event loop runs in this thread, and async handlers need one of their own",
                    hint="await asyncio.to_thread(app.drain)",
                )

    def tick(self) -> list[Report]:
        """Run the passes whose beat has elapsed since they last began, and those that somebody has asked for."""
        return [self._pass(name) for name in self._due()]

    def _due(self) -> list[str]:
        return due(self._store, self._settings, self._tasks, now=clock.now())

    def _pass(self, name: str) -> Report:
        report = self._upkeep.run_pass(name)
        # What a pass only requests is carried out before anything looks at it.
        finish(self._store, now=clock.now(), actor=f"daemon {self.id}", go_on=self._go_on)
        return report

    def _finish_halted(self) -> None:
        finish(self._store, now=clock.now(), actor=f"daemon {self.id}", go_on=self._go_on)

    def _go_on(self) -> bool:
        self._wal.after_commit()
        return True

    def _beat(self) -> None:
        if not 0 <= clock.now() - self._beaten_at < self._settings.heartbeat * 1000:
            self._beaten_at = clock.now()
            # What is claimed runs, whether or not this can be said.
            with contextlib.suppress(Transient):
                self._upkeep.heartbeat()

    def _lived_on(self, last: daemons.Sign, me: process.Process) -> bool:
        # A program that runs its items when it likes has its clock going in between.
        return last.process == me

    # -- its parts ------------------------------------------------------------------------------------------------

    def _executor(self, isolation: str, deliver: Deliver) -> OneByOne:  # noqa: ARG002 - there is one thread
        # One line for all of them: whatever else would run a task, here the calling thread does.
        if self._line is None:
            self._line = OneByOne(run=self._run, deliver=deliver)
        return self._line

    def _run(self, attempt: Attempt) -> Outcome:
        if attempt.task.policy.isolation == COMMAND:
            return self._run_command(attempt)
        if attempt.task.policy.isolation != ASYNCIO:
            return run(self._store, attempt, through=_THROUGH)
        from jobd.engine.awaiting import run_in_a_loop  # noqa: PLC0415 - asyncio, only where there are async handlers

        return run_in_a_loop(self._store, attempt, through=_THROUGH)

    def _run_command(self, attempt: Attempt) -> Outcome:
        if self._commands is None:
            from jobd.engine.commands import Commands  # noqa: PLC0415 - who has no commands does not pay for it

            self._commands = Commands(self._store.path)
            self._undo.callback(self._commands.crew.give_up)
        return self._commands.run(attempt)


def _answered(report: Report) -> dict[str, int]:
    return {status: count for status, count in report.counts.items() if status in ITEM_ENDS}


def _ends(settled: Settled) -> list[str]:
    return [status_of(outcome) for outcome in settled.applied]
