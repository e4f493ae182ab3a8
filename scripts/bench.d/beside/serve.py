"""The process that is killed: python -m beside.serve PEER FOLDER UNITS submits so many units and runs what is there."""

from __future__ import annotations

import sys
from pathlib import Path

from beside import units
from beside.measured import WORKERS
from beside.roster import BY_ID


def main(peer: str, folder: str, count: str) -> None:
    place = Path(folder)
    queue = BY_ID[peer].load()(place, killed=True)
    units.use(units.Witness(place / "witness"))
    if int(count):
        queue.fill(range(int(count)))
    queue.serve(WORKERS, place / "ready")


if __name__ == "__main__":
    main(*sys.argv[1:])
