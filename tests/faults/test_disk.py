"""A disk that is really full: nothing that was finished is lost, and it goes on when there is room."""

from __future__ import annotations

import textwrap

import pytest
from kit.disks import SMALL_DISK, mounted

# Every error that the driver gives, by its own name: the fault is the real one, and not one that looks like it.
SEEN = """
from jobd.store import base, sqlite
seen, real = set(), sqlite.meaning

# A client gives up after ten seconds, here at once.
for write in (base.Store.write, base.Store.share):
    write.__kwdefaults__["patience"] = 0.0

def meaning(error, *arguments, **how):
    # peewee wraps what the driver raises.
    seen.add(getattr(error.__cause__ or error.__context__ or error, "sqlite_errorname", type(error).__name__))
    return real(error, *arguments, **how)

sqlite.meaning = meaning
"""

BEGIN = """
import collections, io
from jobd import StoreBusy
logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")
folder = os.path.dirname(path) + "/disk"
os.mkdir(folder)
small_disk(folder, 6_000_000)
say("mounted")
app = Jobd(folder + "/jobs.db", heartbeat=0.05, checkpoint_bytes=200_000, checkpoint_every=0.05, drain=1)
ran, hangs_from = [], 80

@app.task
def large(value):
    if value >= hangs_from:
        threading.Event().wait()
    ran.append(value)
    with open(path + ".ran", "a") as witness:
        print(value, file=witness)
    return "x" * 20_000

def wait_for(fact):
    until = time.monotonic() + 20
    while not fact() and time.monotonic() < until:
        threading.Event().wait(0.002)
    return fact()
"""

DAEMON = """
job = large.submit(range(80))
fill(folder, 300_000)
with app.daemon(workers=2) as daemon:
    wait_for(lambda: daemon.degraded or daemon.failure)
    say("degraded", daemon.degraded)
    say("seen", *sorted(seen))
    say("reads", app.job(job.id).status)
    try:
        app.submit("large", range(1_000), params="x" * 500_000)
    except StoreBusy as error:
        say("client", error.exit_code, len(str(error).splitlines()))
    told()
    make_room(folder)
    say("ended", job.wait(20).status, job.counts.completed, len({result.value for result in job.results()}))
    wait_for(lambda: daemon.degraded is None)
    say("after", daemon.degraded, daemon.failure)
say("ran", len(ran), max(item.attempt for item in job.items(limit=1000)))
say("left", app.doctor().exit_code, *[name for name in os.listdir(folder) if not name.startswith("jobs.db")])
"""

KILLED = """
def ran_so_far():
    return [int(word) for word in Path(path + ".ran").read_text().split()]

job = large.submit(range(80))
app.close()
fill(folder, 300_000)
child = os.fork()
if child == 0:
    # What has no room to be recorded does not keep the others from running: some are left for whoever comes after.
    hangs_from = 60
    with app.daemon(workers=2) as daemon:
        wait_for(lambda: daemon.degraded)
        os.kill(os.getpid(), signal.SIGKILL)
say("killed", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
before = set(ran_so_far())
make_room(folder)
with app.daemon(workers=2):
    say("ended", job.wait(20).status, job.counts.completed)
runs = collections.Counter(ran_so_far())
attempts = {int(item.key): item.attempt for item in job.items(limit=1000)}
say("runs", len(runs), before < set(runs), all(runs[key] <= attempts[key] for key in runs))
say("left", app.doctor().exit_code)
"""

VERBS = """
from jobd import cli

def verbs(*typed):
    for words in typed:
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        code = cli.call(list(words))
        errors = [line for line in sys.stderr.getvalue().splitlines() if not line.startswith("  hint:")]
        say(code, errors[-1].rpartition(": ")[2] if errors else "")

LOOK = ["list"], ["show", "1"]
CHANGE = ["cancel", "1"], ["backup", folder + "/copy.db"]
os.chdir(os.path.dirname(path))
os.environ["JOBD_DB"] = folder + "/jobs.db"
large.submit(range(20))
Path("program.py").write_text("from jobd import Jobd\\napp = Jobd()\\n")
fill(folder, 0)
verbs(*LOOK, *CHANGE, ["--app", "./program.py:app", "start"])
make_room(folder)
app.close()
# Not even the index of the log can be made now, which a reader needs.
fill(folder, 0)
verbs(*LOOK, *CHANGE)
say("seen", *sorted(seen))
make_room(folder)
verbs(["cancel", "1"])
say("left", app.doctor().exit_code, *[name for name in os.listdir(folder) if not name.startswith("jobs.db")])
"""


@pytest.fixture
def on_a_small_disk(program):
    """Start a program on a small disk of its own."""

    def start(source):
        begun = program(SMALL_DISK + SEEN + BEGIN + textwrap.dedent(source))
        mounted(begun)
        return begun

    return start


def test_a_daemon_on_a_full_disk_loses_nothing_and_goes_on_by_itself_when_there_is_room(on_a_small_disk):
    full = on_a_small_disk(DAEMON)
    assert full.hears("degraded") == "disk full"
    assert "SQLITE_FULL" in full.hears("seen").split()
    assert full.hears("reads") == "running"
    assert full.hears("client") == "5 1"
    full.tell()
    assert full.hears("ended") == "completed 80 1"
    assert full.hears("after") == "None None"
    assert full.hears("ran") == "80 1"
    assert full.hears("left") == "0"
    assert full.leaves() == 0
    log = [line for line in full.log().splitlines() if line.startswith("jobd.")]
    assert 1 <= len(log) <= 2, log


def test_killed_on_a_full_disk_it_goes_on_when_there_is_room(on_a_small_disk):
    full = on_a_small_disk(KILLED)
    assert full.hears("killed") == "-9"
    assert full.hears("ended") == "completed 80"
    assert full.hears("runs") == "80 True True"
    assert full.hears("left") == "0"
    assert full.leaves() == 0


def test_on_a_full_disk_verbs_that_look_look_and_others_leave_with_5_and_one_line(on_a_small_disk):
    full = on_a_small_disk(VERBS)
    busy = "5 disk full"
    assert [full.line().strip() for _ in range(5)] == ["0", "0", busy, busy, busy]
    assert [full.line().strip() for _ in range(4)] == [busy] * 4
    assert full.hears("seen") == "SQLITE_FULL SQLITE_IOERR_SHMSIZE"
    assert full.line().startswith("0 ")
    # No half copy.
    assert full.hears("left") == "0"
    assert full.leaves() == 0
