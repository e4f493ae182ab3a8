"""The kept mutants apply to the code as it stands; scripts/mutants runs them."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs/rules.md"
HANGS = """
import os, time
def test_that_hangs():
    os.fork()
    time.sleep(90)
"""


def load():
    specification = importlib.util.spec_from_file_location("mutants_run", ROOT / "scripts/mutants.d/run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


run = load()
TABLE = run.read_table()


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_code_as_it_stands(mutant):
    for edit in mutant.edits:
        text = (ROOT / edit.file).read_text(encoding="utf-8")
        assert run.mutated(text, edit) != text
    assert all((ROOT / test.split("::")[0]).exists() for test in mutant.tests)


def rows():
    """Each rule and each trap of docs/rules.md, with the names of its mutants."""
    cells = [line.strip("| ").split(" | ") for line in RULES.read_text(encoding="utf-8").splitlines() if "| " in line]
    return {row[0]: row[-1].split("; ") for row in cells if row[-1] not in {"mutants", "---"}}


@pytest.mark.parametrize("rule", rows())
def test_every_rule_and_every_trap_has_mutants(rule):
    assert set(rows()[rule]) <= {mutant.name for mutant in TABLE}


def test_no_two_mutants_have_one_name_and_the_rules_are_all_there():
    names = [mutant.name for mutant in TABLE]
    assert len(names) == len(set(names))
    assert len(rows()) == 28


def test_a_test_that_does_not_end_is_ended_with_all_that_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PATIENCE", 3.0)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_hangs.py").write_text(HANGS)
    began = time.monotonic()
    answer = run.run_tests(tmp_path, ("tests/test_hangs.py",))
    assert answer == "tests/test_hangs.py::test_that_hangs did not end within 3 s"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("old", ["nowhere to be found", "e"])
def test_a_mutant_that_no_longer_applies_is_stale(old):
    with pytest.raises(run.Stale):
        run.mutated("one line\nmore lines\n", run.Edit("file.py", old, "x"))


def test_a_mutant_that_is_no_python_is_stale():
    with pytest.raises(run.Stale):
        run.mutated("x = 1\n", run.Edit("file.py", "1", "("))
