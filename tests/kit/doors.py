"""A door that handlers come to, wherever they run: each says a word and stays until it is let through.

It is a socket: who is killed or cancelled while it waits is seen to leave.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path

SECONDS = 20


class Shut(Exception):
    """The test has ended, and nobody lets through any more."""


class Door:
    def __init__(self):
        self._folder = tempfile.mkdtemp(prefix="door")
        self.path = str(Path(self._folder) / "s")
        self.words = []  # in the order in which they were said
        self._inside = collections.defaultdict(list)  # who waits, by word
        self._open = set()
        self._changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(2_048)
        threading.Thread(target=self._attend, name="door", daemon=True).start()

    def close(self):
        with self._changed:
            waiting = [who for all_of_a_word in self._inside.values() for who in all_of_a_word]
            self._inside.clear()
        # A thread that waits in accept() is not woken by a close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for who in waiting:
            who.close()
        shutil.rmtree(self._folder)

    def _attend(self):
        with contextlib.suppress(OSError):
            while True:
                who = self._listener.accept()[0]
                word = _line(who)
                with self._changed:
                    self.words.append(word)
                    if word in self._open:
                        _let(who)
                    else:
                        self._inside[word].append(who)
                    self._changed.notify_all()

    def wait_for(self, word, times=1):
        """Wait until ``word`` has been said so often."""
        with self._changed:
            said = self._changed.wait_for(lambda: self.words.count(word) >= times, SECONDS)
            assert said, f"{word} was said {self.words.count(word)} times"

    def open(self, word):
        """Let through who says ``word``, and whoever will."""
        with self._changed:
            self._open.add(word)
            for who in self._inside.pop(word, ()):
                _let(who)

    def wait_until_left(self, word):
        """Wait until who said ``word`` has gone without having been let through."""
        with self._changed:
            (who,) = self._inside.pop(word)
        who.settimeout(SECONDS)
        assert who.recv(1) == b""
        who.close()


def _line(who):
    with who.makefile() as lines:
        return lines.readline().strip()


def _let(who):
    with who, contextlib.suppress(OSError):
        who.sendall(b"go\n")


def come(path, word):
    """Say ``word`` at the door, and wait until it is opened."""
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        door.sendall(f"{word}\n".encode())
        if not door.recv(3):
            raise Shut


async def come_async(path, word):
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(f"{word}\n".encode())
        if not await reader.readline():
            raise Shut
    finally:
        writer.close()
