"""Who is measured when: each work by each peer in turn, round after round, then the kills of several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from run import ROOT, environment, say

from beside import kills
from beside.measured import SCALES, WORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beside.roster import Entry

_HERE: Final = Path(__file__).parents[1]
_PATIENCE: Final = 180.0
# Nothing is timed while they are killed, and most of such a round is waiting.
_ABREAST: Final = 4


class Measured:
    """What was found so far, by peer: the figures of each round and the rounds of kills; and what failed, and why."""

    def __init__(self, peers: Sequence[Entry], scale: str) -> None:
        self.peers = peers
        self.figures: dict[str, list[dict[str, float]]] = {peer.id: [] for peer in peers}
        self.kills: dict[str, list[dict[str, Any]]] = {}
        self.failed: dict[str, str] = {}
        self._scale = scale

    def measure(self, count: int) -> None:
        for turn in range(1, count + 1):
            found: dict[str, dict[str, float]] = {peer.id: {} for peer in self.peers}
            for work in WORKS:
                for peer in self.peers:
                    began = time.monotonic()
                    found[peer.id] |= self._one(work, peer)
                    say(f"round {turn} of {count}: {work} {peer.id} {time.monotonic() - began:.1f} s")
            for name, figures in found.items():
                self.figures[name].append(figures)

    def _one(self, work: str, peer: Entry) -> dict[str, float]:
        """Return the figures of one work, measured in a process of its own; none where it failed."""
        with TemporaryDirectory(prefix="jobd-peers-", ignore_cleanup_errors=True) as folder:
            command = [sys.executable, "-m", "beside.measured", work, peer.id, folder, self._scale]
            try:
                answer = subprocess.run(
                    command, env=_environment(), capture_output=True, text=True, check=False, timeout=_PATIENCE
                )
            except subprocess.TimeoutExpired:
                return self._refused(f"{peer.id} {work}", f"it did not end within {_PATIENCE:.0f} s")
        if answer.returncode:
            lines = answer.stderr.strip().splitlines()
            return self._refused(f"{peer.id} {work}", lines[-1] if lines else f"it left with {answer.returncode}")
        found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
        return found

    def _refused(self, what: str, reason: str) -> dict[str, float]:
        self.failed[what] = reason
        say(f"{what}: {reason}")
        return {}

    def kill(self, count: int) -> None:
        with ThreadPoolExecutor(_ABREAST) as pool:
            list(pool.map(lambda peer: self._kill(peer, count), self.peers))

    def _kill(self, peer: Entry, count: int) -> None:
        began = time.monotonic()
        with TemporaryDirectory(prefix="jobd-kills-", ignore_cleanup_errors=True) as folder:
            try:
                self.kills[peer.id] = kills.rounds(
                    peer, Path(folder), SCALES[self._scale].killed, count, _environment()
                )
            except RuntimeError as error:
                self._refused(f"{peer.id} kills", str(error))
        say(f"{count} kills: {peer.id} {time.monotonic() - began:.1f} s")


def _environment() -> dict[str, str]:
    return environment() | {"PYTHONPATH": os.pathsep.join([str(_HERE), str(ROOT)])}
