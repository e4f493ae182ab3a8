"""What a service manager is told: sd_notify(3) over the socket that it names, and nothing where it names none."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_PATIENCE: Final = 1.0


class Notify:
    """Tells the manager that started this process. What it was started with is taken out of the environment: a child
    that inherited it would speak in the daemon's name.
    """

    def __init__(self) -> None:
        self._address, *_ = [os.environ.pop(name, "") for name in _VARIABLES]

    def __call__(self, *lines: str) -> None:
        """Send one message, ``NAME=value`` a line. Never raises: a daemon runs as well without being listened to."""
        if not self._address:
            return
        # "@": a name that is in no file system.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.settimeout(_PATIENCE)
            end.sendto("\n".join(" ".join(line.splitlines()) for line in lines).encode(), address)
