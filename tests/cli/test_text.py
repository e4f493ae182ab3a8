"""Nothing that was stored can act on a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.cli import output, text

HOSTILE = "a\x1b[2J\x00\x07\x9b31m\r\nb\tc\u202egpj.exe\u2066\u200b\u2028\ud800\x7f\U000e0041"


def dangerous(words: str) -> list[str]:
    return [
        character
        for character in words
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d"
    ]


def test_every_control_character_is_escaped():
    assert text.escape(HOSTILE) == (
        "a\\x1b[2J\\x00\\x07\\x9b31m\\r\\nb\\tc\\u202egpj.exe\\u2066\\u200b\\u2028\\ud800\\x7f\\U000e0041"
    )


@given(st.text(st.characters()))
def test_no_text_leaves_a_control_or_format_character(words):
    assert not dangerous(text.escape(words))
    assert not dangerous(output.field(words))
    assert not dangerous(text.escape_lines(words).replace("\n", "").replace("\t", ""))


@given(st.text(st.characters()))
def test_json_keeps_the_value_and_has_no_control_character(words):
    document = output.dump({"key": words})
    assert not dangerous(document)
    assert json.loads(document) == {"key": words}


def test_every_code_point_that_acts_on_a_terminal_is_known():
    acting = "".join(dangerous("".join(map(chr, range(0x110000)))))
    assert len(acting) > 2000
    assert dangerous(text.escape(acting)) == []


def test_plain_text_of_any_script_stays_as_it_is():
    for words in ("naïve café", "日本語", "नमस्ते", "👩\u200d💻", "plain.txt", "שלום"):
        assert text.escape(words) == words


def test_tsv_fields_can_be_read_back():
    assert output.field("a\\n\tb\nc") == "a\\\\n\\tb\\nc"
    assert output.field(None) == ""
    assert output.field(True) == "true"
    assert output.field({"a": "x\ty"}) == '{"a": "x\\\\ty"}'


@pytest.mark.parametrize(("words", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_width_counts_columns(words, columns):
    assert text.width(words) == columns


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])), st.integers(0, 30))
def test_a_cut_or_padded_text_fits(words, columns):
    assert text.width(text.cut(words, columns)) <= columns
    assert text.width(text.pad(words, columns)) == columns
