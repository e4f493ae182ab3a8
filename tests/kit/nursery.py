"""A process that has imported jobd and nothing more, and forks programs: most of what a short one costs is its start.

Each program is a process of its own, with the streams, arguments, folder and environment that it was given, which ends
as an interpreter ends. Its parent is a keeper, which says how it fares on a pipe: its pid, "stopped", its exit code.
"""

import contextlib
import fcntl
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import termios
import time

STREAMS = ("stdin", "stdout", "stderr")


def load():
    """Import what most programs do, and what a daemon and the verbs import when they need it."""
    for name in ("logging", "psutil", "schedule", "jobd.app", "jobd.engine.daemon"):
        importlib.import_module(name)
    for verb in pkgutil.iter_modules(importlib.import_module("jobd.cli").__path__, "jobd.cli."):
        importlib.import_module(verb.name)


def main():
    """Fork until nobody asks any more; in a program's process, return what it is."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    load()
    # Ctrl-C is for pytest, and keepers need nobody to notice their end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        length, descriptors, _, _ = socket.recv_fds(asked, 8, len(STREAMS) + 1)
        if not length:
            sys.exit()
        size, text = int.from_bytes(length, "big"), b""
        while len(text) < size:
            text += asked.recv(size - len(text))
        if os.fork() == 0:
            asked.close()
            *streams, report = descriptors
            return keep(json.loads(text), streams, report)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(program, streams, report):
    """Stay as the parent of the program, and return in its process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(report)
        return become(program, streams)
    for descriptor in (*streams, *range(len(STREAMS))):
        os.close(descriptor)
    with contextlib.suppress(BrokenPipeError):
        os.write(report, b"%d\n" % child)
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
                break
            os.write(report, b"stopped\n")
    os._exit(0)


def become(program, streams):
    """Take over the streams, and whatever else a process is given when it begins."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if program["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    elif program["group"]:
        os.setpgid(0, 0)
    for number, name in enumerate(STREAMS):
        former = getattr(sys, name)
        stream = os.fdopen(number, former.mode, encoding=former.encoding, errors=former.errors, closefd=False)
        if name != "stdin":
            stream.reconfigure(line_buffering=name == "stderr" or os.isatty(number))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(program["environment"])
    time.tzset()
    os.chdir(program["folder"])
    sys.argv[:] = ["-c", *program["arguments"]]
    return program


if __name__ == "__main__":
    given = main()
    if given["module"]:
        sys.path[0] = given["folder"]
        runpy.run_module(given["module"], run_name="__main__", alter_sys=True)
    else:
        # In this very module, as of `python -c`, and to the end of the interpreter.
        exec(compile(given["source"], "<program>", "exec"))
