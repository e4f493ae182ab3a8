"""The task `shell`, which every app has: a command for each item. A daemon runs it in processes of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobd.errors import UsageError
from jobd.policy import COMMAND, Policy
from jobd.tasks import Task

if TYPE_CHECKING:
    from jobd.app import Jobd

NAME: Final = "shell"


def shell(payload: Any) -> Any:  # noqa: ARG001 - the shape of a handler
    """Stand for the commands: they are no function of this process.

    Raises:
        UsageError: always.
    """
    raise UsageError("a command is run by a daemon, not by a call", hint='jobd map, or app.submit("shell", …)')


def task(app: Jobd) -> Task[..., Any]:
    """Return the task of an app."""
    return Task(app, shell, Policy(NAME, isolation=COMMAND))
