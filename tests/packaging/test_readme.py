"""The README's code runs, and says what there is."""

import re
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
