"""Handlers that worker processes import by name, and what they leave behind for a test to look at."""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from jobd import Fail, Jobd, Retry, Skip

# Seconds: longer than any test, so that what a broken guard leaves behind goes after all.
FOREVER = 150


class OwnError(Exception):
    pass


class NarrowError(OwnError):
    pass


def hang():
    """Hang, whatever asks for the end."""
    until = time.monotonic() + FOREVER
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            time.sleep(FOREVER)


def note(path):
    """Leave this process's pid where a test looks for those that must end."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")


def logs_and_hangs(path, ctx):
    ctx.log.info("before it hangs")
    ctx.progress(1)  # it is answered: what was logged has been heard
    note(path)
    hang()


def double(n):
    return n * 2


def pid(_):
    return os.getpid()


def parents(_):
    return [os.getpid(), os.getppid()]


def described(value, ctx):
    known = [ctx.job_id, ctx.item_id, ctx.key, ctx.attempt, ctx.params, ctx.deadline, ctx.idempotency_key]
    return {"value": value, "ctx": known}


def surroundings(_):
    return {
        "stdin": sys.stdin.read(),
        "argv": sys.argv,
        "path": sys.path,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "terminal": os.getsid(0) != os.getsid(os.getppid()),
    }


def raises(what):
    match what:
        case "skip":
            raise Skip("nothing to do")
        case "fail":
            raise Fail("for good")
        case "retry":
            raise Retry("later", after=1)
        case "own":
            raise OwnError("of this module")
        case "narrow":
            raise NarrowError("of this module")
        case "exit":
            sys.exit("out")
        case "not JSON":
            return {1, 2}
    return what


def ends(how):
    """End this very process."""
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit 3":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(FOREVER)
        case "closed":
            os.closerange(3, 100)
    return how


def tells(value, ctx):
    ctx.progress(1, 2, "half")
    ctx.intend("about to")
    ctx.log.info("line %s", value)
    ctx.save_data(b"\0raw" * 100_000)
    ctx.save_result({"saved": value})
    raise OwnError("after that")


def logs_a_trace(_, ctx):
    try:
        raises("own")
    except OwnError:
        ctx.log.exception("what happened")
    ctx.log.info("%s", _Unprintable())
    ctx.log.info("surrogate \ud800")


class _Unprintable:
    def __str__(self):
        raise OwnError


def logs_and_dies(_, ctx):
    ctx.log.info("last words")
    os._exit(1)


def grows(n, ctx):
    return ctx.add_items([str(i) for i in range(int(n))])


def waits_and_tells(path, ctx):
    """Say that it began, wait for a word, and tell the store something."""
    note(path)
    with Path(f"{path}.go").open():
        pass
    try:
        ctx.save_result(1)
    except BaseException as error:
        Path(f"{path}.said").write_text(type(error).__name__)
        raise


def opens_its_own(how, ctx):
    """Use the file of ``params`` beside the context."""
    app = _kept_app(ctx.params)
    if how == "left open":
        app.database.execute_sql("begin immediate")
        return
    with app.atomic():
        ctx.defer("snap-1") if how == "defer" else ctx.save_result(1)


def locks_the_file(path, ctx):
    with _kept_app(ctx.params).atomic():
        note(path)
        hang()


@functools.cache
def _kept_app(path):
    return Jobd(path)


def spins(how):
    """Take the processor, and never wait for anything."""
    until = time.monotonic() + FOREVER
    while how == "for ever" and time.monotonic() < until:
        pass


def many_threads(name, ctx):
    """Speak from several threads at once, and not only from the one that the handler runs in."""
    if name != "first":
        return
    threads = [threading.Thread(target=lambda n=n: ctx.add_items([f"{n}-{i}" for i in range(20)])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def forks(_, ctx):
    """Come back twice: in a child of the worker as well."""
    if os.fork() == 0:
        ctx.save_result("by the child")
    os.wait()
    return os.getpid()


def cleans_up(path):
    note(path)
    try:
        time.sleep(FOREVER)
    finally:
        Path(f"{path}.cleaned").write_text("")


def cleans_up_and_returns(path):
    note(path)
    try:
        time.sleep(FOREVER)
    except BaseException:  # noqa: BLE001 - it ends by itself, with something to show
        return "what there was"


def tree(path):
    """Leave children of each kind, none of which would go by itself, and hang."""
    sleeper = [sys.executable, "-S", "-c", "import signal, time; signal.signal(15, 1); time.sleep(150)"]
    ours = [os.getpid(), subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
    reader, writer = os.pipe()
    if os.fork() == 0:
        # A daemon by the book: in a session of its own, and nobody's child.
        os.setsid()
        if os.fork() == 0:
            os.write(writer, b"%d" % os.getpid())
            hang()
        os._exit(0)
    os.wait()
    ours.append(int(os.read(reader, 20)))
    Path(f"{path}.new").write_text(" ".join(map(str, ours)))
    Path(f"{path}.new").rename(path)
    hang()


def holds_the_lock_of_the_interpreter(path):
    """Hang where no signal handler of Python's ever runs."""
    note(path)
    ctypes.PyDLL(None).sleep(FOREVER)


_kept = []


def grows_fat(megabytes):
    _kept.append(b"x" * (megabytes * 1_000_000))
    return os.getpid()


def told_to_stay(path):
    note(path)
    hang()
