"""The demo does what it says, and would notice if jobd did not."""

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

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


def test_the_demo_checks_every_file_and_a_second_run_does_only_what_is_new(tmp_path):
    first = jobd(tmp_path, "demo")
    assert first.returncode == 0, first.stdout + first.stderr
    count = len(demo_steps.standard_library())
    assert "0 were completed before" in first.stdout
    assert f"{count:,} of {count:,} digests agree" in first.stdout
    ended = json.loads(jobd(tmp_path, "--db", ".jobd/demo.db", "show", "1", "--json").stdout)["completed_at"]

    second = jobd(tmp_path, "demo")
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{count:,} were completed before" in second.stdout
    assert json.loads(jobd(tmp_path, "--db", ".jobd/demo.db", "show", "1", "--json").stdout)["completed_at"] == ended


def test_after_a_kill_nothing_that_was_completed_runs_again(tmp_path):
    ran = jobd(tmp_path, "demo", "--crash")
    count = len(demo_steps.standard_library())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "killed with SIGKILL" in ran.stdout
    assert "0 of the" in ran.stdout
    assert f"{count:,} of {count:,} digests agree" in ran.stdout
