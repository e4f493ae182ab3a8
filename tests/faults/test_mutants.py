"""The kept mutants apply to the code as it stands; scripts/mutants runs them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each of these guards is promised to have a mutant.
PROMISED = {
    "no status guard",
    "no attempt guard",
    "result in its own transaction",
    "counter in its own transaction",
    "deferred for IMMEDIATE",
    "no lock",
    "registry before store",
    "no gap",
    "no savepoint replay",
}


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


def test_every_guard_that_was_promised_a_mutant_has_one():
    names = [mutant.name for mutant in TABLE]
    assert set(names) >= PROMISED
    assert len(names) == len(set(names))


@pytest.mark.parametrize("old", ["nowhere to be found", "e"])
def test_a_mutant_that_no_longer_applies_is_stale(old):
    with pytest.raises(run.Stale):
        run.mutated("one line\nmore lines\n", run.Edit("file.py", old, "x"))


def test_a_mutant_that_is_no_python_is_stale():
    with pytest.raises(run.Stale):
        run.mutated("x = 1\n", run.Edit("file.py", "1", "("))
