"""The demo does what it says, and would notice if jobd did not."""

import ast
import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from kit import forked

from jobd import Jobd, cli
from jobd.cli import demo as demo_command
from jobd.cli import demo_crash, demo_steps, demo_witness
from jobd.errors import JobdError

ROOT = Path(__file__).parents[2]
ENOUGH = 500
"""Files that any Python has in its library: Debian's has 660, a build from source 1,800."""


def jobd(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "jobd", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def function(path, name):
    tree = ast.parse((ROOT / path).read_text())
    return next(ast.dump(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def test_the_program_of_the_demo_and_the_one_of_the_docs_are_twins():
    assert function("jobd/demo.py", "checksum") == function("docs/examples/checksum.py", "checksum")


def test_the_program_of_the_demo_fits_thirty_lines():
    assert len((ROOT / "jobd/demo.py").read_text().splitlines()) <= 30


def test_the_files_are_absolute_sorted_and_the_library_s_own():
    files = demo_steps.standard_library()
    assert len(files) > ENOUGH
    assert files == sorted(files)
    assert os.__file__ in files
    assert not [file for file in files if not file.startswith("/") or "/site-packages/" in file]


def test_a_wrong_digest_a_wrong_size_and_a_missing_result_are_noticed(tmp_path):
    files = [tmp_path / name for name in ("good", "digest", "size", "missing")]
    for path in files:
        path.write_bytes(b"one\ntwo")
    value = {"sha256": hashlib.sha256(b"one\ntwo").hexdigest(), "bytes": 7, "lines": 1}
    results = [
        {"key": str(files[0]), "value": value},
        {"key": str(files[1]), "value": {**value, "sha256": "0" * 64}},
        {"key": str(files[2]), "value": {**value, "bytes": 8}},
    ]
    assert demo_steps.check_digests(results, map(str, files)) == [str(path) for path in files[1:]]


@pytest.mark.parametrize(
    ("after", "holds"),
    [
        ({"completed": 1, "cut off": 2, "new": 1}, True),
        ({"completed": 2, "cut off": 2, "new": 1}, False),
        ({"completed": 1, "cut off": 2, "unknown": 2}, False),
    ],
)
def test_the_witness_tells_a_completed_item_that_ran_again(after, holds):
    before = demo_crash.AtTheKill({"completed"}, {"cut off"}, Counter({"completed": 1, "cut off": 1, "unknown": 1}))
    assert demo_crash.prove(before, Counter(after)) is holds


def test_a_runner_that_ends_by_itself_is_no_crash(tmp_path):
    witness = tmp_path / "witness"
    witness.touch()
    with subprocess.Popen([sys.executable, "-c", ""]) as runner, pytest.raises(JobdError, match="before it could"):
        demo_crash.kill_on_the_way(runner, tmp_path / "jobs.db", witness, 1)


def test_the_witness_counts_runs_by_several_threads(tmp_path, monkeypatch):
    witness = tmp_path / "witness"
    monkeypatch.setenv(demo_witness.VARIABLE, str(witness))
    path = str(tmp_path / "a file")
    Path(path).write_bytes(b"x")
    assert demo_witness.checksum(path) == demo_witness.checksum(path)
    assert demo_witness.runs(witness) == {path: 2}


def test_the_demo_checks_every_file(tmp_path):
    ran = jobd(tmp_path, "demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    count = len(demo_steps.standard_library())
    assert f"{count:,} files of Python's standard library; 0 were completed before" in ran.stdout
    assert f"{count:,} of {count:,} digests agree" in ran.stdout


@pytest.fixture
def demo(tmp_path, monkeypatch, capfd):
    """Run the verb in this process over some of the files; return what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_steps, "subprocess", forked)

    def run(files, *options):
        monkeypatch.setattr(demo_command, "standard_library", lambda: files)
        code = cli.call(["demo", "--dir", str(tmp_path), *options])
        said = capfd.readouterr()
        assert code == 0, said
        return said.out

    return run


def test_a_second_run_of_the_demo_does_only_what_is_new(tmp_path, demo):
    files = demo_steps.standard_library()[:60]

    def ended():
        with contextlib.closing(Jobd(tmp_path / "demo.db")) as app:
            return {item.key: (item.attempt, item.completed_at) for item in app.job(1).items()}

    said = demo(files[:50])
    first = ended()
    assert "0 were completed before" in said
    assert "50 of 50 digests agree" in said

    said = demo(files)
    second = ended()
    assert "50 were completed before" in said
    assert "60 of 60 digests agree" in said
    assert second.keys() == set(files)
    assert {key: second[key] for key in first} == first


# The demo's own handler, which goes no further than half of the items before its process was killed.
HOLDS = """
import itertools, threading
from pathlib import Path
from jobd import Jobd, cli
from jobd.cli.demo_witness import checksum as witnessed

app = Jobd()
begun = itertools.count()
first = not Path("been here").exists()
Path("been here").touch()

@app.task
def checksum(path):
    if first and next(begun) >= 100:
        threading.Event().wait()
    return witnessed(path)
"""


def test_after_a_kill_nothing_that_was_completed_runs_again(tmp_path, monkeypatch, demo):
    (tmp_path / "holds.py").write_text(HOLDS)
    monkeypatch.setattr(demo_crash, "TARGET", "holds:checksum")
    said = demo(demo_steps.standard_library()[:200], "--crash")
    completed = int(re.search(r"killed with SIGKILL at \d+%: (\d+) completed", said)[1])
    assert 80 <= completed <= 100
    assert f"0 of the {completed} that were completed" in said
    assert "200 of 200 digests agree" in said
