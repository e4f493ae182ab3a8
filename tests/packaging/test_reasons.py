"""Every exception from a rule, and every dependency, says why it is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text().splitlines()
SOURCES = sorted((ROOT / "jobd").rglob("*.py"))
BA54ED = {"stuck", "zombie", "helper", "helpers", "util", "utils", "manager"}
# Tests that are left out somewhere: the place of the mark or call, and why it must be.
LEFT_OUT: dict[str, str] = {
    "tests/kit/disks.py:57": "a disk that is full has to be mounted, which not every machine lets its users do",
}


def entries(start, end):
    """The quoted entries of pyproject.toml between two lines that begin so."""
    first = next(number for number, line in enumerate(PROJECT) if line.startswith(start))
    last = next(number for number, line in enumerate(PROJECT) if number > first and line.startswith(end))
    return [line for line in PROJECT[first:last] if line.startswith('    "') and not line.startswith('    "/')]


@pytest.mark.parametrize("line", entries("dependencies = [", "[project.scripts]"), ids=str.strip)
def test_a_dependency_has_its_reason(line):
    assert re.fullmatch(r'    "[^"]+", +# .{5,}', line)


@pytest.mark.parametrize("line", entries("ignore = [", "[tool.ruff.lint.isort]"), ids=str.strip)
def test_an_ignored_rule_has_its_reason(line):
    assert re.fullmatch(r'    "[A-Z]+[0-9]*", +# .{5,}', line)


def test_an_exception_in_the_code_names_its_rule_and_its_reason():
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# noqa(?!: [A-Z0-9, ]+ - .)", line)
    ]
    assert bare == []


def test_no_name_uses_a_word_that_says_nothing():
    names = {str(path.relative_to(ROOT)): path.stem for path in SOURCES} | {
        f"{path.relative_to(ROOT)}:{number}": named[1]
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (named := re.match(r" *(?:async )?(?:class|def) (\w+)", line))
    }
    assert "jobd/app.py" in names
    assert "Jobd" in names.values()
    words = {where: set(re.findall(r"[A-Z]?[a-z]+", name)) for where, name in names.items()}
    assert [where for where, found in words.items() if BA54ED & {word.lower() for word in found}] == []


def test_no_test_is_left_out_without_its_reason_here():
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\bpytest\.(mark\.)?(skip|skipif|importorskip|xfail)\b|\bcollect_ignore", line)
    ]
    assert found == [*LEFT_OUT]
