"""``jobd demo --crash``: kill the runner on the way, go on, and prove that no completed item ran again."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from jobd.cli import demo_witness
from jobd.cli.demo_steps import CommandLine, report_digests, say, write_list
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


def crash_demo(folder: Path, files: list[str]) -> int:
    """Run, kill, look, go on, prove. Returns the exit code."""
    items, witness = folder / "crash.list", folder / "crash.witness"
    line = CommandLine(folder / "crash.db", {demo_witness.VARIABLE: str(witness.resolve())})
    _start_afresh(line.database, witness)
    write_list(items, files)
    command = ("run", TARGET, "--from", str(items), "-0", "--job-key", KEY)

    kill_on_the_way(line.start(*command), witness, round(len(files) * KILL_AT))
    completed = {result["key"] for result in line.read("results", JOB)}
    before = demo_witness.runs(witness)
    share = len(completed) / len(files)
    say(f"killed with SIGKILL at {share:.0%}: {len(completed):,} of {len(files):,} items were completed")

    code = line.run("recover", "--check-only")
    if code not in {os.EX_OK, FOUND_WORK}:
        return code
    code = line.run(*command)
    if code:
        return code
    right = report_digests(line, JOB, files)
    return 0 if prove(completed, before, demo_witness.runs(witness)) and right else 1


def _start_afresh(database: Path, witness: Path) -> None:
    if probe(str(database.resolve())):
        raise DaemonRunning(
            f"{database} is in use: a demo runs there", hint="wait for it, or demo --crash --dir FOLDER"
        )
    for path in (witness, *database.parent.glob(f"{database.name}*")):
        path.unlink(missing_ok=True)
    witness.touch(mode=0o600)


def kill_on_the_way(runner: subprocess.Popen[bytes], witness: Path, begun: int) -> None:
    """Send SIGKILL as soon as the witness has seen so many runs begin.

    Raises:
        JobdError: the runner ended before.
    """
    try:
        with witness.open("rb") as stream:
            seen = 0
            while seen < begun:
                if runner.poll() is not None:
                    raise JobdError(f"the runner ended (exit {runner.returncode}) before it could be killed")
                seen += stream.read().count(b"\n")
                time.sleep(0.001)
    finally:
        runner.kill()
        runner.wait()
    if sys.stderr.isatty():
        # It had no time to give the terminal back: show the cursor, leave its line.
        sys.stderr.write("\x1b[?25h\n")
        sys.stderr.flush()


def prove(completed: set[str], before: Counter[str], after: Counter[str]) -> bool:
    """Say what the witness saw: nothing that was completed at the kill may have run after it."""
    ran = after - before
    again = sorted(completed & ran.keys())
    repeated = sum(1 for file in ran if before[file])
    say(f"witness: {len(again):,} of the {len(completed):,} items that were completed ran again")
    say(f"witness: {len(ran):,} ran after the kill, {repeated:,} of them for the second time, cut off by the kill")
    for file in again[:10]:
        say(f"  ran again: {file}")
    return not again
