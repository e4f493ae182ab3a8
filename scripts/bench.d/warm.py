"""Items that do next to nothing, each in a worker process that is warm."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from speed import WORKERS, nothing

from jobd import Jobd

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Scale

_ITEMS: Final = 500
_PATIENCE: Final = 120.0


def warm(folder: Path, scale: Scale) -> dict[str, float]:  # noqa: ARG001 - so many are few enough at any scale
    app = Jobd(folder / "warm.db")
    task = app.task(nothing, isolation="process")
    with app.daemon(workers=WORKERS):
        # Each worker imports its program beside the first of these.
        task.submit(range(10 * WORKERS)).wait(_PATIENCE)
        time.sleep(1.0)
        began = time.perf_counter()
        task.submit(range(_ITEMS)).wait(_PATIENCE)
        return {"process-items": (time.perf_counter() - began) * 1000 / _ITEMS}
