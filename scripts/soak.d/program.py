"""The program that is killed: a witness outside the database is told of each attempt that begins."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from jobd import Jobd

if TYPE_CHECKING:
    from pathlib import Path

    from jobd.context import Context

WITNESS = "SOAK_WITNESS"
app = Jobd()


@app.task(max_interruptions=1_000_000)
def work(number: int, ctx: Context) -> int:
    said = os.open(os.environ[WITNESS], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(said, b"%d %d\n" % (ctx.item_id, ctx.attempt))
    os.close(said)
    time.sleep(0.001)
    return number


def submit(folder: Path, name: str) -> None:
    """Store a job of twenty items, and say that it is stored once it is."""
    work.submit(range(20), key=name)
    said = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(said, f"{name}\n".encode())
    os.close(said)
