"""A recorded run whose log is cut off after each frame, torn, zeroed and spoilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.warm import Warm
from report import Told

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, seed: int, *, out: Path, every: int, times: int) -> Told:  # noqa: ARG001 - there is no chance in it
    """Judge each ``every``-th prefix of a run that is ``times`` as long as that of the suite."""
    warm = Warm()
    seen = warm.prefixes(folder / "run", every=every, times=times)
    warm.close()
    return Told({"frames": seen.frames, "commits": seen.commits, "files": seen.files}, seen.wrong)
