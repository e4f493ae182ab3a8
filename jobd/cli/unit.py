"""The text of a systemd user unit: pure functions of what was typed."""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.cli.text import escape
from jobd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK: Final = "# Written by `jobd service install`; `jobd service uninstall` removes it."
# 2: the command line, 6: the file, 7: another daemon. None of them is mended by the same command once more.
_FINAL: Final = "2 6 7"
# Between two signs of life a task's own code may run, one call of it.
_SILENCE: Final = 180.0
# After the drain what is left is given back and written.
_MARGIN: Final = 30

# systemd starts no program whose own path holds one of these; a shell does, and becomes it.
_NOT_FIRST: Final = re.compile(r"[\"'\\]")
_SHELL: Final = ("/bin/sh", "-c", 'exec "$@"', "sh")


class Service(NamedTuple):
    """What a unit starts: ``words`` is the command line, ``folder`` where it was typed; durations are in seconds."""

    database: str
    words: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    drain: float
    heartbeat: float


def unit(service: Service) -> str:
    """Return the unit's text.

    Raises:
        UsageError: a path or a word that no unit can hold.
    """
    first, *others = _SHELL * bool(_NOT_FIRST.search(service.words[0])) + (*service.words,)
    command = " ".join([_quoted(first), *(_quoted(word).replace("$", "$$") for word in others)])
    environment = [f"Environment={_quoted(f'{name}={value}')}" for name, value in service.environment.items()]
    lines = [
        MARK,
        "[Unit]",
        f"Description=jobd on {_plain(service.database)}",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={command}",
        f"WorkingDirectory={_plain(service.folder)}",
        *environment,
        "Restart=on-failure",
        "RestartSec=5",
        f"RestartPreventExitStatus={_FINAL}",
        # What a former daemon left is settled before it is ready, however much that is.
        "TimeoutStartSec=infinity",
        f"TimeoutStopSec={math.ceil(service.drain) + _MARGIN}",
        f"WatchdogSec={math.ceil(max(_SILENCE, service.heartbeat * 10))}",
        # What its handlers have started is theirs to end while it drains, and killed with it.
        "KillMode=mixed",
        "OOMPolicy=continue",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def name_of(database: str) -> str:
    """Return the name of a database's service: readable, and another one for each path."""
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", Path(database).stem)[:40].strip("-.")
    return f"jobd-{stem or 'db'}-{hashlib.sha256(os.fsencode(database)).hexdigest()[:8]}"


def checked_name(name: str) -> str:
    """Return a name that was typed, without its ``.service``.

    Raises:
        UsageError: no unit can have it.
    """
    name = name.removesuffix(".service")
    # One that begins with a dash is an option to whoever types it after systemctl, and to systemctl too.
    if not re.fullmatch(r"[A-Za-z0-9:_][A-Za-z0-9:_.-]{0,199}", name):
        raise UsageError(
            f"not the name of a service: {escape(name)}",
            hint="letters, digits, and :_.-, of which - and . do not come first",
        )
    return name


def _quoted(word: str) -> str:
    """Return a word as a list of words in a unit holds it."""
    text = _checked(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'.replace("%", "%%")


def _plain(text: str) -> str:
    """Return a value that a unit takes as it stands, to the end of its line."""
    if text != text.strip() or text.endswith("\\"):
        raise UsageError(f"no unit can hold the path '{escape(text)}'", hint="rename it")
    return _checked(text).replace("%", "%%")


def _checked(text: str) -> str:
    if not text.isprintable():
        raise UsageError(
            f"no unit can hold '{escape(text)}'", hint="rename it: it holds more than printable characters"
        )
    return text
