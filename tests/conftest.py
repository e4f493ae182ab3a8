"""What every test stands on: a machine without settings, files, apps and gates."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from jobd import Jobd
from jobd.engine.lock import Lock
from jobd.store.sqlite import SqliteStore

pytest_plugins = ["jobd.testing", "kit.rows", "kit.programs", "kit.standing"]

SECONDS = 20
ROOM = 1024**3
_LOOK = 0.002


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run the K-th of N parts of the suite")


def pytest_ignore_collect(collection_path, config):
    """Leave out the files of the other parts, which are never imported then."""
    if config.option.part and collection_path.name.startswith("test_") and collection_path.is_file():
        number, parts = map(int, config.option.part.split("/"))
        return True if _part_of(collection_path, config.rootpath / "tests", parts) != number else None
    return None


@functools.cache
def _files(tests):
    return sorted(tests.rglob("test_*.py"), key=lambda path: (-path.stat().st_size, path.name))


def _part_of(path, tests, parts):
    """Return the part of a file: dealt out by size, there and back again, so that the parts are of one length."""
    there_and_back = [*range(1, parts + 1), *range(parts, 0, -1)]
    return there_and_back[_files(tests).index(path) % len(there_and_back)]


def pytest_configure():
    _write_into_memory()
    # No variable of the machine's own reaches the settings.
    for name in [name for name in os.environ if name.startswith("JOBD_")]:
        del os.environ[name]
    # A shell starts what runs in its background with SIGINT ignored, and so would everything be that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()


def pytest_collection_finish():
    # What was collected stays: to look through thousands of tests again and again takes a tenth of the suite's time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _write_into_memory():
    """Keep what tests write off the disk, where the machine has a file system in memory with room.

    Each test has a database of its own, and most of what that costs is waiting for a disk to say that it has it.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """Where a test's file is; nobody has made it yet."""
    return tmp_path / "jobs.db"


@pytest.fixture
def anybodys():
    """A folder that every user may enter: those of pytest are its user's alone, and made so again by each that runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def new_file(tmp_path_factory):
    """A new and empty file: a copy of it costs a tenth of making another."""
    path = tmp_path_factory.mktemp("new") / "jobs.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    return path


@pytest.fixture
def store(path, new_file):
    store = SqliteStore(shutil.copy(new_file, path))
    store.open()
    yield store
    store.close()


# -- apps and handlers ------------------------------------------------------------------------------------------------


class Gate:
    """Holds a handler: ``entered`` is set by it, ``opened`` lets it go on."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()

    def pass_through(self):
        self.entered.set()
        assert self.opened.wait(SECONDS)


@pytest.fixture
def make_app(path, new_file):
    """Return an app on the test's file, which is new and empty, with settings."""
    made = []

    def make(**settings):
        if not path.exists():
            shutil.copy(new_file, path)
        made.append(Jobd(path, **settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def held(app, gate):
    """A task whose handler waits at the gate."""

    @app.task
    def held(value):
        gate.pass_through()
        return value

    return held


@pytest.fixture
def refused_at_once(monkeypatch):
    """Whoever finds a daemon on the file is refused at the first try, and not after half a second."""
    monkeypatch.setitem(Lock.acquire.__kwdefaults__, "patience", 0.0)


def _awake():
    # Not time.monotonic(): a test that stops the clock stops that too, and what does not come true would be for ever.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.fixture
def until():
    """Wait for a fact that can only be looked at: rows of another process, files, threads."""
    pause = threading.Event()

    def wait(fact, seconds=SECONDS):
        deadline = _awake() + seconds
        while not (answer := fact()):
            assert _awake() < deadline, f"it did not come true within {seconds} s"
            pause.wait(_LOOK)
        return answer

    return wait
