"""The arrows of the house, held by import-linter; and the proof that it would notice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("errors.py", "import jobd.states"),
        ("states.py", "import jobd.store"),
        ("store/base.py", "import jobd.engine"),
        ("store/base.py", "import jobd.clock"),
        ("app.py", "import jobd.cli"),
    ],
)
def test_an_import_against_the_arrows_is_refused(tmp_path, module, statement):
    shutil.copytree(ROOT / "jobd", tmp_path / "jobd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "jobd" / module).open("a") as source:
        source.write(f"\n{statement}\n")
    answer = lint(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "BROKEN" in answer.stdout
