"""`start`: the daemon in the foreground."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from jobd.cli.jobview import OPEN
from jobd.cli.text import escape
from jobd.cli.verb import pass_session, verb
from jobd.config import SETTINGS
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobd.cli.session import Session
    from jobd.config import Setting

_MANY = 1_000


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each setting; its help says the variable and the default."""
    for setting in reversed(SETTINGS):
        function = click.option(
            f"--{setting.name.replace('_', '-')}",
            setting.name,
            metavar=setting.unit.upper().replace(" OR ", "|"),
            help=f"{setting.help}  [{setting.variable}; {setting.default}]",
        )(function)
    return function


def read_settings(typed: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the settings that were typed, by name, as they are read.

    Raises:
        UsageError: one of them cannot be meant.
    """
    return {
        setting.name: _read(setting, value) for setting in SETTINGS if (value := typed.get(setting.name)) is not None
    }


def _read(setting: Setting, value: str) -> Any:
    try:
        return setting.parse(value)
    except UsageError as error:
        raise UsageError(f"--{setting.name.replace('_', '-')}: {error}", hint=error.hint) from None


@verb(
    examples=(
        "jobd --app ./program.py start",
        "jobd --app myprogram.jobs:app start --workers 8 --durability full",
    ),
)
@settings_options
@click.option("--allow-network", is_flag=True, help="Also on a network file system, where locks may not hold.")
@pass_session
def start(session: Session, /, *, allow_network: bool, **typed: str | None) -> int:
    """Run the daemon of the database until it is told to stop.

    It runs the jobs of every task that --app registers. SIGTERM or Ctrl-C claims no more items, finishes what runs and
    leaves with 0; a second one leaves at once.
    """
    given = read_settings(typed)
    session.log(logging.INFO)
    app = session.app
    app.settings = replace(app.settings, **given)
    if session.app_name is None:
        session.warn("no program is named: this daemon runs commands alone", session.line("start"))
    tasks = ", ".join(sorted(map(escape, app.tasks))) or "none"
    session.say(f"jobd start   {escape(app.path)}   tasks: {tasks}")
    app.run(allow_network=allow_network)
    left = sum(job.counts.open for status in OPEN for job in app.jobs(status=status, limit=_MANY))
    session.say(f"stopped; {left:,} items are left, nothing is lost" if left else "stopped; nothing is left to do")
    if left:
        session.say(f"  next: {session.line('start')}")
    return 0
