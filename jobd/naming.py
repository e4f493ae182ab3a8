"""The key of an item that was named in bytes: text that can be typed, and from which the bytes can be had again."""

from __future__ import annotations

import re
from typing import Final

# Less than a key may have: what tells duplicates apart comes after it.
LONGEST: Final = 4_000  # bytes
_EMPTY: Final = "\\x"
_NOT_TEXT: Final = re.compile("[\udc80-\udcff]")
# What would be read as an escape, where it was none.
_LIKE_ESCAPE: Final = re.compile(r"\\(?=x[0-9a-f]{2})|\A\\(?=x\Z)")
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")


def key_of(item: bytes) -> str:
    r"""Return the key of an item: its text; bytes that are not UTF-8 as `\xff`, and a `\` that would read so as `\x5c`.

    The empty item is `\x`. One of over 4,000 bytes is cut, and has a hash at its end: it cannot be had again.
    """
    if not item:
        return _EMPTY
    text = item.decode("utf-8", "surrogateescape")
    if "\\" in text:
        text = _LIKE_ESCAPE.sub(r"\\x5c", text)
    if not text.isascii():
        text = _NOT_TEXT.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text if len(text) * 4 <= LONGEST else _cut(text, item)


def item_of(key: str) -> bytes:
    """Return the bytes that ``key_of`` was given, if the key was not cut."""
    if key == _EMPTY:
        return b""
    text = _ESCAPE.sub(lambda found: chr(_code(int(found[1], 16))), key)
    return text.encode("utf-8", "surrogateescape")


def _code(byte: int) -> int:
    return byte if byte < 0x80 else byte + 0xDC00


def _cut(text: str, item: bytes) -> str:
    whole = text.encode()
    if len(whole) <= LONGEST:
        return text
    import hashlib  # noqa: PLC0415 - as for items without a key

    mark = f"…{hashlib.sha256(item).hexdigest()}"
    return whole[: LONGEST - len(mark.encode())].decode(errors="ignore") + mark
