"""Every operation killed at each of its boundaries, and in what comes after at each of its own."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

from kit.operations import OPERATIONS
from kit.warm import Warm
from report import Told, going

if TYPE_CHECKING:
    from pathlib import Path

_AT_ONCE: Final = 2


def run(folder: Path, seed: int, *, out: Path, **shares: float) -> Told:
    """Kill at these shares of the boundaries, as kit.crashes takes them; write the table."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for operation in OPERATIONS:
        waiting.put(operation.name)
    seen = []

    def work(number: int) -> None:
        warm = Warm()
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                break
            place = folder / f"{number} {name}"
            seen.append(warm.crash(name, place, **shares, seed=seed))
            going(len(seen), len(OPERATIONS), "operations")
        warm.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [f"{'operation':36} statements boundaries  kills states  again"]
    rows += [
        f"{row.operation:36} {row.statements:10} {row.boundaries:10} {row.kills:6} {row.states:6} {row.again:6}"
        for row in sorted(seen)
    ]
    (out / "boundaries.txt").write_text("\n".join(rows) + "\n")
    wrong = [one for row in seen for one in row.wrong]
    missed = {operation.name for operation in OPERATIONS} - {row.operation for row in seen}
    wrong += [f"{name}: it was not looked at" for name in sorted(missed)]
    wrong += [f"{row.operation}: fewer points than statements" for row in seen if row.boundaries < row.statements]
    figures = {
        "operations": len(seen),
        "statements": sum(row.statements for row in seen),
        "boundaries": sum(row.boundaries for row in seen),
        "kills": sum(row.kills for row in seen),
        "states": sum(row.states for row in seen),
        "kills in what came after": sum(row.again for row in seen),
    }
    return Told(figures, wrong)
