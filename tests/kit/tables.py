"""Tables as commands print them where nobody looks on: tab-separated, under a header."""

from __future__ import annotations


def rows(answer):
    """Return the rows that a command printed, each by the names in the header."""
    header, *lines = answer.out.splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
