"""`jobd map` beside GNU parallel, which keeps nothing: the same commands over the same items, each in a new process."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from measure import timed
from processes import JOBD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measure import Scale


def commands(folder: Path, scale: Scale) -> dict[str, float]:
    """Return ms for each item; of GNU parallel only where it is there.

    Raises:
        RuntimeError: the two do not print the same bytes.
    """
    library = Path(sysconfig.get_path("stdlib"))
    numbers = [str(number) for number in range(scale.commands)]
    files = [str(path) for path in sorted(library.rglob("*.py"))[: 2 * scale.commands]]
    found: dict[str, float] = {}
    for name, word, items in (("true", "true", numbers), ("sum", "sha256sum", files)):
        listed = folder / name
        listed.write_text("".join(f"{item}\n" for item in items))
        jobd = [*JOBD, "--db", str(folder / f"{name}.db"), "map", "-k", "-j", "2", "-a", str(listed), word]
        printed = [_run(found, f"map-{name}", jobd, len(items))]
        if shutil.which("parallel"):
            beside = ["parallel", "--will-cite", "-k", "-j", "2", "-a", str(listed), word]
            printed.append(_run(found, f"parallel-{name}", beside, len(items)))
        if len(set(printed)) > 1:
            raise RuntimeError(f"{word}: jobd map and parallel print other bytes")
    return found


def _run(found: dict[str, float], name: str, command: Sequence[str], items: int) -> bytes:
    answers: list[subprocess.CompletedProcess[bytes]] = []
    seconds = timed(
        lambda: answers.append(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True))
    )
    found[name] = seconds / items * 1000
    return answers[0].stdout
