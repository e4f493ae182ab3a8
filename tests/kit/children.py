"""Functions in forked children of a process that has imported jobd and never opened a file."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

BROKEN = 70


class Broken(Exception):
    """A child has raised: what it raised is in its traceback."""


def in_child(function, *arguments):
    """Run a function in a child; return (true if it was killed, what the function returned, as JSON tells it)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os._exit(_live(function, arguments, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        text = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGKILL:
        return True, None
    if code:
        raise Broken(text.decode() or f"it ended with {code}")
    return False, json.loads(text)


def _live(function, arguments, writer):
    code = 0
    try:
        answer = json.dumps(function(*arguments))
    except BaseException:  # noqa: BLE001 - told to who waits for it
        answer, code = traceback.format_exc(), BROKEN
    with os.fdopen(writer, "wb") as said:
        said.write(answer.encode())
    sys.stdout.flush()
    return code
