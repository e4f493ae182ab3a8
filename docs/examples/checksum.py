"""The checksum of a file, as a task.

Run it over many files:   jobd run docs/examples/checksum.py:checksum --glob 'src/**/*.py'
Kill it, run it again:    what is completed stays, and only the rest runs.
"""

import hashlib
from pathlib import Path

from jobd import Jobd

app = Jobd()


@app.task
def checksum(path: str) -> dict[str, str | int]:
    content = Path(path).read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "lines": content.count(b"\n"),
    }
