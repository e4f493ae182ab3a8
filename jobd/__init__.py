"""An embedded job daemon: one process, one SQLite file, and a status that is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobd.errors import (
    Cancelled,
    ChangedInput,
    Conflict,
    DaemonRunning,
    Deferred,
    DuplicateKeys,
    Fail,
    IllegalTransition,
    InvalidItem,
    JobdError,
    Lost,
    NoDaemon,
    NotFound,
    Retry,
    Skip,
    StoreBusy,
    StoreUnusable,
    UsageError,
)

if TYPE_CHECKING:
    from jobd.app import Jobd
    from jobd.context import Context
    from jobd.job import Job
    from jobd.tasks import Task

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "ChangedInput",
    "Conflict",
    "Context",
    "DaemonRunning",
    "Deferred",
    "DuplicateKeys",
    "Fail",
    "IllegalTransition",
    "InvalidItem",
    "Job",
    "Jobd",
    "JobdError",
    "Lost",
    "NoDaemon",
    "NotFound",
    "Retry",
    "Skip",
    "StoreBusy",
    "StoreUnusable",
    "Task",
    "UsageError",
    "__version__",
]

# Imported when first asked for: `jobd show` passes through here and needs but a part.
_LAZY = {"Context": "jobd.context", "Job": "jobd.job", "Jobd": "jobd.app", "Task": "jobd.tasks"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jobd' has no attribute {name!r}", name=name)
    from importlib import import_module  # noqa: PLC0415 - see above

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
