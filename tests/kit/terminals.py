"""A terminal of this very process: what a command line writes to it, as it arrives at the other end."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
import tty
import unicodedata

import pytest

from jobd import cli

# What the command line itself sends: colours, and going back over its own panel.
OWN = re.compile(r"\x1b\[(?:[0-9;]*m|[0-9]+A\r|J)")
# Control, format and surrogate characters, and those that end a line or a paragraph.
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_END = b"\x04the end\x04"


def acting(words):
    """Return the characters by which a terminal does something else than print, but for the command line's own.

    Two joiners, which scripts and emoji need, show nothing and move nothing.
    """
    return {sign for sign in OWN.sub("", words) if unicodedata.category(sign) in _ACTING} - {"\n", "\u200c", "\u200d"}


class Terminal:
    """``call(*arguments)`` runs a command line on it, and returns its exit code and all that came out."""

    def __init__(self):
        self._ours, theirs = pty.openpty()
        # Bytes as they were written: no line break gets a carriage return on the way.
        tty.setraw(theirs)
        self._stream = os.fdopen(theirs, "w", encoding="utf-8", errors="surrogateescape")

    def call(self, *arguments):
        came = []
        reader = threading.Thread(target=self._read, args=(came,))
        reader.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", self._stream)
            patch.setattr(sys, "stderr", self._stream)
            code = cli.call(list(arguments))
        self._stream.flush()
        os.write(self._stream.fileno(), _END)
        reader.join()
        return code, b"".join(came).removesuffix(_END).decode()

    def _read(self, came):
        while not b"".join(came[-2:]).endswith(_END):
            came.append(os.read(self._ours, 65536))

    def close(self):
        self._stream.close()
        os.close(self._ours)
