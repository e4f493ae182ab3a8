"""What the shell offers after TAB: ids, tasks, targets. It never fails and never waits: a wrong guess costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from click.shell_completion import CompletionItem

from jobd.cli.session import Session
from jobd.cli.text import escape

if TYPE_CHECKING:
    import click

_OFFERED: Final = 30


def jobs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Offer the newest jobs, and the items of the job before a colon."""
    try:
        if ":" in incomplete:
            return _items(_session(ctx), incomplete)
        found = _session(ctx).app.jobs(limit=_OFFERED)
    except Exception:  # noqa: BLE001 - a completion that fails offers nothing
        return []
    offered = [CompletionItem(str(job.id), help=f"{escape(job.task)} {job.status}") for job in found]
    offered += [CompletionItem("@last", help="the newest job"), CompletionItem("@failed", help="the newest failed job")]
    offered += [CompletionItem(f"={job.key}", help=f"job {job.id}") for job in found if job.key]
    return [
        item
        for item in offered
        if str(item.value).startswith(incomplete) and str(item.value) == escape(str(item.value))
    ]


def tasks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Offer the names of the tasks that jobs were submitted for, that a daemon knows, or that ``--app`` registers."""
    try:
        app = _session(ctx).app
        names = {*app.tasks, *app.daemon_status().tasks, *(job.task for job in app.jobs(limit=200))}
    except Exception:  # noqa: BLE001 - as above
        return []
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete) and name == escape(name)]


def schedules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Offer the names of the schedules."""
    try:
        names = [entry.name for entry in _session(ctx).app.schedules.entries()]
    except Exception:  # noqa: BLE001 - as above
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name == escape(name)]


def targets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer tasks, and files as soon as something looks like a path."""
    if incomplete.startswith((".", "/", "~")) or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return tasks(ctx, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


def _items(session: Session, incomplete: str) -> list[CompletionItem]:
    from jobd.cli import ids

    name = incomplete.partition(":")[0]
    found = ids.job(session.app, name).items(limit=200)
    values = [f"{name}:{item.key}" for item in found]
    return [CompletionItem(value) for value in values if value.startswith(incomplete) and value == escape(value)]


def _session(ctx: click.Context) -> Session:
    return ctx.ensure_object(Session)
