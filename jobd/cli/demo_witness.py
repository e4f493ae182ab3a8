"""The demo's task with a witness: each run of the handler leaves a line in a file that jobd knows nothing of."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobd import Jobd
from jobd.demo import checksum as plain_checksum

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE: Final = "DEMO_WITNESS"

app = Jobd()


@app.task
def checksum(path: str) -> dict[str, Any]:
    """Say that this file is being read, then read it."""
    _append(os.environ[VARIABLE], path)
    return plain_checksum(path)


def _append(witness: str, path: str) -> None:
    # One write in append mode: lines of several threads never mix, and what was written outlives a SIGKILL.
    descriptor = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, os.fsencode(path) + b"\n")
    finally:
        os.close(descriptor)


def runs(witness: Path) -> Counter[str]:
    """How often each file was begun."""
    return Counter(os.fsdecode(line) for line in witness.read_bytes().splitlines())
