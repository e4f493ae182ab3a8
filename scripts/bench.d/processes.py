"""jobd as processes: the daemon idle, a cold command, and a daemon that was killed."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import psutil

from jobd import Jobd, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure import Scale

_HERE: Final = Path(__file__).parent
_SCRIPT: Final = Path(sys.executable).with_name("jobd")
JOBD: Final = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "jobd"]
_PATIENCE: Final = 60.0
_STARTED: Final = "select min(started_at) from job_items where daemon_id=? and started_at is not null"


def _until(fact: Callable[[], Any], look: float = 0.005) -> None:
    until = time.monotonic() + _PATIENCE
    while not fact():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {_PATIENCE:.0f} s for {fact.__name__}")
        time.sleep(look)


@contextlib.contextmanager
def daemon(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `jobd start` for the file, from when it is ready; it is killed at the end."""
    app = Jobd(path)

    def is_ready() -> bool:
        with contextlib.suppress(NotFound):
            runner = app.daemon_status()
            return runner.alive and runner.pid == process.pid and bool(runner.tasks)
        return False

    with path.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [*JOBD, "--db", str(path), "--app", str(_HERE / "program.py"), "start"], stdout=log, stderr=log
        )
        try:
            _until(is_ready)
            yield process
        finally:
            process.kill()
            process.wait()


def idle(folder: Path, scale: Scale) -> dict[str, float]:
    with daemon(folder / "idle.db") as process:
        time.sleep(scale.idle / 10)  # what its start has left to do
        before, began = _processor_time(process.pid), time.monotonic()
        time.sleep(scale.idle)
        used = _processor_time(process.pid) - before
        share = used / (time.monotonic() - began)
        return {"idle-memory": psutil.Process(process.pid).memory_info().rss / 1e6, "idle-cpu": share * 100}


def _processor_time(pid: int) -> float:
    """Return seconds: from the scheduler to the nanosecond, where it says; a clock tick is 0.1 % of ten seconds."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except OSError:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system


def show(folder: Path, scale: Scale) -> dict[str, float]:
    app = Jobd(folder / "show.db")
    app.task(lambda _number: None, name="nothing")
    with app.daemon(workers=1):
        job = app.submit("nothing", range(100)).wait()
    command = [*JOBD, "--db", app.path, "show", str(job.id)]
    if scale.starts > 1:
        _piped(command)  # compiles, and fills the page cache
    return {
        "show-piped": median(_piped(command) for _ in range(scale.starts)),
        "show-terminal": median(_on_terminal(command) for _ in range(scale.starts)),
    }


def _piped(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read()
    return _used(process)


def _on_terminal(command: list[str]) -> float:
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while os.read(master, 65_536):
            pass
    os.close(master)
    return _used(process)


def _used(process: subprocess.Popen[bytes]) -> float:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args} left with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def restart(folder: Path, scale: Scale) -> dict[str, float]:
    path = folder / "restart.db"
    app = Jobd(path)
    job = app.submit("brief", (str(number) for number in range(scale.restart)))
    with daemon(path):
        _until(lambda: job.refresh().counts.completed > scale.restart // 200)
    app.close()
    began, killed = time.time(), app.daemon_status().id

    def first_start() -> Any:
        return app.store.read(lambda connection: connection.execute(_STARTED, (killed + 1,)).fetchone()[0])

    with daemon(path):
        _until(first_start, look=0.02)
        return {"restart": first_start() / 1000 - began}
