"""The edge table against a second writing of it, taken from the design and not from the code."""

from __future__ import annotations

import pytest

from jobd.states import EDGES, ITEM_ENDS, ITEM_STATUSES, JOB_ENDS, JOB_STATUSES, legal

JOBS = """
start       queued                            -> running
complete    queued running                    -> completed
fail        queued running                    -> failed
cancel      queued running                    -> cancelled
reopen      completed failed cancelled        -> queued
reconcile   failed completed                  -> completed failed
"""
ITEMS = """
start       queued                            -> running
complete    running queued waiting            -> completed
fail        running waiting                   -> failed
reschedule  running                           -> queued
release     running                           -> queued
defer       running                           -> waiting
skip        queued running waiting            -> skipped
cancel      queued running waiting            -> cancelled
time_out    running waiting                   -> queued failed
recover     running                           -> queued
abandon     running                           -> failed
reconcile   running waiting queued failed     -> completed failed
requeue     failed cancelled completed skipped -> queued
"""
DESIGNED = {"jobs": JOBS, "job_items": ITEMS}
STATUSES = {"jobs": JOB_STATUSES, "job_items": ITEM_STATUSES}
BANNED = {"done", "success", "stuck", "zombie", "paused", "requested", "submitting"}


def designed(table):
    edges = {}
    for line in DESIGNED[table].strip().splitlines():
        left, targets = line.split("->")
        name, *sources = left.split()
        edges[name] = (set(sources), set(targets.split()))
    return edges


@pytest.mark.parametrize("table", EDGES)
def test_the_edges_are_those_of_the_design(table):
    assert {edge.name: (set(edge.sources), set(edge.targets)) for edge in EDGES[table].values()} == designed(table)
    assert all(name == edge.name for name, edge in EDGES[table].items())


@pytest.mark.parametrize("table", EDGES)
def test_every_edge_joins_known_statuses_and_every_status_is_reached_and_left(table):
    edges = EDGES[table].values()
    known = set(STATUSES[table])
    assert {status for edge in edges for status in (*edge.sources, *edge.targets)} == known
    assert {status for edge in edges for status in edge.targets} == known
    assert not known & BANNED


def test_the_statuses_are_those_of_the_words():
    assert JOB_STATUSES == ("queued", "running", "completed", "failed", "cancelled")
    assert ITEM_STATUSES == ("queued", "running", "waiting", "completed", "failed", "skipped", "cancelled")
    assert set(JOB_STATUSES) - set(JOB_ENDS) == {"queued", "running"}
    assert set(ITEM_STATUSES) - set(ITEM_ENDS) == {"queued", "running", "waiting"}


@pytest.mark.parametrize(("table", "status"), [(table, status) for table in EDGES for status in STATUSES[table]])
def test_the_legal_edges_of_a_status_are_all_that_leave_it(table, status):
    assert set(legal(table, status)) == {name for name, (sources, _) in designed(table).items() if status in sources}


def test_nothing_leads_from_a_cancelled_job_but_a_reopening():
    assert legal("jobs", "cancelled") == ("reopen",)
    assert legal("job_items", "cancelled") == ("requeue",)


def test_a_status_that_nobody_knows_has_no_legal_edges():
    assert legal("jobs", "deleted") == ()
