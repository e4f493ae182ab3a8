"""What a user hands over as items, as the pairs of key and payload that the store takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring
from typing import Any, Final, TypeAlias

from jobd.codec import KEY_LIMIT, NotStorable, canonical, checked_key, dumps
from jobd.errors import InvalidItem

ItemKey: TypeAlias = Callable[[Any], Any] | str

_HASH_DIGITS: Final = 16
_NEEDS_KEY: Final = "item_key= names the field or the function that gives one"


def normalise(
    items: Iterable[Any] | None, task_name: str, item_key: ItemKey | None = None
) -> Iterator[tuple[str, str]]:
    """Return pairs of key and payload (JSON text), lazily and in constant memory.

    ``items`` of None is one item whose key is the task's name and whose payload is null. ``item_key`` is a function of
    a payload, or the name of a field of payloads that are dicts; without it a str is its own key, an int is its
    decimal digits, and a dict or list is the first 16 hex digits of the SHA-256 of its canonical JSON.

    Raises:
        TypeError: ``items`` is a str, bytes or dict, or cannot be iterated; at once.
        InvalidItem: an item whose key or payload cannot be stored; while iterating, before the item is given.
    """
    if items is None:
        return iter([(task_name, "null")])
    if isinstance(items, str | bytes | bytearray | dict):
        kind = type(items).__name__
        raise TypeError(f"items is a {kind}: one item is [{kind}], a task over nothing is submit()")
    return _pairs(iter(items), item_key)


def _pairs(items: Iterator[Any], item_key: ItemKey | None) -> Iterator[tuple[str, str]]:
    keyed = item_key is not None
    for position, item in enumerate(items):
        # The common case in one expression: what can be a key can also be a payload, so neither is checked twice.
        if type(item) is str and not keyed and item.isascii() and 0 < len(item) <= KEY_LIMIT and "\0" not in item:
            yield item, encode_basestring(item)
        else:
            yield _pair(position, item, item_key)


def _pair(position: int, item: object, item_key: ItemKey | None) -> tuple[str, str]:
    try:
        payload = dumps(item, what="the payload")
        key = _own_key(item, payload) if item_key is None else _given_key(item, item_key)
        return checked_key(key), payload
    except NotStorable as error:
        raise InvalidItem(position, str(error)) from None
    except Exception as error:
        # Raised by the caller's function: it stays what it is, and says for which item.
        error.add_note(f"item_key was called for item {position}")
        raise


def _own_key(item: object, payload: str) -> str:
    if isinstance(item, dict | list | tuple):
        return hashed(payload)
    return _text(item, "an item", f"; {_NEEDS_KEY}")


def hashed(payload: str) -> str:
    """Return the key of a payload (JSON text) that has none of its own: the same for every spelling of it."""
    import hashlib  # noqa: PLC0415 - 4 MB with the library below it, that most programs' items never need

    return hashlib.sha256(canonical(payload).encode()).hexdigest()[:_HASH_DIGITS]


def _given_key(item: object, item_key: ItemKey) -> str:
    if not isinstance(item_key, str):
        return _text(item_key(item), "item_key's answer", "")
    if not isinstance(item, dict):
        raise NotStorable(f"item_key names the field {item_key!r}, the payload is a {type(item).__name__}")
    if item_key not in item:
        raise NotStorable(f"the payload has no field {item_key!r}")
    return _text(item[item_key], f"the field {item_key!r}", "")


def _text(value: object, what: str, advice: str) -> str:
    if isinstance(value, str):
        # The text itself: an enumeration that is also a str would give its member's name.
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    kind = "None" if value is None else f"of type {type(value).__name__}"
    raise NotStorable(f"{what} {kind} cannot be a key{advice}")
