"""Every operation, killed at boundaries that a seed chooses, most at its commits; and again in what comes after.

All boundaries of all operations take minutes: scripts/soak kills at each of them.
"""

from __future__ import annotations

import pytest
from kit.operations import OPERATIONS

SHARE, AGAIN, SEED = 0.005, 0.001, 1
# A recovery that is killed is the same for all of them; here it is seen after each kind of life.
TWICE = {"recover", "recover a dead submission", "time out what runs"}


@pytest.fixture(scope="module", autouse=True)
def table():
    """The table of points, for who asks with -s."""
    rows = []
    yield rows
    print(f"\n{'operation':36} statements boundaries kills states again")
    for row in rows:
        print(f"{row.operation:36} {row.statements:10} {row.boundaries:10} {row.kills:5} {row.states:6} {row.again:5}")


@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_killed_at_any_boundary_nothing_is_lost_done_twice_or_half_done(name, warm, tmp_path, table, record_property):
    again = AGAIN if name in TWICE else 0
    seen = warm.crash(name, tmp_path / "machine", share=SHARE, recovery=again, again=again, seed=SEED)
    table.append(seen)
    record_property("points", seen.boundaries)
    assert seen.wrong == []
    assert seen.boundaries >= seen.statements > 0, "a statement passes by where nobody is killed"
    assert seen.kills >= 1
    assert seen.states >= 1
    assert bool(seen.again) == bool(again)
