"""One attempt of an async handler: the same outcome as a plain one's, awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from jobd.engine.points import Crash
from jobd.engine.runner import Call
from jobd.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from jobd.engine.runner import Attempt
    from jobd.store import Store
    from jobd.store.outcome import Outcome

# The context's calls try once: while they wait for the store, every other handler of the loop waits, too.
PATIENCE: Final = 0.0
_ACROSS: Final = "a transaction was open while the handler awaited; it was rolled back"


async def run_async(store: Store, attempt: Attempt, *, through: tuple[type[BaseException], ...] = (Crash,)) -> Outcome:
    """Await the handler and return what came of it. Whatever it raises is an outcome, but for ``through``."""
    with Call(store, attempt, through, patience=PATIENCE) as call:
        try:
            call.returned(await _Steps(store, call.begun()))
        except asyncio.CancelledError:
            if not attempt.cancelled:
                # Something that it awaited was cancelled, by whomever; not its job.
                raise
            raise Cancelled("the job is being cancelled") from None
    return call.outcome()


def in_a_loop() -> bool:
    """Say whether an event loop runs in the calling thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_in_a_loop(store: Store, attempt: Attempt, *, through: tuple[type[BaseException], ...]) -> Outcome:
    """Run the handler in the calling thread, by a loop of its own, and return what came of it.

    Not by ``asyncio.run``: that makes a cancellation of a Ctrl-C, and the attempt would only have failed.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(run_async(store, attempt, through=through))
    finally:
        # Also the handler itself, where the Ctrl-C found the loop waiting.
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Steps:
    """Awaits a handler, and looks after each of its steps whether it left a transaction open.

    The handlers of a loop share its thread's connection. Across an await, what others store would join the one's
    transaction: acknowledged, and lost where it is rolled back; and nobody else could write for as long.
    """

    def __init__(self, store: Store, handler: Coroutine[Any, Any, object]) -> None:
        self._store = store
        self._handler = handler

    def __await__(self) -> Generator[Any, Any, object]:
        step: Callable[[Any], Any] = self._handler.send
        given: Any = None
        while True:
            try:
                awaited = step(given)
            except StopIteration as end:
                return end.value
            if self._store.drop_transaction():
                step, given = self._handler.throw, UsageError(_ACROSS, hint="commit before each await")
                continue
            try:
                step, given = self._handler.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - for the handler: a cancellation, or what it awaited raised
                step, given = self._handler.throw, error
