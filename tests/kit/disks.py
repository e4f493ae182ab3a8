"""A disk that is full when a test says so: a small one in memory, seen by one program alone and gone with it."""

from __future__ import annotations

import os

import pytest

# Put before a program: ``small_disk(folder, size)`` mounts it there, ``fill(room)`` leaves so many bytes free and
# ``make_room()`` takes that back. Without root it is mounted by the root of a name space of its own.
SMALL_DISK = """
import ctypes, errno
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

def _system(name, *arguments):
    if not sys.platform.startswith("linux"):
        say("cannot", f"{name}: not on {sys.platform}")
        sys.exit(0)
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        say("cannot", f"{name}: {os.strerror(number)}")
        sys.exit(0)

def small_disk(folder, size):
    user, group = os.geteuid(), os.getegid()
    _system("unshare", 0x00020000 | (0x10000000 if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    # What is mounted from now on is nobody else's: MS_REC | MS_PRIVATE.
    _system("mount", b"none", b"/", None, 0x4000 | 0x40000, None)
    _system("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % size)

def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_bsize

def fill(folder, room):
    ballast = os.open(f"{folder}/ballast", os.O_CREAT | os.O_WRONLY, 0o600)
    os.posix_fallocate(ballast, 0, free(folder) - room)
    os.close(ballast)

def make_room(folder):
    os.unlink(f"{folder}/ballast")
"""


def mounted(program):
    """Wait until a program has its disk; where none may be mounted the test is skipped, but not where it must run."""
    word, _, rest = program.line().partition(" ")
    if word == "cannot":
        assert os.geteuid(), f"root cannot mount a small disk: {rest}"
        assert not os.environ.get("CI"), f"no small disk can be mounted here: {rest}"
        pytest.skip(f"no small disk can be mounted here: {rest}")
    assert word == "mounted", (word, rest)
