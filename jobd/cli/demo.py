"""``jobd demo``: a first job over real files, by the command line alone, and checked afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from jobd.cli.demo_steps import CommandLine, job_key, report_digests, say, standard_library, typed, write_list
from jobd.cli.verb import Shown

TARGET: Final = "jobd.demo:checksum"
SOME_FAILED: Final = 1


@click.command(cls=Shown, short_help="Checksum Python's own library as a first job.", examples=("jobd demo --crash",))
@click.option("--crash", is_flag=True, help="Kill the runner at about 40 %, go on, and show that nothing ran twice.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".jobd"),
    show_default=True,
    help="Where the database of the demo lies.",
)
def demo(*, crash: bool, folder: Path) -> int:
    """Checksum every file of Python's standard library as one job, and check each digest.

    Run it again: what is completed stays, and only what is new runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = standard_library()
    if crash:
        from jobd.cli.demo_crash import crash_demo

        return crash_demo(folder, files)
    return plain_demo(folder, files)


def plain_demo(folder: Path, files: list[str]) -> int:
    """Run the job, check it, and say what to type next. Returns the exit code."""
    line, job = CommandLine(folder / "demo.db"), f"={job_key()}"
    items = folder / "stdlib.list"
    write_list(items, files)
    _say_what_is_there(line, job, files)

    code = line.run("run", TARGET, "--from", str(items), "-0", "--job-key", job_key())
    if code not in {os.EX_OK, SOME_FAILED}:
        return code
    right = report_digests(line, job, files)
    _say_what_next(line, line.read("show", job)["id"])
    return code if right else SOME_FAILED


def _say_what_is_there(line: CommandLine, job: str, files: list[str]) -> None:
    before = line.read("show", job) if line.database.exists() else None
    completed = before["counts"]["completed"] if before else 0
    say(f"{len(files):,} files of Python's standard library; {completed:,} were completed before")


def _say_what_next(line: CommandLine, job: int) -> None:
    say("next:")
    for command, why in (
        (line.line("show", f"{job}"), "the job"),
        (line.line("items", f"{job}"), "its items"),
        (line.line("results", f"{job}", "--jsonl"), "what they left"),
        (f"{typed()} demo --crash", "the same, killed on the way"),
    ):
        say(f"  {command}   # {why}")
