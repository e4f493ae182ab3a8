"""Where WAL and locks do not hold, no daemon runs unless it is asked for by name."""

from __future__ import annotations

import functools

import pytest

from jobd import StoreUnusable, filesystem
from jobd.engine import holder as engine
from jobd.engine.lock import probe
from jobd.filesystem import NETWORK, file_system

TABLE = """\
25 30 0:23 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 25 0:24 / /mnt/share rw shared:2 - nfs4 server:/export rw,vers=4.2
27 26 0:25 / /mnt/share/local rw - xfs /dev/sdb1 rw
28 25 0:26 / /mnt/with\\040blank rw - cifs //server/share rw
29 25 0:27 / /mnt/twice rw - ext4 /dev/sdc1 rw
30 29 0:28 / /mnt/twice rw - fuse.sshfs user@host: rw
31 25 0:29 / /mnt/optional rw shared:3 master:4 propagate_from:2 unbindable - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    return table


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a/jobs.db", "ext4"),
        ("/mnt/share/jobs.db", "nfs4"),
        ("/mnt/share/local/jobs.db", "xfs"),
        ("/mnt/shared/jobs.db", "ext4"),
        ("/mnt/with blank/jobs.db", "cifs"),
        ("/mnt/twice/jobs.db", "fuse.sshfs"),
        ("/mnt/optional/jobs.db", "tmpfs"),
        ("/mnt/share", "nfs4"),
    ],
)
def test_a_path_lies_on_the_innermost_mount_above_it(mounts, path, kind):
    assert file_system(path, mounts) == kind


def test_where_there_is_no_table_nothing_is_known(tmp_path):
    assert file_system("/home/a/jobs.db", tmp_path / "missing") is None


def test_this_machine_s_own_table_is_read(path):
    """It says something, and this test's folder is local."""
    if filesystem._MOUNTS.exists():
        assert file_system(str(path)) is not None
    assert file_system(str(path)) not in NETWORK


@pytest.fixture
def mounted(mounts, tmp_path, monkeypatch):
    """Mount the test's folder, in the table, with a kind of file system."""

    def mount(kind):
        mounts.write_text(f"{TABLE}40 25 0:40 / {tmp_path} rw - {kind} somewhere rw\n")
        monkeypatch.setattr(engine, "file_system", functools.partial(file_system, mounts=mounts))

    return mount


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"])
def test_a_daemon_on_a_network_file_system_is_refused_with_the_reason(app, path, mounted, rows, kind):
    mounted(kind)
    with pytest.raises(StoreUnusable, match=f"network file system .{kind}.") as refused, app.daemon():
        pytest.fail("locks do not hold there")
    assert "--allow-network" in refused.value.hint
    assert refused.value.exit_code == 6
    assert not probe(str(path))
    assert rows.all("select * from daemons") == []


def test_it_runs_there_where_it_is_asked_to(app, mounted):
    mounted("nfs4")
    echo = app.task(lambda value: value, name="echo")
    with app.daemon(allow_network=True):
        assert echo.submit([1]).wait(20).status == "completed"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "zfs"])
def test_it_runs_on_any_other(app, mounted, kind):
    mounted(kind)
    with app.daemon() as daemon:
        assert daemon.id
