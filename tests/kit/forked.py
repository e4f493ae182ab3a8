"""``run`` and ``Popen`` of Python programs as the standard library has them, but for their start: see nursery.py."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jobd

PIPE = subprocess.PIPE
SECONDS = 20
ROOT = Path(jobd.__file__).parents[1]


class Nursery:
    """The process that forks; it ends with this one."""

    def __init__(self):
        self._asked, theirs = socket.socketpair()
        program = Path(__file__).with_name("nursery.py").read_text()
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            # Wherever the test stands, the program's jobd is the test's.
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        theirs.close()
        atexit.register(self.close)

    def fork(self, program, streams, report):
        """Have a program begin, with three descriptors, and one on which it is told how it fares."""
        text = json.dumps(program).encode()
        socket.send_fds(self._asked, [len(text).to_bytes(8, "big")], [*streams, report])
        self._asked.sendall(text)

    def close(self):
        self._asked.close()
        self._process.wait(SECONDS)


@functools.cache
def nursery():
    return Nursery()


class Popen:
    """A program under way: ``[sys.executable, "-c", SOURCE, …]`` or ``[sys.executable, "-m", MODULE, …]``.

    As ``subprocess.Popen`` has it, where it has it; ``terminal`` makes its standard input the terminal of a session.
    """

    def __init__(
        self, argv, *, stdin=None, stdout=None, stderr=None, cwd=None, env=None, text=False, errors=None,
        process_group=None, terminal=False,
    ):  # fmt: skip
        # Where a folder must not shadow modules is the same: what is imported has been.
        executable, how, what, *arguments = (os.fsdecode(word) for word in argv if word != "-P")
        assert (executable, how) in {(sys.executable, "-c"), (sys.executable, "-m")}
        self.args, self.returncode, self._reported = argv, None, b""
        streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        theirs = [self._stream(*one, text=text, errors=errors) for one in streams.items()]
        self._report, report = os.pipe()
        program = {
            "module": what if how == "-m" else None,
            "source": what,
            "arguments": arguments,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "group": process_group is not None,
            "terminal": terminal,
        }
        nursery().fork(program, theirs, report)
        for descriptor in (*theirs, report):
            os.close(descriptor)
        self.pid = int(self._hears(SECONDS))

    def _stream(self, name, given, *, text, errors):
        """Keep this end of a stream, and return the program's."""
        setattr(self, name, None)
        if given != PIPE:
            inherited = ("stdin", "stdout", "stderr").index(name)
            return os.dup(inherited if given is None else getattr(given, "fileno", lambda: given)())
        reader, writer = os.pipe()
        ours, theirs, mode = (writer, reader, "w") if name == "stdin" else (reader, writer, "r")
        setattr(self, name, os.fdopen(ours, mode if text else f"{mode}b", errors=errors))
        return theirs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.wait()

    def _hears(self, timeout):
        """Return the next line of its keeper."""
        while b"\n" not in self._reported:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._reported += os.read(self._report, 64)
        line, _, self._reported = self._reported.partition(b"\n")
        return line.decode()

    def wait(self, timeout=None):
        while self.returncode is None:
            if (report := self._hears(timeout)) != "stopped":
                self.returncode = int(report)
                os.close(self._report)
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def stop(self, timeout=SECONDS):
        """Stop it, and return when it stands still."""
        self.send_signal(signal.SIGSTOP)
        assert self._hears(timeout) == "stopped"

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        """Read both streams to their ends, and wait for its own."""
        read = {}

        def drain(name, stream):
            with stream:
                read[name] = stream.read()

        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        streams = {name: getattr(self, name) for name in ("stdout", "stderr")}
        threads = [
            threading.Thread(target=drain, args=(name, stream), daemon=True)
            for name, stream in streams.items()
            if stream is not None and not stream.closed
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return read.get("stdout"), read.get("stderr")


def run(argv, *, capture_output=False, timeout=60, check=False, **settings):
    """Run a program to its end."""
    process = Popen(argv, **({"stdout": PIPE, "stderr": PIPE} if capture_output else {}), **settings)
    try:
        out, err = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    ended = subprocess.CompletedProcess(argv, process.returncode, out, err)
    if check:
        ended.check_returncode()
    return ended
