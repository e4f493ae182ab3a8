"""The state machine of tests/faults/test_model.py, for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from report import Told

_ROOT: Final = Path(__file__).resolve().parents[2]


def run(folder: Path, seed: int, *, out: Path, examples: int, steps: int) -> Told:
    """Play so many lives of so many steps."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout=0",
        f"--basetemp={folder / 't'}",
    ]
    ended = subprocess.run(
        [*command, f"--hypothesis-seed={seed}", "tests/faults/test_model.py"],
        cwd=_ROOT, env={**os.environ, "MODEL": f"{examples} {steps}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (out / "model.txt").write_text(ended.stdout)
    wrong = [] if ended.returncode == 0 else [f"the model differs: {out / 'model.txt'} says how"]
    return Told({"lives": examples, "steps": steps}, wrong)
