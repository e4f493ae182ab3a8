"""What is stored as JSON and what is refused, each with its sentence."""

from __future__ import annotations

import enum
import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobd import codec
from jobd.codec import KEY_LIMIT, VALUE_LIMIT, NotStorable

MIB = 1024 * 1024


def circular():
    value = []
    value.append(value)
    return value


def deep(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


# The row of FAULTS.md, word for word.
REFUSED = [
    ("nan", float("nan"), "result is not JSON: Out of range float values are not JSON compliant"),
    ("infinity", float("inf"), "result is not JSON: Out of range float values are not JSON compliant"),
    ("nan within", {"a": [float("nan")]}, "result is not JSON: Out of range float values are not JSON compliant"),
    ("set", {1}, "result is not JSON: Object of type set is not JSON serializable"),
    ("bytes", b"1", "result is not JSON: Object of type bytes is not JSON serializable"),
    ("object", object(), "result is not JSON: Object of type object is not JSON serializable"),
    ("lone surrogate", "\udc80", "result is not JSON: a lone surrogate"),
    ("lone surrogate within", [{"\ud800": 1}], "result is not JSON: a lone surrogate"),
    ("2**80", 2**80, "result is not JSON: an integer beyond 64 bits"),
    ("2**63", 2**63, "result is not JSON: an integer beyond 64 bits"),
    ("-2**63-1", -(2**63) - 1, "result is not JSON: an integer beyond 64 bits"),
    ("big within", {"a": [1, {"b": -(2**64)}]}, "result is not JSON: an integer beyond 64 bits"),
    ("circular", circular(), "result is not JSON: nested too deeply, or circular"),
    ("200,000 deep", deep(200_000), "result is not JSON: nested too deeply, or circular"),
    ("2 MiB", "x" * (2 * MIB), "result is 2 MiB, the limit is 1 MiB: save_data()"),
    ("a list of 2 MiB", ["x" * 1000] * (2 * MIB // 1003), "result is 2 MiB, the limit is 1 MiB: save_data()"),
    ("2 MiB of two-byte letters", "ä" * MIB, "result is 2 MiB, the limit is 1 MiB: save_data()"),
]


@pytest.mark.parametrize(("value", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_no_parser_or_database_would_take_is_refused_with_one_sentence(value, sentence):
    with pytest.raises(NotStorable) as refused:
        codec.result(value)
    # Later Pythons name the float.
    assert str(refused.value).removesuffix(": nan").removesuffix(": inf") == sentence


def test_an_integer_of_more_digits_than_python_prints_is_refused():
    with pytest.raises(NotStorable, match=r"^result is not JSON: "):
        codec.result(10**5000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (1e308, "1e+308"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        ("", '""'),
        ("a\0b", '"a\\u0000b"'),
        ('quo"te\\', '"quo\\"te\\\\"'),
        ("ä€😀", '"ä€😀"'),
        ("12345678901234567890", '"12345678901234567890"'),
        ("\x1b[31m\n", '"\\u001b[31m\\n"'),
        ((1, [2]), "[1,[2]]"),
        ({"b": 1, "a": {}}, '{"b":1,"a":{}}'),
        ({1: 2, None: 3, False: 4}, '{"1":2,"null":3,"false":4}'),
        (enum.IntEnum("Colour", "red").red, "1"),
        (deep(100), "[" * 101 + "]" * 101),
    ],
)
def test_what_is_json_is_kept_compact_and_readable_by_anybody(value, text):
    found = codec.dumps(value, what="value")
    assert found == text
    assert codec.loads(found) == json.loads(found)
    database = sqlite3.connect(":memory:")
    assert database.execute("select json_valid(?)", (found,)).fetchone() == (1,)
    database.close()


@pytest.mark.parametrize("size", [VALUE_LIMIT - 1, VALUE_LIMIT])
def test_the_limit_counts_bytes_of_the_text_and_includes_itself(size):
    assert len(codec.dumps("x" * (size - 2), what="value")) == size
    with pytest.raises(NotStorable, match=r"^value is 1 MiB, the limit is 1 MiB$"):
        codec.dumps("x" * (VALUE_LIMIT - 1), what="value")


def test_who_asks_names_the_value_its_limit_and_what_to_do():
    with pytest.raises(NotStorable, match=r"^progress is 4 KiB, the limit is 1 KiB: say less$"):
        codec.dumps("x" * 4094, what="progress", limit=1024, advice=": say less")


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "nul", "1 2", '"a', "{'a': 1}"])
def test_what_is_not_json_is_not_read(text):
    with pytest.raises(ValueError, match=r"."):
        codec.loads(text)


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)  # fmt: skip


def nested(inner):
    return st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)


# By hand, for hypothesis takes ten times as long over what is recursive.
values = scalars | nested(scalars | nested(scalars))


@settings(max_examples=40, deadline=None)
@given(values)
def test_what_is_stored_is_what_is_read(value):
    text = codec.dumps(value, what="value")
    assert codec.loads(text) == value
    assert text.encode()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=6))
def test_the_canonical_spelling_does_not_depend_on_the_order_of_keys(value):
    backwards = dict(reversed(list(value.items())))
    one, other = (codec.dumps(each, what="value") for each in (value, backwards))
    assert codec.canonical(one) == codec.canonical(other)


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "the key is empty"),
        ("a\0b", "the key has a NUL"),
        ("\udc80", "the key has a lone surrogate"),
        ("x" * (KEY_LIMIT + 1), "the key is 4,097 bytes, the limit is 4,096"),
        ("ä" * (KEY_LIMIT // 2 + 1), "the key is 4,098 bytes, the limit is 4,096"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(key, sentence):
    with pytest.raises(NotStorable) as refused:
        codec.checked_key(key)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "key", ["a", " ", "\x1b[31m", "a\nb", "\u202eabc", "e\u0301", "\u00e9", "x" * KEY_LIMIT, "ä" * (KEY_LIMIT // 2)]
)
def test_any_other_key_is_kept_exactly(key):
    assert codec.checked_key(key) is key
