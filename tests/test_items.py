"""What a user hands over as items, as keys and payloads."""

from __future__ import annotations

import enum
import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest

from jobd.codec import VALUE_LIMIT
from jobd.errors import InvalidItem
from jobd.items import normalise

LIMIT = 4096


def pairs(items, item_key=None):
    return list(normalise(items, "work", item_key))


def hashed(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refusal(items, item_key=None):
    with pytest.raises(InvalidItem) as caught:
        pairs(items, item_key)
    return caught.value


def test_no_items_are_one_item_named_after_the_task():
    assert pairs(None) == [("work", "null")]


def test_an_empty_list_has_no_items():
    assert pairs([]) == []


@pytest.mark.parametrize("items", ["a.txt", b"a.txt", bytearray(b"a"), {"path": "a.txt"}])
def test_what_is_one_item_by_mistake_is_a_type_error_at_once(items):
    with pytest.raises(TypeError, match=type(items).__name__):
        normalise(items, "work")


def test_what_cannot_be_iterated_is_a_type_error_at_once():
    with pytest.raises(TypeError):
        normalise(7, "work")


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "x" * LIMIT,
        "ä" * (LIMIT // 2),
        'quo"te\\',
        "line\nbreak",
        "\x1b[31m",
        "\u202e",
        "e\u0301",
        "é",
        "\U0001f600",
        " ",
    ],
)
def test_a_str_is_its_own_key_and_payload_exactly_as_it_is(key):
    [(stored, payload)] = pairs([key])
    assert stored == key
    assert json.loads(payload) == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ("x" * (LIMIT + 1), "4,097 bytes"),
        ("ä" * (LIMIT // 2 + 1), "4,098 bytes"),
    ],
)
def test_a_key_that_cannot_be_stored_is_refused_with_its_position(key, why):
    error = refusal(["a", "b", key, "c"])
    assert error.position == 2
    assert why in str(error)
    assert "item 2" in str(error)


def test_an_int_is_keyed_by_its_decimal_digits():
    assert pairs([7, -1, 0]) == [("7", "7"), ("-1", "-1"), ("0", "0")]


@pytest.mark.parametrize("item", [True, 1.0, None])
def test_a_bool_a_float_and_none_are_no_keys(item):
    assert "cannot be a key" in str(refusal([item]))


def test_a_dict_and_a_list_are_keyed_by_the_hash_of_their_canonical_text():
    [(key, payload), (same, other), (listed, _)] = pairs([{"b": 1, "a": 2}, {"a": 2, "b": 1}, [1, 2]])
    assert key == same == hashed('{"a":2,"b":1}')
    assert (payload, other) == ('{"b":1,"a":2}', '{"a":2,"b":1}')
    assert listed == hashed("[1,2]")


def test_a_tuple_is_a_list():
    assert pairs([(1, 2)]) == [(hashed("[1,2]"), "[1,2]")]


def test_item_key_is_a_field_or_a_function():
    items = [{"path": "a.txt", "n": 7}]
    assert [key for key, _ in pairs(items, "path")] == ["a.txt"]
    assert [key for key, _ in pairs(items, "n")] == ["7"]
    assert [key for key, _ in pairs(items, lambda item: item["n"] + 1)] == ["8"]
    assert [key for key, _ in pairs(["a", "b"], str.upper)] == ["A", "B"]


@pytest.mark.parametrize(
    ("item", "item_key", "why"),
    [
        ({"path": "a"}, "name", "no field 'name'"),
        ({"path": None}, "path", "the field 'path' None cannot be a key"),
        ({"path": True}, "path", "bool"),
        ({"path": ""}, "path", "empty"),
        ("a", "path", "the payload is a str"),
        (1.5, lambda item: item, "float"),
        ({}, lambda _: ["a"], "list"),
    ],
)
def test_item_key_must_give_a_key(item, item_key, why):
    assert why in str(refusal([item], item_key))


def test_an_error_of_item_key_is_the_callers_own_and_says_for_which_item():
    with pytest.raises(ZeroDivisionError) as caught:
        pairs([{"n": 1}, {"n": 0}], lambda item: 1 // item["n"])
    assert caught.value.__notes__ == ["item_key was called for item 1"]


def test_an_enumeration_is_its_value():
    class Kind(str, enum.Enum):  # noqa: UP042 - the elder way gives another str()
        FILE = "file"

    class Size(enum.IntEnum):
        ONE = 1

    assert pairs([Kind.FILE, Size.ONE]) == [("file", '"file"'), ("1", "1")]


@pytest.mark.parametrize(
    "payload",
    [
        {"a": float("nan")},
        {"a": {1}},
        {"a": b"x"},
        {"a": 2**63},
        {"a": "\ud800"},
        {"a": "x" * VALUE_LIMIT},
        Path("a"),
        2**80,
    ],
)
def test_a_payload_that_cannot_be_stored_is_refused_with_its_position(payload):
    error = refusal(["a", payload])
    assert error.position == 1
    assert "the payload is" in str(error)


def test_a_circular_and_a_bottomless_payload_are_refused():
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(200_000):
        deep = [deep]
    assert "the payload is not JSON" in str(refusal([circle]))
    assert "the payload is not JSON" in str(refusal([deep]))


def test_a_generator_is_read_as_it_is_asked_for():
    read = []

    def items():
        for number in range(10):
            read.append(number)
            yield str(number)

    found = normalise(items(), "work")
    assert read == []
    assert next(found) == ("0", '"0"')
    assert read == [0]


def test_a_generator_is_read_in_constant_memory():
    tracemalloc.start()
    for _ in normalise((f"item {number}" for number in range(20_000)), "work"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
