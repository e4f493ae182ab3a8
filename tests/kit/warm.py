"""A process that has imported all of jobd and opened nothing, in whose children operations are killed.

It reads requests, JSON lines, and answers each with one.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import pkgutil
import random
import subprocess
import sys
from pathlib import Path

import jobd
from kit.crashes import Crashed, Machine
from kit.operations import OPERATIONS
from kit.prefixes import Prefixes, prefixes

_APART = ("jobd.cli", "jobd.__main__", "jobd.testing")


class Warm:
    """The process, and its requests."""

    def __init__(self):
        folder = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kit.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": f"{folder}:{folder.parent}", "TZ": "UTC"},
        )  # fmt: skip

    def crash(self, operation, folder, **settings):
        """Return what a machine of ``operation`` has seen, as kit.crashes tells it."""
        return Crashed(**self._ask("crash", operation=operation, folder=str(folder), **settings))

    def prefixes(self, folder, **settings):
        """Return what kit.prefixes has seen."""
        return Prefixes(**self._ask("prefixes", folder=str(folder), **settings))

    def _ask(self, what, **settings):
        self._process.stdin.write(json.dumps([what, settings]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"it ended with {self._process.wait(20)}"
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


def load():
    """Import all that a life may need: what a child has to import, each child would import anew."""
    for found in pkgutil.walk_packages(jobd.__path__, "jobd."):
        if not found.name.startswith(_APART):
            importlib.import_module(found.name)
    for name in ("psutil", "schedule"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def crash(operation, folder, *, seed=0, **settings):
    (found,) = (one for one in OPERATIONS if one.name == operation)
    return Machine(found, folder).run(rng=random.Random(seed), **settings)


def main():
    load()
    # What late answers and recoveries have to say is asked of their rows.
    logging.disable()
    answers = {"crash": crash, "prefixes": prefixes}
    for line in sys.stdin:
        what, settings = json.loads(line)
        found = answers[what](folder=Path(settings.pop("folder")), **settings)
        print(json.dumps(found._asdict()), flush=True)


if __name__ == "__main__":
    main()
