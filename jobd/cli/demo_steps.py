"""What both demos share: the files, the command line typed at one database, and the check of the digests."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobd.errors import JobdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Answer = dict[str, Any]

FOREIGN: Final = {"site-packages", "dist-packages"}
NOT_FOUND: Final = 3


def standard_library() -> list[str]:
    """Every ``.py`` of this Python's standard library, sorted, as absolute paths."""
    found: list[Path] = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        # Not even looked into: what is installed there can be a hundred times as much.
        folders[:] = [name for name in folders if name not in FOREIGN]
        found += (Path(folder, name) for name in files if name.endswith(".py"))
    return sorted(str(path) for path in found if path.is_file())


def job_key() -> str:
    """One job for each build of Python: an upgrade in place has other contents under the same paths."""
    build = f"{sys.version} {sysconfig.get_path('stdlib')}"
    return f"stdlib-{platform.python_version()}-{hashlib.sha256(build.encode()).hexdigest()[:8]}"


def write_list(path: Path, files: Iterable[str]) -> None:
    """The items for ``--from -0``: paths between NULs, since a path may hold anything else."""
    path.write_bytes(b"".join(os.fsencode(file) + b"\0" for file in files))


def say(text: str = "") -> None:
    """Print a line now, before what the next command prints."""
    click.echo(text)
    sys.stdout.flush()


class CommandLine:
    """The command ``jobd``, typed at one database and seen by the user."""

    def __init__(self, database: Path, env: Mapping[str, str] | None = None) -> None:
        self.database = database
        self._env = {**os.environ, **(env or {})}

    def line(self, *words: str) -> str:
        """The command as a user types it."""
        return f"{typed()} {shlex.join(['--db', str(self.database), *words])}"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command on this terminal."""
        say(f"$ {self.line(*words)}")
        return subprocess.Popen(self._argv(words), env=self._env)

    def run(self, *words: str) -> int:
        """Run a command on this terminal, and return its exit code.

        Ctrl-C reaches the command as well, and it decides: this process waits for what it says.
        """
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return self.start(*words).wait()
        finally:
            signal.signal(signal.SIGINT, before)

    def run_briefly(self, *words: str, rows: int = 4) -> int:
        """Run a command, show the first rows of what it prints and count the rest. Returns its exit code."""
        say(f"$ {self.line(*words)}")
        answer = subprocess.run(self._argv(words), env=self._env, capture_output=True, check=False)
        printed = answer.stdout.decode(errors="replace").splitlines()
        for row in printed[:rows]:
            say(row)
        if len(printed) > rows:
            say(f"… and {len(printed) - rows:,} more like these")
        click.echo(answer.stderr.decode(errors="replace"), nl=False)
        return answer.returncode

    def read(self, *words: str) -> Any:
        """The JSON that a reading command prints, or None where it finds nothing.

        Raises:
            JobdError: the command failed; its first line says how.
        """
        answer = subprocess.run(self._argv([*words, "--json"]), env=self._env, capture_output=True, check=False)
        if answer.returncode == NOT_FOUND:
            return None
        if answer.returncode:
            what = answer.stderr.decode(errors="replace").partition("\n")[0].removeprefix("error: ")
            raise JobdError(f"{self.line(*words)}: {what}")
        return json.loads(answer.stdout)

    def _argv(self, words: Iterable[str]) -> list[str]:
        # Files of the folder that the user stands in must not shadow modules, unless that is where jobd is.
        isolated = [] if Path.cwd() == Path(__file__).parents[2] else ["-P"]
        return [sys.executable, *isolated, "-m", "jobd", "--db", str(self.database), *words]


def typed() -> str:
    """How this user types ``jobd``: by name where that is this one, else by its path."""
    script = Path(sysconfig.get_path("scripts"), "jobd")
    found = shutil.which("jobd")
    if found and script.exists() and script.samefile(found):
        return "jobd"
    return shlex.quote(os.path.relpath(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m jobd"


def check_digests(results: Iterable[Answer], files: Iterable[str]) -> list[str]:
    """The files whose recorded digest, size or lines are not what hashlib and a second reading say now."""
    recorded = {result["key"]: result["value"] for result in results}
    return [file for file in files if recorded.get(file) != _read_again(file)]


def _read_again(file: str) -> Answer:
    with Path(file).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        return {
            "sha256": digest,
            "bytes": os.fstat(stream.fileno()).st_size,
            "lines": sum(b"\n" in line for line in stream),
        }


def report_digests(line: CommandLine, job: str, files: list[str]) -> bool:
    """Say whether every file has a result that holds, and name the first that have not."""
    wrong = check_digests(line.read("results", job), files)
    say(f"checked: {len(files) - len(wrong):,} of {len(files):,} digests agree with hashlib")
    say_first("no right digest", wrong)
    return not wrong


def say_first(what: str, files: Iterable[str], most: int = 5) -> None:
    """Name the first of the files that something is wrong with."""
    for file in sorted(files)[:most]:
        say(f"  {what}: {click.format_filename(file)}")
