"""The group of verbs. A verb's module is imported when the verb is typed: `jobd show` must not pay for `jobd run`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from jobd import __version__
from jobd.cli.verb import global_options, write_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Run": {"start": "start", "run": "run", "map": "map", "submit": "submit", "deliver": "deliver"},
    "Look": {
        "list": "look",
        "show": "look",
        "watch": "follow",
        "wait": "follow",
        "items": "items",
        "item": "items",
        "errors": "items",
        "results": "results",
        "logs": "logs",
        "history": "look",
        "tasks": "look",
        "stats": "health",
        "health": "health",
    },
    "Steer": {
        "cancel": "steer",
        "pause": "steer",
        "unpause": "steer",
        "retry": "steer",
        "resume": "steer",
        "fail": "steer",
        "delete": "delete",
        "schedule": "schedule",
        "watchlist": "watchlist",
    },
    "Mend": {
        "recover": "mend",
        "time-out": "mend",
        "reconcile": "mend",
        "prune": "prune",
        "doctor": "mend",
        "backup": "keep",
        "restore": "keep",
        "migrate": "keep",
        "service": "service",
        "demo": "demo",
    },
}
_MODULES: Final[Mapping[str, str]] = {verb: module for verbs in SECTIONS.values() for verb, module in verbs.items()}

_EXAMPLES: Final = (
    "jobd run ./checksum.py:checksum --glob '/usr/lib/python3*/**/*.py'",
    "jobd show @last",
    "jobd --app ./program.py submit checksum --from paths.txt --job-key nightly",
)
_NOTES: Final[dict[str, tuple[str, ...]]] = {
    "Ids": (
        "7 a job   =KEY a job by its key   @last the newest   @failed the newest failed",
        "7:KEY an item   7:#123 an item by its number",
    ),
    "Targets": ("a registered name, pkg.mod:func or ./file.py:func",),
    "Exit codes": (
        "0 ok   1 some items failed, or unhealthy   2 usage   3 not found   4 conflict",
        "5 busy   6 the database is unusable   7 another daemon owns it, or nobody runs it",
        "10 --check-only found work   124 wait timed out   130 interrupted, resumable",
    ),
    "Completion": ('eval "$(_JOBD_COMPLETE=bash_source jobd)"   (or zsh, fish)',),
}


class ReaderGone(Exception):
    """Whoever read what we print has seen enough. Click would end the process on a BrokenPipeError, with 1."""


class Verbs(click.Group):
    """The verbs by name, found lazily and shown by section."""

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the command line; that may print help."""
        try:
            return super().make_context(*arguments, **settings)
        except BrokenPipeError:
            raise ReaderGone from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return every verb, in the order of the help page."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the verb's module and return its command."""
        if cmd_name not in _MODULES:
            return None
        if cmd_name not in self.commands:
            command: click.Command = getattr(import_module(f"jobd.cli.{_MODULES[cmd_name]}"), _attribute(cmd_name))
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def resolve_command(
        self,
        ctx: click.Context,
        args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may have been meant."""
        name = args[0]
        if name not in _MODULES and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=_MODULES, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs under their sections."""
        for section, verbs in SECTIONS.items():
            rows = [
                (verb, command.get_short_help_str(60)) for verb in verbs if (command := self.get_command(ctx, verb))
            ]
            with formatter.section(section):
                formatter.write_dl(rows, col_max=12)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the examples and what every verb shares."""
        for title, lines in {"Examples": _EXAMPLES, **_NOTES}.items():
            write_lines(formatter, title, lines)


def _attribute(verb: str) -> str:
    """Return the name of the verb's function; `list` and `map` would hide Python's own."""
    return f"{verb}_" if verb in {"list", "map"} else verb.replace("-", "_")


@click.group(
    cls=Verbs,
    help="Jobs over items in one SQLite file: run, watch, kill and resume them; their status is true.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="jobd")
def root() -> None:
    """Hold the verbs; the global options are read by their callbacks."""


global_options(root)
