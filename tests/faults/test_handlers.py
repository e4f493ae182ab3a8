"""Handlers that behave as badly as they can, all in one pool: each ends as what it did, and the next one runs."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from kit import handlers

SECONDS = 20


class Odd(BaseException):
    """What is no Exception."""

    def __str__(self):
        raise ValueError("not even that")


@pytest.fixture
def release():
    release = threading.Event()
    yield release
    release.set()


def test_in_threads_each_item_is_settled_and_the_pool_stays_whole(app, release):
    leaked = []

    def spin():
        while not release.is_set():
            pass

    def leak():
        leaked.extend(os.pipe() for _ in range(20))
        threading.Thread(target=release.wait, daemon=True).start()

    def odd():
        raise Odd

    def fork():
        if os.fork() == 0:
            os._exit(0)
        os.wait()

    acts = {
        "spin": spin, "hang": lambda: release.wait(SECONDS), "leak": leak, "exit": sys.exit, "odd": odd, "fork": fork,
        "fine": bool,
    }  # fmt: skip
    bad = app.task(lambda how: bool(acts[how]()), name="bad", timeout=0.3)
    with app.daemon(workers=2) as daemon:
        job = bad.submit(list(acts)).wait(SECONDS)
        assert daemon.failure is None
    ends = {item.key: (item.status, item.error_type) for item in job.items()}
    assert ends == {
        "spin": ("failed", "TimeOut"),
        "hang": ("failed", "TimeOut"),
        "leak": ("completed", None),
        "exit": ("failed", "SystemExit"),
        "odd": ("failed", "Odd"),
        "fork": ("completed", None),
        "fine": ("completed", None),
    }
    assert app.doctor().exit_code == 0
    for end in (end for pipe in leaked for end in pipe):
        os.close(end)


def test_a_process_that_spins_is_killed_at_its_time_and_the_next_one_runs(app):
    spins = app.task(handlers.spins, isolation="process", timeout=0.3)
    with app.daemon(workers=1):
        job = spins.submit(["for ever", "not at all"]).wait(SECONDS)
    assert [(item.status, item.error_type) for item in job.items()] == [("failed", "TimeOut"), ("completed", None)]
