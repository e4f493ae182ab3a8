"""What every verb has: examples in its help, the global options before or after its name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jobd.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shown(click.Command):
    """A command whose help ends with examples, as they are typed."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the examples."""
        write_lines(formatter, "Examples" if len(self.examples) > 1 else "Example", self.examples)


class Verb(Shown):
    """A command with the global options, for the database that they name."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        global_options(self, hidden=True)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Whatever it comes to, what jobd logs is talk: escaped, and without tracebacks."""
        ctx.ensure_object(Session).log()
        return super().invoke(ctx)


verb = partial(click.command, cls=Verb)
pass_session = click.make_pass_decorator(Session)


def write_lines(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    """Write a section of lines that are not wrapped: they are there to be copied."""
    with formatter.section(title):
        for line in lines:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def global_options(command: click.Command, *, hidden: bool = False) -> click.Command:
    """Add the options that every verb takes, before or after its name; hidden, they are not repeated in its help."""
    command.params += [
        click.Option(
            ["--db"],
            metavar="URL",
            expose_value=False,
            hidden=hidden,
            callback=_keep("db"),
            help="The database; else JOBD_DB.",
        ),
        click.Option(
            ["--app"],
            metavar="MODULE:ATTR|./file.py",
            expose_value=False,
            hidden=hidden,
            callback=_keep("app_name"),
            help="The app whose tasks and database are meant.",
        ),
        click.Option(
            ["--color", "--colour"],
            type=click.Choice(["auto", "always", "never"]),
            expose_value=False,
            hidden=hidden,
            callback=_keep("colour"),
            help="Colours; else NO_COLOR, FORCE_COLOR, a terminal.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            default=None,
            expose_value=False,
            hidden=hidden,
            callback=_keep("verbose"),
            help="Log to stderr; twice for more.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            default=None,
            expose_value=False,
            hidden=hidden,
            callback=_keep("debug"),
            help="Show the traceback of an error.",
        ),
    ]
    return command


def _keep(name: str) -> Any:
    def keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ARG001 - click's signature
        if value:
            setattr(ctx.ensure_object(Session), name, value)
        return value

    return keep
