"""`service`: the daemon as a service of the user, started with the machine, by systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobd.cli.output import Output, shape_options
from jobd.cli.start import read_settings, settings_options
from jobd.cli.text import escape
from jobd.cli.unit import MARK, Service, checked_name, name_of, unit
from jobd.cli.verb import pass_session, verb
from jobd.errors import Conflict, JobdError, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobd.cli.session import Session

FIELDS: Final = ["name", "unit", "database", "installed", "enabled", "active", "linger"]
_LINGER: Final = Path("/var/lib/systemd/linger")
_SYSTEMCTL: Final = "systemctl --user"
# What a Python needs of the environment it was started in to find the same program again.
_INHERITED: Final = ("PYTHONPATH",)


@verb(
    examples=(
        "jobd --app ./program.py service install --workers 8",
        "jobd --app ./program.py service status",
        "jobd --app ./program.py service uninstall",
    ),
)
@click.argument("action", type=click.Choice(["install", "uninstall", "status"]))
@click.option("--name", help="The service's name; else one made from the database's path.")
@click.option("--no-start", is_flag=True, help="Install it for the next login, and start nothing now.")
@settings_options
@click.option("--allow-network", is_flag=True, help="Also on a network file system, where locks may not hold.")
@shape_options()
@pass_session
def service(
    session: Session,
    /,
    *,
    action: str,
    name: str | None,
    no_start: bool,
    allow_network: bool,
    as_json: bool,
    **typed: str | None,
) -> int:
    """Keep the daemon running as a systemd service of the user: install, uninstall or status.

    The unit runs `jobd start` with this Python, the --db and --app of this call as absolute paths, and the settings
    that were typed or stand in JOBD_* variables. status leaves with 0 where it is active, with 1 where it is not, with
    3 where there is none.
    """
    if sys.platform == "darwin":
        raise UsageError("launchd is not supported yet", hint=f"{session.line('start')} runs it in the foreground")
    output = Output(session, as_json=as_json)
    if action != "install" and (no_start or allow_network or any(value is not None for value in typed.values())):
        raise UsageError(f"service {action} takes no settings: they are the installed unit's")
    database = _database(session)
    installed = Installed(checked_name(name) if name else name_of(database), database)
    if action == "install":
        _install(
            session, installed, _service(session, database, typed, allow_network=allow_network), start=not no_start
        )
    elif action == "uninstall":
        _uninstall(session, installed)
    record = installed.json()
    if as_json or not output.human:
        output.one(record, lambda _: None, FIELDS)
    if action == "status":
        return _status(session, installed, record)
    return 0


class Installed:
    """The unit of one service, which may or may not be there."""

    def __init__(self, name: str, database: str) -> None:
        self.name = name
        self.database = database
        config = os.environ.get("XDG_CONFIG_HOME", "")
        # A relative one is to be ignored, says the specification of base directories; and systemd does.
        config = config if config.startswith("/") else str(Path("~/.config").expanduser())
        self.path = Path(config, "systemd", "user", f"{name}.service")

    def read(self) -> str | None:
        """Return the unit's text, None if there is none.

        Raises:
            Conflict: it was not written by jobd.
            UsageError: its folder cannot be read.
        """
        try:
            with self._usable():
                text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        if not text.startswith(MARK):
            raise Conflict(f"{self.path} was not written by jobd", hint="--name NAME gives the service another name")
        return text

    def write(self, text: str) -> None:
        """Put the unit in its place, whole.

        Raises:
            UsageError: its folder cannot be written.
        """
        with self._usable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(self.path)

    def json(self) -> dict[str, Any]:
        """Return what is known of it; None where nobody can be asked."""
        return {
            "name": self.name,
            "unit": str(self.path),
            "database": self.database,
            "installed": self.read() is not None,
            "enabled": self._is("enabled"),
            "active": self._is("active"),
            "linger": _lingers(),
        }

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UsageError(
                f"{self.path}: {error.strerror}", hint="units lie in XDG_CONFIG_HOME, or in ~/.config without it"
            ) from error

    def _is(self, state: str) -> bool | None:
        answer = _systemctl(f"is-{state}", self.name)
        # Without a bus it says nothing on stdout.
        return answer.stdout.strip() == state if answer is not None and answer.stdout else None


def _database(session: Session) -> str:
    return str(session.app.path)


def _service(session: Session, database: str, typed: dict[str, str | None], *, allow_network: bool) -> Service:
    """Return what the unit is to start, from what was typed and what the environment says."""
    from dataclasses import replace

    from jobd.config import SETTINGS

    named = {
        setting.name: value
        for setting in SETTINGS
        if (value := typed[setting.name] or os.environ.get(setting.variable)) is not None
    }
    settings = replace(session.app.settings, **read_settings(named))
    words = [sys.executable, "-m", "jobd"]
    # Where the program says which database it is, it goes on saying so.
    if session.db or os.environ.get("JOBD_DB") or session.app_name is None:
        words += ["--db", database]
    if session.app_name is not None:
        from jobd.cli.target import absolute

        words += ["--app", absolute(session.app_name)]
    words += ["start", *(f"--{name.replace('_', '-')}={value}" for name, value in named.items())]
    if allow_network:
        words.append("--allow-network")
    environment = {name: os.environ[name] for name in _INHERITED if os.environ.get(name)}
    return Service(database, words, str(Path.cwd()), environment, settings.drain, settings.heartbeat)


def _install(session: Session, installed: Installed, described: Service, *, start: bool) -> None:
    text = unit(described)
    before = installed.read()
    if session.app_name is None:
        session.warn("no program is named: this daemon runs commands alone", session.line("service install"))
    busy = start and not _active(installed) and session.app.daemon_status().alive
    installed.write(text)
    session.say(f"wrote {escape(str(installed.path))}")
    begin = "restart" if start and before not in {None, text} else "start"
    lines = [["daemon-reload"], ["enable", installed.name], *([[begin, installed.name]] if start and not busy else [])]
    if shutil.which("systemctl") is None:
        session.warn("there is no systemctl here: nothing was started")
        session.say(f"  where systemd runs, type: {_typed(lines)}")
        return
    _do(lines, installed)
    if busy:
        later = f"when it has ended, {_SYSTEMCTL} start {installed.name}"
        session.warn("another daemon runs on this database now: nothing was started", later)
    elif start:
        session.say(
            f"{installed.name} runs; {_SYSTEMCTL} status {installed.name}, journalctl --user -u {installed.name}"
        )
    if not _lingers():
        session.say("  hint: it ends with your last session; loginctl enable-linger keeps it, from the boot on")


def _uninstall(session: Session, installed: Installed) -> None:
    if installed.read() is None:
        raise NotFound(f"there is no service {installed.name}", hint=session.line("service install"))
    if shutil.which("systemctl") is not None:
        # It may be running, and drains then; where nobody can be asked the file goes all the same.
        answer = _systemctl("disable", "--now", installed.name)
        if answer is not None and answer.returncode:
            session.warn(f"{_SYSTEMCTL} disable --now {installed.name}: {escape(_first(answer.stderr))}")
    installed.path.unlink()
    _systemctl("daemon-reload")
    session.say(f"removed {escape(str(installed.path))}; the database and its jobs are as they were")


def _status(session: Session, installed: Installed, record: dict[str, Any]) -> int:
    if not record["installed"]:
        session.say(f"there is no service {installed.name}")
        session.say(f"  hint: {session.line('service install')}")
        return NotFound.exit_code
    words = {True: "yes", False: "no", None: "unknown"}
    known = "  ".join(f"{name} {words[record[name]]}" for name in ("enabled", "active", "linger"))
    session.say(f"{installed.name}   {known}   {escape(installed.database)}")
    session.say(f"  unit: {escape(str(installed.path))}")
    if record["active"] is None:
        session.say(f"  hint: nobody could be asked; in a session of the user, {_SYSTEMCTL} status {installed.name}")
    elif not record["active"]:
        session.say(f"  hint: {_SYSTEMCTL} start {installed.name}; journalctl --user -u {installed.name} says why not")
    return 0 if record["active"] else 1


def _active(installed: Installed) -> bool:
    answer = _systemctl("is-active", installed.name)
    return answer is not None and answer.stdout.strip() == "active"


def _systemctl(*words: str) -> subprocess.CompletedProcess[str] | None:
    """Ask the user's systemd; None where there is none."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    return subprocess.run(  # noqa: S603 - its own words, without a shell
        [program, "--user", *words], capture_output=True, text=True, errors="replace", check=False
    )


def _do(lines: Sequence[Sequence[str]], installed: Installed) -> None:
    for number, words in enumerate(lines):
        answer = _systemctl(*words)
        if answer is not None and answer.returncode:
            raise JobdError(
                f"{_typed([words])}: {_first(answer.stderr) or f'left with {answer.returncode}'}",
                hint=f"{installed.path} is written; in a session of the user: {_typed(lines[number:])}",
            )


def _typed(lines: Sequence[Sequence[str]]) -> str:
    return " && ".join(f"{_SYSTEMCTL} {' '.join(words)}" for words in lines)


def _first(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def _lingers() -> bool:
    import getpass

    with contextlib.suppress(OSError, KeyError):
        return (_LINGER / getpass.getuser()).exists()
    return False
