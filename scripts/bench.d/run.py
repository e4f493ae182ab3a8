"""Measure jobd beside the limits of sqlite3 and beside huey, in rounds, and print one table.

Called by scripts/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import figures
from lines import LINES, chosen
from measure import SCALES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lines import Line

ROOT: Final = Path(__file__).resolve().parents[2]
MEASURE: Final = Path(__file__).with_name("measure.py")
KEPT: Final = "million"
PATIENCE: Final = 300.0
# Figures are measured one after the other; a quick run only shows that all of them can be.
ABREAST: Final = {"full": 1, "quick": 4}


class Rounds:
    """What was measured so far, and in which folders."""

    def __init__(self, groups: Iterable[str], scale: str, folder: Path) -> None:
        self.groups = list(groups)
        self.measured: list[dict[str, float]] = []
        self.failed: dict[str, str] = {}
        self._scale = scale
        self._folder = folder

    def run(self, count: int) -> None:
        kept = self._folder / KEPT
        kept.mkdir()
        if "reading" in self.groups:
            say("building the file of a million rows")
            self._measure("build", kept)
        for turn in range(1, count + 1):
            say(f"round {turn} of {count}")
            found: dict[str, float] = {}
            with ThreadPoolExecutor(ABREAST[self._scale]) as pool:
                for figures_of_group in pool.map(self._in_folder, self.groups):
                    found |= figures_of_group
            self.measured.append(found)

    def _in_folder(self, group: str) -> dict[str, float]:
        began = time.monotonic()
        own = self._folder / (KEPT if group == "reading" else group)
        own.mkdir(exist_ok=True)
        try:
            return self._measure(group, own)
        finally:
            say(f"  {group} {time.monotonic() - began:.1f} s")
            if group != "reading":
                shutil.rmtree(own, ignore_errors=True)

    def _measure(self, group: str, folder: Path) -> dict[str, float]:
        """Return the figures of a group, measured in a process of its own; none where it failed."""
        try:
            answer = subprocess.run(
                [sys.executable, str(MEASURE), group, str(folder), self._scale],
                env=environment(), capture_output=True, text=True, check=False,
                timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.failed[group] = f"it did not end within {PATIENCE:.0f} s"
            return {}
        if answer.returncode:
            self.failed[group] = (answer.stderr.strip().splitlines() or [f"it left with {answer.returncode}"])[-1]
            say(f"  {group}: {self.failed[group]}")
            return {}
        if answer.stderr:
            say(answer.stderr.rstrip())
        found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
        return found


def environment() -> dict[str, str]:
    """Return this process's own without the settings of whoever calls; it is this checkout that is measured."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JOBD_")}
    return own | {"PYTHONPATH": str(ROOT)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure jobd, huey and sqlite3 side by side.")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, one round: shows that it works, no figures"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="LINE", help="only lines or groups that begin so")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured (3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write", action="store_true", help="write docs/figures.md and docs/figures.json")
    parser.add_argument("--list", action="store_true", help="name the lines")
    given = parser.parse_args(arguments)
    if given.write and (given.quick or given.only):
        parser.error("--write is for all lines at their full size")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds counts from 1")
    try:
        given.lines = chosen(given.only)
    except LookupError as error:
        parser.error(f"no line begins with {error}; --list names them")
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    scale = "quick" if given.quick else "full"
    count = given.rounds or (1 if given.quick else 3)
    lines: list[Line] = given.lines
    result: dict[str, Any] = {
        "began": figures.now(),
        "machine": figures.machine(),
        "scale": scale,
        "idle_seconds": SCALES[scale].idle,
        "rounds": count,
        "load_before": os.getloadavg(),
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder:
        rounds = Rounds(dict.fromkeys(line.group for line in lines), scale, Path(folder))
        rounds.run(count)
    return result | {
        "load_after": os.getloadavg(),
        "seconds": time.monotonic() - began,
        "lines": [figures.judged(rounds.measured, line) for line in lines],
        "failed": rounds.failed,
    }


def main(arguments: list[str]) -> int:
    given = options(arguments)
    if given.list:
        print("\n".join(f"{line.id:16}{line.title}" for line in LINES))
        return 0
    result = measure(given)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text if given.json else figures.table(result["lines"]))
    if not given.json:
        say(f"load average {result['load_before'][0]:.2f} before, {result['load_after'][0]:.2f} after")
    for group, reason in result["failed"].items():
        say(f"{group} could not be measured: {reason}")
    if given.write and not result["failed"]:
        (ROOT / "docs/figures.json").write_text(text + "\n", encoding="utf-8")
        (ROOT / "docs/figures.md").write_text(figures.page(result), encoding="utf-8")
        say("wrote docs/figures.md and docs/figures.json")
    return int(bool(result["failed"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
