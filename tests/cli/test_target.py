"""Code that the person who types names."""

import sys
import textwrap

import pytest

from jobd.cli.session import Session
from jobd.cli.target import is_code, load_app, load_task
from jobd.errors import NotFound, UsageError


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session on a file of its own, in an empty folder; what it imports is forgotten afterwards."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBD_DB", raising=False)
    made = Session()
    made.db = str(tmp_path / "jobs.db")
    yield made
    sys.path[:] = path
    for name in ("program", "neighbour", "_json_file"):
        sys.modules.pop(name, None)


@pytest.fixture
def program(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(textwrap.dedent(text))

    return write


APP = """
    from jobd import Jobd
    app = Jobd("own.db")

    @app.task
    def double(n):
        return 2 * n

    def plain(n):
        return n
"""


@pytest.mark.parametrize(
    ("target", "code"),
    [("checksum", False), ("a.b", False), ("a.b:c", True), ("./a.py", True), ("a.py:f", True), ("sub/a.py:f", True)],
)
def test_a_bare_name_is_a_registered_task_and_imports_nothing(target, code):
    assert is_code(target) is code


@pytest.mark.parametrize("target", ["./program.py:double", "program.py:double", "program:double"])
def test_a_task_brings_its_own_app_along(session, program, target):
    program("program.py", APP)
    task = load_task(session, target)
    assert task.name == "double"
    assert session.app is task.app


def test_the_database_that_is_typed_comes_before_the_app_s_own(session, program, tmp_path):
    program("program.py", APP)
    load_task(session, "./program.py:double")
    assert session.app.path == str(tmp_path / "jobs.db")


def test_the_app_s_own_database_is_meant_where_none_is_typed(session, program, tmp_path):
    session.db = None
    program("program.py", APP)
    load_task(session, "./program.py:double")
    assert session.app.path == str(tmp_path / "own.db")


def test_a_plain_function_becomes_a_task(session, program):
    program("program.py", APP)
    assert load_task(session, "./program.py:plain").name == "plain"
    assert load_task(session, "./program.py:plain").function(3) == 3


def test_a_registered_name_is_found_in_the_app(session, program):
    program("program.py", APP)
    session.app_name = "./program.py"
    assert load_task(session, "double").name == "double"
    with pytest.raises(NotFound) as caught:
        load_task(session, "duoble")
    assert caught.value.hint == "did you mean double?"


def test_a_file_named_like_a_module_of_python_does_not_replace_it(session, program):
    import json

    program("json.py", "def f(x):\n    return x\n")
    assert load_task(session, "./json.py:f").name == "f"
    assert sys.modules["json"] is json


def test_a_file_finds_its_neighbours(session, program):
    program("neighbour.py", "FACTOR = 2")
    program("program.py", "from neighbour import FACTOR\ndef f(x):\n    return x * FACTOR\n")
    assert load_task(session, "./program.py:f").function(2) == 4


@pytest.mark.parametrize(
    ("text", "target", "what", "hint"),
    [
        ("def checksum(x): ...", "./program.py:checksm", "has no 'checksm'", "did you mean checksum?"),
        ("def checksum(x): ...", "./program.py", "names a file, not a function", "./program.py:checksum"),
        ("x = 3", "./program.py:x", "is not a function", None),
        ("class C: ...", "./program.py:C", "is not a function", None),
        ("import no_such", "./program.py:f", "ModuleNotFoundError", "program.py line 1"),
        ("def f(:", "./program.py:f", "SyntaxError", "program.py line 1"),
        ("raise SystemExit(3)", "./program.py:f", "SystemExit", "program.py line 1"),
        ("raise ValueError('a\\x1b\\n')", "./program.py:f", "ValueError", None),
        ("", "./missing.py:f", "no such file", None),
        ("", "no.such.module:f", "cannot import no.such.module", None),
        ("", ":f", "no module before the colon", None),
        ("f = lambda x: x", "./program.py:f", "no name of its own", None),
    ],
)
def test_code_that_cannot_be_meant_is_said_in_one_line(session, program, text, target, what, hint):
    program("program.py", text)
    with pytest.raises(UsageError) as caught:
        load_task(session, target)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["./program.py", "./program.py:app", "program", "program:app"])
def test_an_app_is_found_by_file_or_module_with_or_without_its_name(session, program, name):
    program("program.py", APP)
    assert set(load_app(name).tasks) == {"shell", "double"}


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("", "./program.py", "holds no Jobd app"),
        ("from jobd import Jobd\na, b = Jobd(), Jobd()", "./program.py", "holds 2 Jobd apps"),
        ("app = 3", "./program.py:app", "is not a Jobd app"),
    ],
)
def test_what_is_no_app_is_refused(session, program, text, name, what):
    program("program.py", text)
    with pytest.raises(UsageError) as caught:
        load_app(name)
    assert what in str(caught.value)
