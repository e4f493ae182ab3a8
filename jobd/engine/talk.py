"""Messages over a stream between two processes: JSON, each with its length before it, and bytes where those are meant.

No pickle, so that what one side sends can run nothing on the other; no queue and no lock that both would share, so that
whoever dies leaves nobody waiting but for the end of the stream.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Final

# The first word of whoever is started, when it is ready, and the last of each thing that it was asked.
HELLO: Final = "hello"
END: Final = "end"

_LENGTH: Final = struct.Struct(">Q")
_READ: Final = 1024 * 1024


class Talk:
    """One end of a stream socket. One thread at a time may send, and one receive."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = bytearray()

    def send(self, message: Any, data: bytes | None = None) -> None:
        """Send a message, and ``data`` behind it.

        Raises:
            OSError: nobody is there any more.
        """
        text = json.dumps(message).encode()
        # In one piece: whoever listens would wake up for each.
        parts = [_LENGTH.pack(len(text)), text]
        if data is not None:
            parts += [_LENGTH.pack(len(data)), data]
        self._write(b"".join(parts))

    def receive(self) -> Any:
        """Wait for the next message and return it.

        Raises:
            EOFError: nobody is there any more.
        """
        return json.loads(self.receive_data())

    def receive_data(self) -> bytes:
        """Wait for the bytes behind a message.

        Raises:
            EOFError: nobody is there any more.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return self._read(length)

    @property
    def buffered(self) -> bool:
        """Say whether some of the next message has been read already."""
        return bool(self._buffer)

    def close(self) -> None:
        """Close this end."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def _read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            try:
                found = os.read(self.descriptor, _READ)
            except ConnectionResetError:
                found = b""
            if not found:
                raise EOFError
            self._buffer += found
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data
