"""What a handler in a worker process asks of its context, carried out where the store is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.engine.child import LOG
from jobd.engine.points import Crash
from jobd.store.defer import Deferral

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobd.context import Context, Line
    from jobd.engine.runner import Attempt
    from jobd.engine.worker import Worker


def told(context: Context) -> dict[str, Any]:
    """Return what a worker is told of a context, to make one like it."""
    return {
        "job_id": context.job_id,
        "item_id": context.item_id,
        "key": context.key,
        "attempt": context.attempt,
        "deadline": context.deadline,
        "idempotency_key": context.idempotency_key,
    }


def serve(worker: Worker, heard: Sequence[Any], attempt: Attempt, line: Line) -> None:
    """Do what the handler asks of its context, and answer."""
    name, item_id, number, argument = heard
    context = attempt.context
    current = context is not None and (item_id, number) == (context.item_id, context.attempt)
    if name == LOG:
        if context is not None and current:
            _keep(context, *argument)
        return
    if name == "data":
        argument = worker.hear_data()
    if context is None or not current:
        worker.tell(["Lost", f"attempt {number} of item {item_id} has ended"])
        return
    try:
        worker.tell([None, _CALLS[name](line, context, argument)])
    except Crash:
        raise
    except Exception as error:  # noqa: BLE001 - it is raised again where the handler asked
        worker.tell([type(error).__name__, str(error)])


def _save_result(line: Line, context: Context, text: str) -> None:
    line.result(context, text)
    context.saved = True


_CALLS: Final[Mapping[str, Callable[[Line, Context, Any], Any]]] = {
    "progress": lambda line, context, text: line.progress(context, text),
    "result": _save_result,
    "intent": lambda line, context, note: line.intent(context, note),
    "data": lambda line, context, data: line.data(context, data),
    "defer": lambda line, context, deferral: line.defer(context, Deferral(*deferral)),
    "items": lambda line, context, chunk: line.items(context, chunk),
}


def _keep(context: Context, level: int, at: float, text: str) -> None:
    """Log a line as the handler did, in this process: what is kept, and what the program's own logging lets through."""
    logger = context.log
    record = logger.makeRecord(logger.name, level, "", 0, text, (), None)
    record.created, record.msecs = at, (at - int(at)) * 1000
    logger.handle(record)
