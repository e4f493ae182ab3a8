"""A program that uses jobd: the checksum of a file, as a task.

Run it: jobd run jobd.demo:checksum FILE…
"""

import hashlib
import sys
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


if __name__ == "__main__":
    with app.daemon():
        job = checksum.submit(sys.argv[1:]).wait()
    for result in job.results():
        print(result.value["sha256"], result.key)
