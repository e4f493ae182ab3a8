"""Items from arguments, files, patterns, ranges, JSON lines and CSV."""

import io
import sys

import pytest

from jobd.cli.source import Source, parameters
from jobd.errors import UsageError


def test_no_items_mean_one_run_of_the_task():
    assert Source().items() is None
    assert not Source().given


def test_arguments_are_items():
    assert Source(words=("a", "b")).items() == ["a", "b"]


def test_lines_of_a_file_are_items_and_empty_ones_are_not(tmp_path):
    (tmp_path / "list").write_bytes(b"a\r\nb c\n\n\xc3\xa9")
    assert list(Source(lines=str(tmp_path / "list")).items()) == ["a", "b c", "é"]


def test_nul_separates_names_that_hold_newlines(tmp_path):
    (tmp_path / "list").write_bytes(b"a\nb\0c\0" + b"x" * 200_000)
    assert list(Source(lines=str(tmp_path / "list"), nul=True).items()) == ["a\nb", "c", "x" * 200_000]


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert list(Source(lines="-").items()) == ["a", "b"]


def test_a_pattern_gives_files_in_order_and_no_folders(tmp_path):
    (tmp_path / "sub" / "dir.py").mkdir(parents=True)
    for name in ("b.py", "a.py", "sub/c.py", "d.txt"):
        (tmp_path / name).touch()
    found = Source(pattern=f"{tmp_path}/**/*.py").items()
    assert found == [f"{tmp_path}/{name}" for name in ("a.py", "b.py", "sub/c.py")]


def test_a_range_is_half_open():
    assert list(Source(span="0:3").items()) == [0, 1, 2]
    assert list(Source(span="-2:1").items()) == [-2, -1, 0]
    assert list(Source(span="3:3").items()) == []


def test_json_lines_are_payloads_and_a_field_may_be_the_key(tmp_path):
    (tmp_path / "list").write_text('{"id": "a", "n": 1}\n\n{"id": "b"}\n')
    source = Source(jsonl=str(tmp_path / "list"), key="id")
    assert list(source.items()) == [{"id": "a", "n": 1}, {"id": "b"}]


def test_rows_of_csv_are_payloads(tmp_path):
    (tmp_path / "list").write_bytes(b'\xef\xbb\xbfname,text\r\na,"x\ny"\r\nb,\r\n')
    source = Source(csv=str(tmp_path / "list"), key="name")
    assert list(source.items()) == [{"name": "a", "text": "x\ny"}, {"name": "b", "text": ""}]


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        (b"a\n\xff\n", {"lines": "list"}, "line 2 is not UTF-8"),
        (b"{}\n{", {"jsonl": "list"}, "line 2 is not JSON"),
        (b"[" * 100_000, {"jsonl": "list"}, "line 1 is not JSON"),
        (b'{"a": 1}\n[1]\n', {"jsonl": "list", "key": "a"}, "line 2 has no field 'a'"),
        (b"a,b\n1,2,3\n", {"csv": "list"}, "line 2 has not as many fields as the header"),
        (b"a,b\n1\n", {"csv": "list"}, "line 2 has not as many fields as the header"),
        (b'a,b\n1,"2\n', {"csv": "list"}, "cannot be read"),
        (b"a\n\xff\n", {"csv": "list"}, "cannot be read"),
        (None, {"lines": "list"}, "cannot read list: No such file or directory"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, monkeypatch, content, settings, words):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        list(Source(**settings).items())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"words": ("a",), "span": "0:1"},
        {"lines": "-", "pattern": "*"},
        {"nul": True},
        {"key": "id"},
        {"key": "id", "lines": "-"},
    ],
)
def test_combinations_without_a_meaning_are_refused(settings):
    with pytest.raises(UsageError):
        Source(**settings)


@pytest.mark.parametrize("span", ["", "1", "a:b", "1:2:3", "1.5:2", "\uff11:\uff12"])
def test_what_is_no_range_is_refused(span):
    with pytest.raises(UsageError):
        Source(span=span or ":").items()


def test_parameters_are_json_or_text():
    pairs = ["n=3", "name=x", 'quoted="3"', "list=[1]", "empty=", "equation=a=b"]
    assert parameters(pairs) == {"n": 3, "name": "x", "quoted": "3", "list": [1], "empty": "", "equation": "a=b"}
    assert parameters([]) is None


@pytest.mark.parametrize("pairs", [["n"], ["=1"], ["n=1", "n=2"]])
def test_parameters_without_a_name_or_twice_are_refused(pairs):
    with pytest.raises(UsageError):
        parameters(pairs)
