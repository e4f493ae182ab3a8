"""The README's code runs, and says what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobd.cli.root import root

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "b.txt").write_text("")
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[0] == "completed 1 of 2"


def test_the_commands_of_the_readme_run_one_after_the_other_as_they_stand(tmp_path):
    """By who has nothing set: a file fails at first, and is mended before what failed runs again."""
    (tmp_path / "tasks.py").write_text(blocks("python")[0])
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "b.txt").symlink_to("b")
    program = tmp_path / "bin" / "jobd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m jobd "$@"\n')
    program.chmod(0o700)
    block = next(block for block in blocks("console") if "./tasks.py:checksum" in block)
    *first, again = [line.removeprefix("$ ") for line in block.splitlines()]
    script = [f"{line}\necho $? >> codes" for line in (*first, "echo beta > b", again)]
    own = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
    said = subprocess.run(
        ["sh", "-c", "\n".join(script)], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "codes").read_text().split() == ["0", "1", "0", "0", "0", "0", "0", "0"], said
    assert "FileNotFoundError" in said.stdout
    assert not (tmp_path / "home").exists()


def test_the_first_task_of_the_readme_has_at_most_fifteen_lines():
    code = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(code) <= 15


def test_every_verb_is_in_the_readme():
    table = README[README.index("| run |") : README.index("Reading needs only the file")]
    named = set(re.findall(r"[a-z-]+", " ".join(re.findall(r"`([^`]*)`", table))))
    verbs = set(root.list_commands(click.Context(root)))
    assert verbs - named == set()


@pytest.mark.parametrize("document", [README, ARCHITECTURE], ids=["README", "ARCHITECTURE"])
def test_every_file_that_a_document_links_to_exists(document):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", document) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_path_that_the_architecture_names_exists():
    named = re.findall(r"`((?:store|engine|maintenance|jobd)/[a-z_]+\.py)`", ARCHITECTURE)
    assert named
    assert [path for path in named if not any((ROOT / base / path).exists() for base in ("", "jobd"))] == []
