"""GNU parallel with --joblog and --resume: commands from a list, nothing stored but the log."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from beside import units
from beside.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Adapter(Peer):
    submits_one = False

    def __init__(self, folder: Path, *, killed: bool = False) -> None:  # noqa: ARG002 - it has no lease
        self._list, self._log = folder / "list", folder / "joblog"
        self._witness = folder / "witness"

    def submit(self, numbers: Sequence[int]) -> None:
        self._list.write_text("".join(f"{number}\n" for number in numbers), encoding="utf-8")

    def drained(self, numbers: Sequence[int], workers: int, seconds: float) -> float:
        self.submit(numbers)
        began = time.perf_counter()
        subprocess.run(self._command(workers, f"sleep {seconds}" if seconds else "true"), check=True)
        return time.perf_counter() - began

    def serve(self, workers: int, ready: Path) -> None:
        word = f"echo s {{}} >>{self._witness}; sleep {units.SHORT}; echo e {{}} >>{self._witness}"
        ready.touch()
        command = self._command(workers, word)
        os.execvp(command[0], command)  # noqa: S606 - no shell of ours

    def _command(self, workers: int, word: str) -> list[str]:
        end = "" if "{}" in word else " #{}"
        return ["parallel", f"-j{workers}", "--joblog", str(self._log), "--resume", "-a", str(self._list), word + end]
