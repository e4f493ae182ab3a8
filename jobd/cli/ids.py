"""How a job and an item are named on the command line.

A job: ``7``, ``=KEY`` (by its key), ``@last`` (the newest), ``@failed`` (the newest failed one).
An item: a job, a colon and the item's key (``7:a.txt``) or its number (``7:#123``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from jobd.cli.text import escape
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from jobd.app import Jobd
    from jobd.job import Job
    from jobd.store.item_views import ItemView

Function = TypeVar("Function", bound="Callable[..., Any]")

_NUMBER: Final = re.compile(r"[0-9]+")
_ITEM: Final = re.compile(r"(?P<job>[0-9]+|@last|@failed):(?P<item>.+)", re.DOTALL)
_JOB_HINT: Final = "a job is 7, =KEY, @last or @failed; jobd list shows them"
_ITEM_HINT: Final = "an item is JOB:KEY or JOB:#NUMBER; jobd items JOB shows them"


class Reference(NamedTuple):
    """A job and perhaps one of its items, as typed."""

    job: str
    item: str | None = None


def parse(text: str) -> Reference:
    """Read a reference to a job or to an item.

    Raises:
        UsageError: for what cannot name either.
    """
    if text.startswith("=") and len(text) > 1:
        return Reference(text)
    if found := _ITEM.fullmatch(text):
        return Reference(found["job"], found["item"])
    if _NUMBER.fullmatch(text) or text in {"@last", "@failed"}:
        return Reference(text)
    raise UsageError(f"not an id: '{escape(text)}'", hint=_JOB_HINT)


def job(app: Jobd, text: str) -> Job:
    """Find the job that ``text`` names.

    Raises:
        UsageError: an item where a job is meant.
        NotFound: there is none.
    """
    reference = parse(text)
    if reference.item is not None:
        raise UsageError(f"{escape(text)} is an item, a job is meant", hint=f"the job is {reference.job}")
    return app.job(reference.job)


def item(app: Jobd, text: str) -> tuple[Job, ItemView]:
    """Find the item that ``text`` names, and its job.

    Raises:
        UsageError: a job where an item is meant.
        NotFound: there is none.
    """
    reference = parse(text)
    if reference.item is None:
        raise UsageError(f"{escape(text)} is a job, an item is meant", hint=_ITEM_HINT)
    owner = app.job(reference.job)
    return owner, owner.item(reference.item)


def is_job(text: str) -> bool:
    """Say whether ``text`` names a job rather than a task."""
    return bool(_NUMBER.fullmatch(text)) or text.startswith(("=", "@"))


def job_argument(*, many: bool = False, required: bool = True) -> Callable[[Function], Function]:
    """Add the argument that names a job, with completion."""
    return click.argument(
        "ids_" if many else "id_",
        metavar="ID..." if many else "ID" if required else "[ID]",
        nargs=-1 if many else 1,
        required=required,
        default=None if required else "@last",
        shell_complete=complete_jobs,
    )


def item_argument() -> Callable[[Function], Function]:
    """Add the argument that names an item."""
    return click.argument("id_", metavar="ID:KEY", shell_complete=complete_jobs)


def complete_jobs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer ids to the shell; imported by nobody who does not complete."""
    from jobd.cli.complete import jobs

    return jobs(ctx, parameter, incomplete)


def complete_tasks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer tasks to the shell."""
    from jobd.cli.complete import tasks

    return tasks(ctx, parameter, incomplete)


def complete_schedules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer schedules to the shell."""
    from jobd.cli.complete import schedules

    return schedules(ctx, parameter, incomplete)
