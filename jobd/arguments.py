"""What a caller names a job, an item or a page by, checked before it reaches the database.

Found there, a lone surrogate or a number beyond 64 bits is an error of the driver, and a limit below 0 is none.
"""

from __future__ import annotations

from typing import Any, Final

from jobd.errors import NotFound, UsageError

ALL: Final = 2**63 - 1


def text(what: str, value: Any) -> str:
    """Return ``value`` if the database can hold it as text.

    Raises:
        UsageError: it is not text, or has a lone surrogate.
    """
    found = text_of(what, value)
    if not holdable(found):
        raise UsageError(f"{what}: a lone surrogate in {found!a}")
    return found


def text_of(what: str, value: Any) -> str:
    """Return ``value`` if it is text, whatever it has in it.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, str):
        raise UsageError(f"{what}: not text: {value!a}")
    return value


def text_or_none(what: str, value: Any) -> str | None:
    """Return ``value`` as :func:`text` does, or None."""
    return None if value is None else text(what, value)


def holdable(value: str) -> bool:
    """Say whether the database can hold ``value``: what it cannot hold is the name of nothing in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def count(what: str, value: Any) -> int:
    """Return ``value`` if it is a limit, or an id that a page begins at: a whole number from 0 up, of 64 bits.

    Raises:
        UsageError: it is none.
    """
    if not _whole(value):
        raise UsageError(f"{what}: not a whole number: {value!a}")
    if not 0 <= value <= ALL:
        raise UsageError(f"{what}: not from 0 to {ALL}")
    return int(value)


def count_or_none(what: str, value: Any) -> int | None:
    """Return ``value`` as :func:`count` does, or None."""
    return None if value is None else count(what, value)


def limit(value: Any) -> int:
    """Return a limit, None standing for none.

    Raises:
        UsageError: it is no whole number from 0 up.
    """
    return ALL if value is None else count("limit", value)


def job_id(value: Any) -> int:
    """Return ``value`` if it can be a job's id.

    Raises:
        UsageError: it is not a whole number.
        NotFound: it is beyond 64 bits.
    """
    if not _whole(value):
        raise UsageError(f"not a job: {value!a}", hint="a job is 7, =KEY, @last or @failed")
    if not -ALL <= value <= ALL:
        raise NotFound("there is no job with a number beyond 64 bits", hint="jobd list shows the jobs")
    return int(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
