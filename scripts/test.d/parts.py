"""The suite in parts, each in a process of its own: a worker that is told of each test, and tells of each, costs a
sixth of the time that the tests take.

What a part prints while it runs is shown at once, what it has to tell in the end when all have ended.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import threading
import time
from typing import Final

_DOTS: Final = re.compile(r"([.sxXEF]+) +\[ *\d+%\]")
_COUNT: Final = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|warnings?|deselected)")
_LAST: Final = re.compile(r"=* ?(\d+ \w+.*) in [\d.]+s.*")
# One more than there are processors: the tests wait for processes a part of the time.
_PARTS: Final = (os.cpu_count() or 1) + 1


class Part:
    """One process, what it has to tell, and its counts."""

    def __init__(self, number: int) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "--part", f"{number}/{_PARTS}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.told: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if dots := _DOTS.match(line):
                print(dots[1], flush=True)
            elif last := _LAST.fullmatch(line.rstrip()):
                for count, word in _COUNT.findall(last[1]):
                    self.counts[word.removesuffix("s") if word != "passed" else word] += int(count)
            else:
                self.told.append(line)

    def end(self) -> int:
        """Wait for it, and return its exit code."""
        self._thread.join()
        return self.process.wait()


def main() -> int:
    """Run all parts and return the worst of their exit codes."""
    began = time.monotonic()
    parts = [Part(number) for number in range(1, _PARTS + 1)]
    codes = [part.end() for part in parts]
    counts: collections.Counter[str] = collections.Counter()
    for part, code in zip(parts, codes, strict=True):
        counts += part.counts
        if code:
            print("".join(part.told), end="")
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    print(f"{told or 'nothing ran'} in {time.monotonic() - began:.0f} s")
    return max(codes, default=1)


if __name__ == "__main__":
    sys.exit(main())
