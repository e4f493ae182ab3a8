"""Handlers in worker processes: what a worker is told of an attempt, and what it says while it runs it."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any

from jobd import loading
from jobd.engine.answer import Answer, answer_to
from jobd.engine.calls import serve, told
from jobd.engine.crew import Crew
from jobd.engine.processes import fallen
from jobd.engine.runner import context_of, line_of
from jobd.engine.talk import END
from jobd.engine.worker import Worker, program_of
from jobd.errors import UsageError
from jobd.policy import PROCESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.context import Line
    from jobd.engine.runner import Attempt
    from jobd.loading import Place
    from jobd.store import Store
    from jobd.tasks import Task


class Handlers:
    """Has workers run handlers. When it is made, the first of its ``crew`` has imported the tasks.

    Raises:
        UsageError: one of the tasks cannot be imported, or no process can be started.
    """

    def __init__(self, store: Store, tasks: Mapping[str, Task[..., object]]) -> None:
        self._store = store
        self._places = {
            name: loading.place_of(task.function, f"task {name}")
            for name, task in tuple(tasks.items())
            if task.policy.isolation == PROCESS
        }
        self.crew = Crew(functools.partial(Worker, program_of(self._places)))
        self.crew.prove()

    def at_start(self) -> None:
        """Have a worker for this thread, which imports the program meanwhile."""
        self.crew.join()

    def ask(self, worker: Worker, attempt: Attempt) -> Answer:
        """Have ``worker`` run an attempt.

        Raises:
            Died: it has ended over that.
            OSError: it is gone.
        """
        try:
            job, line = self._job(attempt)
        except UsageError as error:
            # A task that was registered after the first worker had started.
            return answer_to(error, ())
        worker.ask(job)
        while (heard := worker.hear())[0] != END:
            serve(worker, heard, attempt, line)
        _, signalled, *answer = heard
        if signalled and not worker.doomed:
            # By somebody else: nobody cancels this attempt. It has left.
            worker.doomed = True
            return fallen(attempt, -signal.SIGTERM)
        return Answer(*answer)

    def _job(self, attempt: Attempt) -> tuple[dict[str, Any], Line]:
        """Return what the worker is told of an attempt, and the line that its calls take."""
        claimed, task = attempt.claimed, attempt.task
        line = line_of(self._store, attempt)
        context = attempt.context = context_of(attempt, line) if task.wants_context else None
        job = {
            "task": task.name,
            "place": self._place(task),
            "retry_on": [loading.class_name(one) for one in task.policy.retry_on],
            "payload": claimed.payload,
            "params": claimed.params if context is not None else None,
            "ctx": None if context is None else told(context),
            "db": self._store.path,
        }
        return job, line

    def _place(self, task: Task[..., object]) -> Place:
        if task.name not in self._places:
            self._places[task.name] = loading.place_of(task.function, f"task {task.name}")
        return self._places[task.name]
