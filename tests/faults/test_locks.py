"""The one lock of a file, for seconds: the soak does the same for minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/soak.d/locks.py"


@pytest.fixture(scope="module")
def locks():
    specification = importlib.util.spec_from_file_location("soak_locks", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_of_four_writers_beside_a_draining_daemon_nobody_sees_a_lock_and_nobody_but_it_checkpoints(locks, tmp_path):
    found = locks.writers(tmp_path, seconds=1.5, clients=4)
    assert found["problems"] == []
    assert found["writes"] > 4
    assert found["completed"] > 0
    assert found["checkpoints"] > 0


def test_a_log_that_is_emptied_all_the_time_loses_nothing_of_who_writes(locks, tmp_path):
    found = locks.wal_reset(tmp_path, seconds=1.0, clients=3)
    assert found["problems"] == []
    assert found["rows"] > 0
    assert found["emptied"] > 0
