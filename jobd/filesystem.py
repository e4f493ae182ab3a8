"""On which file system a path lies, and whether locks hold there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")

# Their locks and shared memory are not seen by other machines, or do not hold at all.
NETWORK: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "afpfs", "webdav", "davfs", "ceph", "glusterfs",
     "lustre", "gpfs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.davfs2", "fuse.s3fs", "fuse.rclone")
)  # fmt: skip


def file_system(path: str, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system under ``path``, by Linux's table of mounts; None where there is none."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        # A blank in a path is written as its octal code.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
        # Of mounts on one point the last lies on top.
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind
