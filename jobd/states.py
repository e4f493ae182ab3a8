"""Statuses, and the edges between them, as data.

A status changes only along one of these edges; the store refuses anything else. An edge has the name that its event,
its log line and its verb carry.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Edge(NamedTuple):
    """A named transition: from any of ``sources`` to one of ``targets``."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


QUEUED: Final = "queued"
RUNNING: Final = "running"
WAITING: Final = "waiting"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"

JOB_STATUSES: Final = (QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED)
ITEM_STATUSES: Final = (QUEUED, RUNNING, WAITING, COMPLETED, FAILED, SKIPPED, CANCELLED)
JOB_ENDS: Final = (COMPLETED, FAILED, CANCELLED)
ITEM_ENDS: Final = (COMPLETED, FAILED, SKIPPED, CANCELLED)

JOB_EDGES: Final[dict[str, Edge]] = {
    edge.name: edge
    for edge in (
        Edge("start", (QUEUED,), (RUNNING,)),
        Edge("complete", (QUEUED, RUNNING), (COMPLETED,)),
        Edge("fail", (QUEUED, RUNNING), (FAILED,)),
        Edge("cancel", (QUEUED, RUNNING), (CANCELLED,)),
        Edge("reopen", (COMPLETED, FAILED, CANCELLED), (QUEUED,)),
        Edge("reconcile", (FAILED, COMPLETED), (COMPLETED, FAILED)),
    )
}

ITEM_EDGES: Final[dict[str, Edge]] = {
    edge.name: edge
    for edge in (
        Edge("start", (QUEUED,), (RUNNING,)),
        Edge("complete", (RUNNING, QUEUED, WAITING), (COMPLETED,)),
        Edge("fail", (RUNNING, WAITING), (FAILED,)),
        Edge("reschedule", (RUNNING,), (QUEUED,)),
        Edge("release", (RUNNING,), (QUEUED,)),
        Edge("defer", (RUNNING,), (WAITING,)),
        Edge("skip", (QUEUED, RUNNING, WAITING), (SKIPPED,)),
        Edge("cancel", (QUEUED, RUNNING, WAITING), (CANCELLED,)),
        Edge("time_out", (RUNNING, WAITING), (QUEUED, FAILED)),
        Edge("recover", (RUNNING,), (QUEUED,)),
        Edge("abandon", (RUNNING,), (FAILED,)),
        Edge("reconcile", (RUNNING, WAITING, QUEUED, FAILED), (COMPLETED, FAILED)),
        Edge("requeue", (FAILED, CANCELLED, COMPLETED, SKIPPED), (QUEUED,)),
    )
}

EDGES: Final[dict[str, dict[str, Edge]]] = {"jobs": JOB_EDGES, "job_items": ITEM_EDGES}


def legal(table: str, status: str) -> tuple[str, ...]:
    """Return the names of the edges that leave ``status``."""
    return tuple(edge.name for edge in EDGES[table].values() if status in edge.sources)
