"""JSON as the store keeps it: bounded, and readable by every JSON parser and every database.

Refused are NaN and infinities, lone surrogates, integers beyond 64 bits, and anything over the limit: found here, a
bad value is one clear sentence; found by the database, it is a lost transaction.
"""

from __future__ import annotations

import json
import re
from json import encoder as _encoding
from json.decoder import JSONDecoder
from json.encoder import JSONEncoder, encode_basestring
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

VALUE_LIMIT: Final = 1024 * 1024
KEY_LIMIT: Final = 4096
_INT64: Final = 2**63
_LONG_NUMBER: Final = re.compile(r"\d{19}")
_encode_sorted: Final = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def encoder() -> Callable[[Any], str]:
    """Return JSON encoding with our options. ``JSONEncoder.encode`` makes a C encoder for every call: 3 µs of 5."""
    slow = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    c_make_encoder = getattr(_encoding, "c_make_encoder", None)
    if c_make_encoder is None:  # another Python than CPython
        return slow.encode
    # No table of what was seen: a circular value then ends in RecursionError, as a deep one does.
    encode = c_make_encoder(None, slow.default, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode: Final = encoder()
_scan: Final = JSONDecoder().scan_once  # type: ignore[attr-defined] # there since Python 2.6, not in its types


class NotStorable(ValueError):
    """A value that jobd does not store; the message says why."""


def dumps(value: object, *, what: str, limit: int = VALUE_LIMIT, advice: str = "") -> str:
    """Return ``value`` as JSON text of at most ``limit`` bytes.

    Raises:
        NotStorable: with a sentence that begins with ``what``.
    """
    if value is None:
        return "null"
    try:
        text = encode_basestring(value) if type(value) is str else _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
        if _LONG_NUMBER.search(text):
            json.loads(text, parse_int=_checked_int)
    except UnicodeEncodeError:
        raise NotStorable(f"{what} is not JSON: a lone surrogate") from None
    except RecursionError:
        raise NotStorable(f"{what} is not JSON: nested too deeply, or circular") from None
    except (TypeError, ValueError) as error:
        raise NotStorable(f"{what} is not JSON: {error}") from None
    if size > limit:
        raise NotStorable(f"{what} is {_size(size)}, the limit is {_size(limit)}{advice}")
    return text


def result(value: object) -> str:
    """Return a handler's result as JSON text.

    Raises:
        NotStorable: it is not JSON, or over 1 MiB.
    """
    return dumps(value, what="result", advice=": save_data()")


def _checked_int(digits: str) -> int:
    number = int(digits) if len(digits) <= len("-9223372036854775808") else _INT64
    if not -_INT64 <= number < _INT64:
        raise ValueError("an integer beyond 64 bits")
    return number


def _size(count: int) -> str:
    return f"{count / (1024 * 1024):.3g} MiB" if count >= 1024 * 1024 else f"{count / 1024:.3g} KiB"


def loads(text: str) -> Any:
    """Read JSON text that ``dumps`` wrote.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    return value if end == len(text) else json.loads(text)


def canonical(text: str) -> str:
    """Return the one spelling of a JSON text, whatever the order of its keys."""
    return _encode_sorted(json.loads(text))


def checked_key(key: str) -> str:
    """Return ``key`` if it can be an item's or a job's key.

    Raises:
        NotStorable: an empty key, one over 4,096 bytes, one with NUL or with a lone surrogate.
    """
    if not key:
        raise NotStorable("the key is empty")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise NotStorable("the key has a lone surrogate") from None
    if size > KEY_LIMIT:
        raise NotStorable(f"the key is {size:,} bytes, the limit is {KEY_LIMIT:,}")
    if "\0" in key:
        raise NotStorable("the key has a NUL")
    return key
