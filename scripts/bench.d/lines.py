"""The table of what is measured: each line with its unit, what it is divided by, and what it should reach."""

from __future__ import annotations

from typing import Final, NamedTuple


class Check(NamedTuple):
    """What the median of a line should reach: at least or at most ``bound``, of itself or over another line."""

    most: bool
    bound: float
    over: str | None = None


class Line(NamedTuple):
    """One figure. ``group`` is what is measured together, in one process; ``beside`` are lines it is divided by."""

    id: str
    group: str
    title: str
    unit: str
    checks: tuple[Check, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The lines that its ratios need, each once."""
        return tuple(dict.fromkeys([*self.beside, *(check.over for check in self.checks if check.over)]))


def at_least(bound: float, over: str | None = None) -> Check:
    return Check(False, bound, over)


def at_most(bound: float, over: str | None = None) -> Check:
    return Check(True, bound, over)


RATE: Final = "/s"
_DRAINED: Final = ("L3", "huey-drain")

LINES: Final = (
    # What the standard library's sqlite3 allows on this machine, WAL and synchronous=NORMAL as everywhere here.
    Line("L1", "limits", "sqlite3: one UPDATE a commit", RATE),
    Line("L2", "limits", "sqlite3: 10,000 inserts in one commit", RATE),
    Line("L3", "limits", "sqlite3: a commit to claim and one to complete each unit, with its result", RATE),
    Line("L4", "limits", "sqlite3: the same by hundreds", RATE),
    Line("L5", "limits", "ThreadPoolExecutor: 2,000 × 5 ms on 16 threads, nothing stored", "× ideal"),
    Line("L6-p50", "limits", "sqlite3 and two threads: store a unit, claim it, hand it on; idle, median", "ms"),
    Line("L6-p99", "limits", "  99th percentile", "ms"),
    Line("huey-submit", "peers", "huey: enqueue, one at a time", RATE, beside=("L3",)),
    Line("huey-drain", "peers", "huey: drain 10,000 no-op, 4 workers", RATE, beside=("L3",)),
    Line("huey-short", "peers", "huey: 2,000 × 5 ms on 16 threads", "× ideal", beside=("L5",)),
    Line(
        "submit-many", "submit", "submit 10,000 items in one call", RATE,
        (at_least(120_000), at_least(12, "L3")), ("L2", "L3"),
    ),
    Line("submit-one", "submit", "submit one at a time: job, item, event, one commit", RATE, (at_least(1, "L3"),)),
    Line(
        "submit-four", "submit", "the same by 4 threads at once", RATE,
        (at_least(1, "L3"),), ("submit-one", "huey-submit"),
    ),
    Line(
        "drain-items", "drain", "drain 10,000 no-op items of one job, 4 workers", RATE,
        (at_least(4, "L3"), at_least(9, "huey-drain")), _DRAINED,
    ),
    Line(
        "drain-jobs", "drain", "drain 10,000 jobs of one no-op item, 4 workers", RATE,
        (at_least(2, "L3"), at_least(4, "huey-drain")), _DRAINED,
    ),
    Line(
        "clients-pace", "clients", "the same while 8 processes submit without a pause", RATE,
        (at_least(0.5, "drain-jobs"),), ("huey-drain",),
    ),
    Line("clients-p99", "clients", "  one submission by such a process, 99th percentile", "ms", (at_most(250),)),
    Line("clients-errors", "clients", "  errors they saw", "errors", (at_most(0),)),
    Line("clients-writes", "clients", "  submissions by all of them meanwhile", RATE),
    Line(
        "here-p50", "here", "from submit to the handler, idle, same process: median", "ms",
        (at_most(0.6),), ("L6-p50",),
    ),
    Line("here-p99", "here", "  99th percentile", "ms", (at_most(1.5),), ("L6-p99",)),
    Line(
        "there-p50", "there", "from submit to the handler, idle, two processes: median", "ms",
        (at_most(0.9),), ("L6-p50",),
    ),
    Line("there-p99", "there", "  99th percentile", "ms", (at_most(2),), ("L6-p99",)),
    Line(
        "short", "short", "2,000 items of 5 ms on 16 threads, against the ideal", "× ideal",
        (at_most(1.05),), ("L5", "huey-short"),
    ),
    Line(
        "process-items", "warm", "500 no-op items in 4 warm worker processes, each item", "ms", (at_most(1),),
    ),
    Line("async-items", "awaiting", "drain 10,000 async items that await once, 100 at a time", RATE, beside=_DRAINED),
    Line(
        "late-p50", "late", "a job of 3 beside 100,000 items of 5 ms on 4 workers: until its first item starts, median",
        "ms", (at_most(100),),
    ),
    Line("late-worst", "late", "  the worst of 20", "ms", (at_most(100),)),
    Line("parallel-true", "commands", "GNU parallel: true for 1,000 items, 2 at a time, each", "ms"),
    Line("parallel-sum", "commands", "  sha256sum of 2,000 files", "ms"),
    Line(
        "map-true", "commands", "jobd map: true for 1,000 items, 2 at a time, each", "ms",
        (at_most(3),), ("parallel-true",),
    ),
    Line("map-sum", "commands", "  sha256sum of 2,000 files", "ms", (at_most(3), at_most(1, "parallel-sum"))),
    Line("progress", "reading", "progress of a job of 1,000,000 items, as wait() reads it", "ms", (at_most(0.1),)),
    Line("refresh", "reading", "  all of its fields and its daemon: job.refresh()", "ms"),
    Line("latest", "reading", "latest result of a key among 1,000,000", "ms", (at_most(0.2),)),
    Line("settle-one", "reading", "store the result of one item there", "ms", (at_most(1),)),
    Line("settle-hundred", "reading", "  of 100 in one commit", "ms", (at_most(20),)),
    Line("add-one", "reading", "submit one item there", "ms", (at_most(1),)),
    Line("add-hundred", "reading", "  100 items in one call", "ms", (at_most(20),)),
    Line("in-progress", "reading", "the jobs in progress among 1,000,000", "ms", (at_most(5),)),
    Line("page-jobs", "reading", "a page of the failed jobs from the middle of 1,000,000", "ms", (at_most(5),)),
    Line("page-items", "reading", "a page of the failed items from the middle of 1,000,000", "ms", (at_most(5),)),
    Line("within-file", "data", "400 results with 100 KB of raw data each, within the value: the file", "MB"),
    Line("within-table", "data", "  its table of results", "MB"),
    Line("within-list", "data", "  a page of 100 results", "ms"),
    Line(
        "apart-file", "data", "the same, apart by ctx.save_data: the file", "MB",
        (at_most(0.5, "within-file"),),
    ),
    Line("apart-table", "data", "  its table of results", "MB", (at_most(0.1, "within-table"),)),
    Line("apart-list", "data", "  a page of 100 results", "ms", (at_most(10), at_most(0.1, "within-list"))),
    Line("data-one", "data", "  the data of one of them, on demand", "ms", (at_most(5),)),
    Line("idle-memory", "idle", "jobd start, idle: resident memory", "MB", (at_most(30),)),
    Line("idle-cpu", "idle", "  share of one processor", "%", (at_most(0.1),)),
    Line("show-piped", "show", "jobd show, cold: processor time, into a pipe", "s", (at_most(0.15),)),
    Line("show-terminal", "show", "  on a terminal", "s", (at_most(0.15),)),
    Line("restart", "restart", "SIGKILL among 100,000 items: from the restart to the first item", "s", (at_most(1),)),
)  # fmt: skip

BY_ID: Final = {line.id: line for line in LINES}


def chosen(names: list[str]) -> list[Line]:
    """Return the lines whose id or group begins like one of ``names``, with those that their ratios need; else all.

    Raises:
        LookupError: a name that no line has.
    """
    if not names:
        return list(LINES)
    wanted = {line.id for name in names for line in LINES if line.id.startswith(name) or line.group == name}
    for name in names:
        if not any(line.id.startswith(name) or line.group == name for line in LINES):
            raise LookupError(name)
    more = set(wanted)
    while more:
        more = {need for line in map(BY_ID.__getitem__, more) for need in line.needs} - wanted
        wanted |= more
    return [line for line in LINES if line.id in wanted]
