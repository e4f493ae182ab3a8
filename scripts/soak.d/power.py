"""The power cut at any moment, on a disk that keeps what it likes of what was not synced.

With durability "full" all that anybody was told is there; with "normal" all that was there at the last checkpoint; and
neither is ever corrupt. The run is that of apsw's own SQLite, through whose file system each write can be seen; what is
left is opened by the standard library's.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from kit.children import in_child
from kit.warm import load
from kit.worlds import World
from report import Told, going

from jobd.engine.wal import Wal
from jobd.maintenance.checkpoint import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS: Final = 12
_CHECKPOINT_EVERY: Final = 3


def run(folder: Path, seed: int, *, out: Path, cuts: int) -> Told:  # noqa: ARG001 - nothing to plot
    """Cut the power so many times in a recorded run of each durability."""
    load()
    figures: dict[str, float] = {}
    wrong: list[str] = []
    for durability in ("normal", "full"):
        place = folder / durability
        place.mkdir()
        in_child(_record, place, durability)
        told, found = in_child(_cut, place, durability, seed, cuts)[1]
        figures |= {f"{name}, {durability}": value for name, value in told.items()}
        wrong += found
    if not figures["lost what was told, normal"]:
        wrong.append("with normal nothing was ever lost: the disk forgets nothing, and full shows nothing")
    return Told(figures, wrong)


def _record(folder: Path, durability: str) -> None:
    """Run jobs on a disk that records, and leave its steps in a file."""
    import disk  # noqa: PLC0415 - a second SQLite: in this process alone

    forgetful = disk.Disk()
    sqlite3.connect = disk.Connection  # type: ignore[assignment, misc]
    world = World(folder, durability=durability)
    # It would empty the log after each drain, of which nothing could be lost then.
    Wal.beat = lambda _: None  # type: ignore[method-assign]
    for number in range(_ROUNDS):
        world.submit("complete-1 save-2 fail-3 tell-4", key=f"job {number}")
        forgetful.note(disk.Step(disk.TOLD, "", 0, world.items()))
        world.drain()
        forgetful.note(disk.Step(disk.TOLD, "", 0, world.items()))
        if number % _CHECKPOINT_EVERY == 0 and not checkpoint(world.app.store).counts["busy"]:
            forgetful.note(disk.Step(disk.TOLD, "", 1, world.items()))
    with (folder / "steps").open("wb") as kept:
        pickle.dump([tuple(step) for step in forgetful.steps], kept)
    os.sync()


def _cut(folder: Path, durability: str, seed: int, cuts: int) -> tuple[dict[str, float], list[str]]:
    import disk  # noqa: PLC0415 - it opens nothing here

    steps = [disk.Step(*step) for step in pickle.loads((folder / "steps").read_bytes())]  # noqa: S301 - our own
    rng = random.Random(f"{seed} {durability}")  # noqa: S311 - chance, not a secret
    wrong: list[str] = []
    lost = 0
    first = next(place for place, step in enumerate(steps) if step.kind == disk.TOLD)
    for number in range(cuts):
        going(number + 1, cuts, f"power cuts, {durability}")
        cut = rng.randint(first + 1, len(steps))
        told = [step for step in steps[:cut] if step.kind == disk.TOLD]
        sure = told if durability == "full" else [step for step in told if step.at]
        missing, found = _judge(folder, disk.after_a_power_cut(steps, cut, rng), sure[-1:], told[-1:])
        wrong += [f"{durability}, cut after {cut} of {len(steps)} steps: {one}" for one in found]
        lost += missing
    return {"steps": len(steps), "cuts": cuts, "lost what was told": lost}, wrong


def _judge(folder: Path, files: dict[str, bytes], sure: list[Any], told: list[Any]) -> tuple[bool, list[str]]:
    """Return whether what anybody was told is missing, and what is wrong: also if it is missing and was ``sure``."""
    place = folder / "cut"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    world = World(place, later=1_000)
    try:
        wrong = world.wrong()
        there = {one for _, *item in world.items() for one in ((item[0], item[1], item[3]), (item[0], None, None))}
        wrong += [f"{one} is lost" for one in _ends(sure) - there]
        missing = bool(_ends(told) - there)
        world.recover()
        world.drain()
        wrong += world.wrong()
    except Exception as error:  # noqa: BLE001 - a file that cannot be opened is what is looked for
        return False, [f"{type(error).__name__}: {error}"]
    finally:
        world.app.close()
    return missing, wrong


def _ends(told: list[Any]) -> set[tuple[str, str, str | None]]:
    """Return the items that had ended by then, and the names of the others, which may have gone on since."""
    return {
        (name, status, value) if status != "queued" else (name, None, None)
        for step in told
        for _, name, status, _, value in step.data
    }
