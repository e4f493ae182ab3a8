"""The arrows of the house, held by import-linter; and the proof that it would notice."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder):
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_follows_the_arrows():
    answer = lint(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


# Up the arrows, one at a time: none of them makes a detour of another.
AGAINST = {
    ("jobd.errors", "jobd.states"),
    ("jobd.states", "jobd.store"),
    ("jobd.store.base", "jobd.engine"),
    ("jobd.store.base", "jobd.clock"),
    ("jobd.app", "jobd.cli"),
}


def test_each_import_against_the_arrows_is_refused_by_name(tmp_path):
    shutil.copytree(ROOT / "jobd", tmp_path / "jobd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, imported in AGAINST:
        with (tmp_path / module.replace(".", "/")).with_suffix(".py").open("a") as source:
            source.write(f"\nimport {imported}\n")
    answer = lint(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "2 broken" in answer.stdout
    assert set(re.findall(r"(jobd[\w.]*) -> (jobd[\w.]*) \(l\.", answer.stdout)) >= AGAINST
