"""Break one guard at a time in a copy of the checkout and name the test that notices.

A mutant that no test notices is a guard that nobody watches; one that no longer applies watches nothing. Both fail.
"""

from __future__ import annotations

import compileall
import functools
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = Path(__file__).with_name("mutants.toml")
LEFT_OUT: Final = (".git", ".jobd", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
WHOLE: Final = ("tests",)
ONE_AT_A_TIME: Final = threading.Lock()  # whoever comes second finds what the first has found
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - below it a folder of our own
# A mutant may make a test wait for ever; pytest says with -v which one it was.
PATIENCE: Final = 600.0
PYTEST: Final = ("-m", "pytest", "-v", "-x", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider")


class Edit(NamedTuple):
    """One text that is replaced in one file, where it stands exactly once."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One guard broken; ``tests`` are those that should notice, looked at before all others."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


class Stale(Exception):
    """The mutant does not apply to this checkout."""


def main(wanted: list[str]) -> int:
    mutants = [mutant for mutant in read_table() if not wanted or any(part in mutant.name for part in wanted)]
    if not mutants:
        print(f"no mutant is named like {', '.join(wanted)}", file=sys.stderr)
        return 2
    abreast = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="jobd-mutants-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        sound = copied(Path(folder) / "sound")
        expect_no_failure(sound, tuple(sorted({test for mutant in mutants for test in mutant.tests})))
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(abreast):
            copies.put(copied(Path(folder) / f"broken {number}"))

        def one(mutant: Mutant) -> bool:
            broken = copies.get()
            try:
                return judge(sound, broken, mutant)
            finally:
                copies.put(broken)

        with ThreadPoolExecutor(abreast) as pool:
            noticed = list(pool.map(one, mutants))
        unnoticed = [mutant.name for mutant, seen in zip(mutants, noticed, strict=True) if not seen]
    print(f"{len(mutants) - len(unnoticed)} of {len(mutants)} mutants were noticed")
    print("".join(f"  not: {name}\n" for name in unnoticed), end="")
    return int(bool(unnoticed))


def copied(target: Path) -> Path:
    """Return a copy of the checkout, compiled so that a file is compiled anew for its text and not for its time."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    compileall.compile_dir(target / "jobd", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return target


def read_table() -> list[Mutant]:
    """Return the kept mutants in their order."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [
        Mutant(entry["name"], tuple(entry["tests"]), tuple(Edit(**edit) for edit in entry["edit"]))
        for entry in table["mutant"]
    ]


def judge(sound: Path, broken: Path, mutant: Mutant) -> bool:
    """Say whether a test noticed the mutant, and print which."""
    began = time.monotonic()
    try:
        changed: dict[str, str] = {}
        for edit in mutant.edits:
            # Several of one file are made one behind the other.
            text = changed.get(edit.file) or (sound / edit.file).read_text(encoding="utf-8")
            changed[edit.file] = mutated(text, edit)
    except Stale as reason:
        print(f"STALE    {mutant.name}: {reason}", flush=True)
        return False
    for file, text in changed.items():
        (broken / file).write_text(text, encoding="utf-8")
    try:
        noticed = run_tests(broken, mutant.tests)
        if noticed is None:
            with ONE_AT_A_TIME:
                expect_no_failure(sound, WHOLE)
            noticed = run_tests(broken, WHOLE)
    finally:
        for file in changed:
            shutil.copy(sound / file, broken / file)
    answer = f"ALIVE    {mutant.name}" if noticed is None else f"noticed  {mutant.name}: {noticed}"
    print(f"{answer} ({time.monotonic() - began:.0f} s)", flush=True)
    return noticed is not None


def mutated(text: str, edit: Edit) -> str:
    """Return ``text`` with the edit made.

    Raises:
        Stale: its place is not there exactly once, or what results is no Python.
    """
    if (count := text.count(edit.old)) != 1:
        raise Stale(f"its text stands {count} times in {edit.file}")
    changed = text.replace(edit.old, edit.new)
    try:
        # A program that cannot start is noticed by every test, and proves nothing about any.
        compile(changed, edit.file, "exec")
    except SyntaxError as error:
        raise Stale(f"it makes no Python of {edit.file}: {error}") from None
    return changed


@functools.cache
def expect_no_failure(copy: Path, tests: tuple[str, ...]) -> None:
    """Leave with 2 where a test fails without any mutant: it would seem to notice every one."""
    if (failed := run_tests(copy, tests)) is not None:
        print(f"without any mutant this fails already: {failed}", file=sys.stderr)
        sys.exit(2)


def run_tests(copy: Path, tests: tuple[str, ...]) -> str | None:
    """Run tests in the copy until the first that fails; return its name, or None where all pass."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, *PYTEST, *tests],
        cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        # What its tests have started holds the pipe as well, and may never end.
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        begun = re.findall(r"^(tests/\S+::\S+) *$", output, flags=re.MULTILINE) or ["some test"]
        return f"{begun[-1]} did not end within {PATIENCE:.0f} s"
    if process.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, flags=re.MULTILINE)
    if failed is None:
        raise SystemExit(f"pytest left with {process.returncode} and named no test:\n{output}")
    return failed[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
