"""The parts of the soak: each can run alone, prints its seed and one line of figures, and says what it has not held."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boundaries
import hour
import kills
import locks
import million
import model
import power
import prefixes
from report import Told

if TYPE_CHECKING:
    from collections.abc import Callable

_MEMORY: Final = "/dev/shm"  # noqa: S108 - below it a folder of our own
OUT: Final = Path(__file__).resolve().parents[2] / ".jobd/soak"


class Part(NamedTuple):
    """A part: ``run(folder, seed, **sizes)``, and its sizes in the short form and in the long one.

    What measures time is ``timed``, and on the disk; what a kill leaves is the same in memory, and sooner there.
    """

    run: Callable[..., Told]
    short: dict[str, Any]
    long: dict[str, Any]
    timed: bool = False


def _of_locks(part: Callable[..., dict[str, Any]]) -> Callable[..., Told]:
    """Return one of the parts that are a program of their own, as a part of this one.

    What was only slow is done once more: another program may have had the processors.
    """

    def run(folder: Path, seed: int, *, out: Path, **sizes: Any) -> Told:  # noqa: ARG001 - the machine's load is the chance
        found = part(folder, **sizes)
        if found.get("slow") and not found["problems"]:
            folder = folder / "again"
            folder.mkdir()
            found = part(folder, **sizes)
        numbers = {name: value for name, value in found.items() if isinstance(value, int | float)}
        return Told(numbers, [*found["problems"], *found.get("slow", ())])

    return run


# Each boundary, and in each state that this leaves each boundary of its recovery; of all that follows it, a part.
_EVERY: Final = {"share": 1.0, "recovery": 1.0, "again": 0.01}
PARTS: Final = {
    "boundaries": Part(boundaries.run, {"share": 0.02, "recovery": 0.001, "again": 0.001}, _EVERY),
    "prefixes": Part(prefixes.run, {"every": 1, "times": 2}, {"every": 1, "times": 20}),
    "power": Part(power.run, {"cuts": 100}, {"cuts": 5_000}),
    "model": Part(model.run, {"examples": 60, "steps": 30}, {"examples": 300, "steps": 40}),
    "kills": Part(kills.run, {"forked": 950, "started": 50}, {"forked": 9_500, "started": 500}),
    "writers": Part(_of_locks(locks.writers), {"seconds": 60}, {"seconds": 60}, timed=True),
    "wal-reset": Part(_of_locks(locks.wal_reset), {"seconds": 20}, {"seconds": 60}, timed=True),
    "held": Part(_of_locks(locks.held), {"lengths": (3.0, 8.0)}, {"lengths": (3.0, 8.0, 60.0)}, timed=True),
    "million": Part(million.run, {"items": 100_000}, {"items": 1_000_000}, timed=True),
    "hour": Part(hour.run, {"seconds": 60}, {"seconds": 3_600}, timed=True),
}


def main() -> int:
    """Run the parts and return 1 where one of them has not held."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("part", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all of them without")
    arguments.add_argument("--short", action="store_true", help="sizes that take less than ten minutes on two cores")
    arguments.add_argument("--seed", type=int, help="that of an earlier run, to see the same again")
    arguments.add_argument("--out", type=Path, default=OUT, help="where figures and plots go (%(default)s)")
    given = arguments.parse_args()
    unknown = [name for name in given.part if name not in PARTS]
    if unknown:
        arguments.error(f"no part {unknown[0]}: one of {', '.join(PARTS)}")
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    given.out.mkdir(parents=True, exist_ok=True)
    results = [_one(name, seed, given) for name in given.part or PARTS]
    return int(not all(results))


def _one(name: str, seed: int, given: argparse.Namespace) -> bool:
    part, began, used = PARTS[name], time.monotonic(), _processor_time()
    print(f"== {name} (seed {seed})", flush=True)
    place = None if part.timed or not os.access(_MEMORY, os.W_OK) else _MEMORY
    with tempfile.TemporaryDirectory(prefix="jobd-soak-", dir=place) as folder:
        told = part.run(Path(folder), seed, out=given.out, **(part.short if given.short else part.long))
    seconds = time.monotonic() - began
    used = _processor_time() - used
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in told.figures.items())
    print(f"{shown} ({seconds:.0f} s, {used:.0f} s of processor time)")
    for wrong in told.wrong[:20]:
        print(f"  NOT HELD: {wrong}")
    figures = {
        "seed": seed,
        "seconds": round(seconds),
        "processor_seconds": round(used),
        **told.figures,
        "wrong": told.wrong,
    }
    (given.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    return not told.wrong


def _processor_time() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _shown(value: float | str) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
