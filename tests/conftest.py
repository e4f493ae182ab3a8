"""What every test stands on: no variable of the machine's own reaches the settings."""

from __future__ import annotations

import gc
import os
import signal

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch):
    for name in list(os.environ):
        if name.startswith("JOBD_"):
            monkeypatch.delenv(name)


def pytest_configure():
    # A shell starts what runs in its background with SIGINT ignored, and so would everything be that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Thousands of collected tests are looked through at every collection: a tenth of the suite's time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
