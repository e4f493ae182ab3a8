"""``jobd demo --crash``: kill the runner on the way, go on, and prove that no completed item ran again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from jobd.app import Jobd
from jobd.cli import demo_witness
from jobd.cli.demo_steps import CommandLine, report_digests, say, say_first, write_list
from jobd.engine.lock import probe
from jobd.errors import DaemonRunning, JobdError

if TYPE_CHECKING:
    import subprocess
    from collections import Counter
    from pathlib import Path

TARGET: Final = "jobd.cli.demo_witness:checksum"
KEY: Final = "crash"
JOB: Final = f"={KEY}"
KILL_AT: Final = 0.4
FOUND_WORK: Final = 10


class AtTheKill(NamedTuple):
    """What the file says after the kill, and what the witness had seen by then."""

    completed: set[str]
    running: set[str]
    runs: Counter[str]


def crash_demo(folder: Path, files: list[str]) -> int:
    """Run, kill, look, go on, prove. Returns the exit code."""
    items, witness = folder / "crash.list", folder / "crash.witness"
    line = CommandLine(folder / "crash.db", {demo_witness.VARIABLE: str(witness.resolve())})
    _start_afresh(line.database, witness)
    write_list(items, files)
    command = ("run", TARGET, "--from", str(items), "-0", "--job-key", KEY)

    kill_on_the_way(line.start(*command), line.database, witness, round(len(files) * KILL_AT))
    before = _look(line, witness, len(files))
    _show_recovery(line)
    if code := line.run(*command):
        return code
    right = report_digests(line, JOB, files)
    return 0 if prove(before, demo_witness.runs(witness)) and right else 1


def _start_afresh(database: Path, witness: Path) -> None:
    if probe(str(database.resolve())):
        raise DaemonRunning(
            f"{database} is in use: a demo runs there", hint="wait for it, or demo --crash --dir FOLDER"
        )
    for path in (witness, *database.parent.glob(f"{database.name}*")):
        path.unlink(missing_ok=True)
    witness.touch(mode=0o600)


def kill_on_the_way(runner: subprocess.Popen[bytes], database: Path, witness: Path, completed: int) -> None:
    """Send SIGKILL as soon as so many items are completed.

    Raises:
        JobdError: the runner ended before.
    """
    app = Jobd(database)
    try:
        # The first line of the witness says that the database is there and its job, too.
        while not witness.stat().st_size or app.job(JOB).counts.completed < completed:
            if runner.poll() is not None:
                raise JobdError(f"the runner ended (exit {runner.returncode}) before it could be killed")
            time.sleep(0.001)
    finally:
        runner.kill()
        runner.wait()
        app.close()


def _look(line: CommandLine, witness: Path, total: int) -> AtTheKill:
    running = {item["key"] for item in line.read("items", JOB, "--status", "running")}
    completed = {result["key"] for result in line.read("results", JOB)}
    share = len(completed) / total
    say(f"killed with SIGKILL at {share:.0%}: {len(completed):,} completed, {len(running):,} running")
    return AtTheKill(completed, running, demo_witness.runs(witness))


def _show_recovery(line: CommandLine) -> None:
    code = line.run_briefly("recover", "--check-only")
    say(f"exit {code}: it found work" if code == FOUND_WORK else f"exit {code}: nothing was running at that instant")


def prove(before: AtTheKill, after: Counter[str]) -> bool:
    """Say what the witness saw: of what ran after the kill, nothing may have been completed at it.

    What ran twice must have been on the file's list of running items when the runner died.
    """
    ran = after - before.runs
    twice = {file for file in ran if before.runs[file]}
    again, unlisted = before.completed & ran.keys(), twice - before.running
    again_of_all = f"{len(again):,} of the {len(before.completed):,} that were completed"
    say(f"witness: {len(ran):,} items ran after the kill, {again_of_all}")
    say(f"witness: {len(twice):,} of them had begun before it, {len(twice - unlisted):,} of these known as running")
    say_first("ran again", again)
    say_first("ran twice, unknown", unlisted)
    return not again and not unlisted
