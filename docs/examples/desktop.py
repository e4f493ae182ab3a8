"""A program with a window: it takes photos into a library, shows how far it is, and may be killed at any moment.

Take some:                python docs/examples/desktop.py library photos/*.jpg
Kill it, run it again:    it goes on where it was; without photos, with what was left.

The event loop of asyncio stands for that of a toolkit, and a line on the terminal for the window. jobd has threads of
its own, so the loop is free to draw and to take clicks.
"""

import asyncio
import hashlib
import shutil
import sys
from pathlib import Path

from jobd import Context, Jobd
from jobd.job import Job

TICK = 0.05  # seconds
SPINNER = "|/-\\"

app = Jobd()


@app.task
def take(photo: str, ctx: Context) -> str:
    """Copy a photo under the name of its content: what was copied halfway is copied again, and is there once."""
    library = Path(ctx.params["library"])
    partial = library / f"{ctx.item_id}.partial"
    with Path(photo).open("rb") as source, partial.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    with partial.open("rb") as copy:
        name = hashlib.file_digest(copy, "sha256").hexdigest() + Path(photo).suffix
    partial.replace(library / name)
    with (library / "diary").open("a") as diary:
        diary.write(f"{photo}\n")
    return name


def draw(job: Job, tick: int) -> None:
    settled, total = job.counts.settled, job.counts.total
    bar = "#" * ((job.progress or 0) // 5)
    print(f"\r{SPINNER[tick % 4]} [{bar:<20}] {settled} of {total}  failed: {job.counts.failed} ", end="", flush=True)


async def window(library: str, photos: list[str]) -> Job:
    """Draw until the job has ended."""
    # Nothing is lost once this returns. It may take a moment for many thousand photos, so it is not for the loop.
    job = await asyncio.to_thread(take.submit, photos, key=library, params={"library": library})
    tick = 0
    while job.refresh().completed_at is None:  # a few milliseconds, also beside busy threads
        draw(job, tick)
        await asyncio.sleep(TICK)
        tick += 1
    draw(job, tick)
    return job


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    # Around the loop: leaving the daemon waits for what runs, and the window is closed by then.
    with app.daemon(workers=2):
        ended = asyncio.run(window(sys.argv[1], sys.argv[2:]))
    print(f"\n{ended.status_description}")
