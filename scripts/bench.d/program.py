"""The program whose daemon is started and killed: what `jobd --app program.py start` runs."""

import time

from jobd import Jobd

app = Jobd()


@app.task
def clock(_number: int) -> float:
    return time.monotonic()


@app.task
def brief(_number: object) -> None:
    time.sleep(0.001)
