"""Help, and what is said to somebody who mistypes."""

import ast
from pathlib import Path

import click
import pytest

import jobd.cli
from jobd.cli.root import SECTIONS, root

# The demo is a program that uses the command line, and not a part of it.
MODULES = [path for path in Path(jobd.cli.__file__).parent.glob("*.py") if not path.name.startswith("demo")]
VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]


def command(verb):
    found = root.get_command(click.Context(root), verb)
    assert found is not None
    return found


def test_the_help_page_names_every_verb_and_every_exit_code(jobd):
    page = jobd("--help")
    assert page.code == 0
    assert page.err == ""
    assert set(VERBS) <= {line.split()[0] for line in page.out.splitlines() if line.startswith("  ")}
    codes = page.out.partition("Exit codes:")[2].partition("Completion:")[0].split()
    assert {"0", "1", "2", "3", "4", "5", "6", "7", "10", "124", "130"} <= set(codes)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_an_example_that_uses_it(jobd, verb):
    page = jobd(verb, "--help").out
    examples = page.partition("Example")[2]
    assert f" {verb}" in examples
    assert "\x08" not in page


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_that_prints_takes_json(verb):
    if verb not in {"start", "demo"}:
        assert "--json" in [name for option in command(verb).params for name in option.opts]


@pytest.mark.parametrize("verb", ["list", "items", "errors", "results", "history", "tasks", "watch"])
def test_each_list_takes_jsonl(verb):
    assert "--jsonl" in [name for option in command(verb).params for name in option.opts]


def test_no_verb_shows_the_page_and_is_a_usage_error(jobd):
    answer = jobd()
    assert answer.code == 2
    assert answer.out == ""
    assert "Usage: jobd" in answer.err


@pytest.mark.parametrize(
    ("typed", "what", "hint"),
    [
        (["lst"], "no verb 'lst'", "did you mean list?"),
        (["frobnicate"], "no verb 'frobnicate'", "jobd --help lists the verbs"),
        (["list", "--staus", "failed"], "no option '--staus'", "did you mean --status"),
        (["--dbb", "x"], "no option '--dbb'", "did you mean --db"),
        (["list", "--status", "fine"], "'fine' is not one of", "jobd list --help"),
        (["item"], "missing argument 'ID:KEY'", "jobd item --help"),
        (["service"], "Choose from: install, uninstall, status", "jobd service --help"),
        (["list", "--limit", "x"], "'x' is not a valid integer", "jobd list --help"),
        (["list", "--json", "--jsonl"], "exclude each other", None),
        (["show", "\x1b[2J"], "not an id: '\\x1b[2J'", "@last"),
        (["\udcff\x1b"], "no verb '\\udcff\\x1b'", "jobd --help"),
        (["run", "./x.py:f", "a", "--range", "0:1"], "items come from one place", None),
        (["run", "./x.py:f", "a", "--job", "7"], "--job goes on with a job as it is: items", None),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(jobd, typed, what, hint):
    answer = jobd(*typed)
    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert len(lines) <= 2
    if hint is not None:
        assert lines[1].startswith("  hint: ")
        assert hint in lines[1]
    assert "\x1b" not in answer.err
    assert "Traceback" not in answer.err


def test_importing_the_command_line_imports_no_database_and_no_rich():
    """Module level only: what a verb needs is imported when the verb runs."""
    heavy = {
        "peewee",
        "rich",
        "psutil",
        "schedule",
        "platformdirs",
        "jobd.app",
        "jobd.job",
        "jobd.store",
        "jobd.engine",
    }
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not heavy & {str(name) for name in names}, path.name


def test_no_module_of_the_command_line_passes_300_lines_and_no_function_a_screen():
    for path in MODULES:
        source = path.read_text()
        assert source.count("\n") <= 300, path.name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


def test_the_module_is_the_command(start, jobd):
    assert start("--version").end() == (0, jobd("--version").out, "")
