"""The JSON of what reading returns: the fields of the contract, in its order, times in UTC."""

from __future__ import annotations

import json

import pytest

from jobd.store.item_views import ErrorGroup, EventView, ItemView, OutputView, ResultView
from jobd.store.views import Counts, DaemonView, JobDaemon, JobView, iso

AT = 1_795_305_600_123
TEXT = "2026-11-22T00:00:00.123Z"

JOB = JobView(
    id=7, task="t", key=None, target="m:t", status="running", status_description="running", status_message=None,
    status_updated_at=AT, version=2, health="ok", operations=("cancel",), progress_percent=50,
    counts=Counts(4, 1, 1, 0, 2, 0, 0, 0), rate_per_second=0.5, eta_seconds=4, warnings=("w",), retry_count=0,
    last_error=None, created_at=AT, started_at=AT, completed_at=None, timeout_at=AT, age_seconds=3,
    in_status_seconds=2, daemon=JobDaemon(1, 2, "h", AT, alive=True), after=(5,), phases=None, params={"p": 1},
    priority=0, progress_at=AT, paused_at=None, sealed_at=AT, not_before=None, blocked_by=(),
)  # fmt: skip
ITEM = ItemView(
    id=1, job_id=7, key="a", status="completed", attempt=1, failures=0, interruptions=0, external_id=None,
    started_at=AT, completed_at=AT, duration_ms=0, error_type=None, error=None, progress=[1, 2, "half"],
    payload="a", daemon_id=1, available_at=0, deadline_at=None, intent=None,
)  # fmt: skip
RESULT = ResultView(
    job_id=7, key="a", value={"created_at": 5}, status="completed", source="handler", created_at=AT, has_data=False,
    item_id=1, attempt=1, period=None, pruned_at=None,
)  # fmt: skip
EVENT = EventView(1, 7, None, "start", "queued", "running", AT, "daemon 1", None, None, None, None)
# From INTERFACES.md, section 2.
CONTRACT = {
    "job": JOB, "counts": JOB.counts, "daemon": JOB.daemon, "item": ITEM, "result": RESULT, "event": EVENT,
}  # fmt: skip
FIELDS = {
    "job": """id task key target status status_description status_message status_updated_at version health operations
        progress_percent counts rate_per_second eta_seconds warnings retry_count last_error created_at started_at
        completed_at timeout_at age_seconds in_status_seconds daemon after phases""",
    "counts": "total queued running waiting completed failed skipped cancelled",
    "daemon": "id pid host heartbeat_at alive",
    "item": """id job_id key status attempt failures interruptions external_id started_at completed_at duration_ms
        error_type error progress""",
    "result": "job_id key value status source created_at has_data item_id period pruned_at",
    "event": "id job_id item_key name from_status to_status at actor attempt external_id message count",
}


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_json_has_the_fields_of_the_contract_in_its_order(name):
    assert list(CONTRACT[name].json()) == FIELDS[name].split()


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_attributes_are_named_as_the_json_fields(name):
    assert all(hasattr(CONTRACT[name], field) for field in FIELDS[name].split())


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_json_is_json(name):
    found = CONTRACT[name].json()
    assert json.loads(json.dumps(found)) == found


def test_times_are_milliseconds_as_attributes_and_iso_8601_in_json():
    assert JOB.created_at == AT
    assert JOB.json()["created_at"] == JOB.json()["timeout_at"] == JOB.json()["daemon"]["heartbeat_at"] == TEXT
    assert EVENT.json()["at"] == TEXT
    assert ErrorGroup("E", "no", 2, AT, AT, ("a",)).json()["first_at"] == TEXT


def test_a_value_is_left_as_it_is_even_where_it_looks_like_a_time():
    assert RESULT.json()["value"] == {"created_at": 5}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (AT, TEXT),
        (None, None),
        (2**62, str(2**62)),
    ],
)
def test_a_time_outside_every_calendar_does_not_break_a_reading(ms, text):
    assert iso(ms) == text


@pytest.mark.parametrize(
    ("counts", "percent"),
    [
        (Counts(0, 0, 0, 0, 0, 0, 0, 0), None),
        (Counts(3, 3, 0, 0, 0, 0, 0, 0), 0),
        (Counts(1000, 0, 1, 0, 999, 0, 0, 0), 99),
        (Counts(1000, 0, 0, 1, 999, 0, 0, 0), 99),
        (Counts(4, 0, 0, 0, 1, 1, 1, 1), 100),
    ],
)
def test_progress_is_rounded_down_and_100_only_when_nothing_is_open(counts, percent):
    assert counts.progress_percent == percent
    assert (percent == 100) == (counts.open == 0 and counts.total > 0)


def test_a_daemon_row_becomes_the_one_who_runs_items():
    row = DaemonView(3, "h", "b", 9, 1, 2, 4, 0, None, {"degraded": "disk full"}, ("t",), "0")
    assert row.runner(alive=True) == (True, 3, 9, "h", 2, 4, ("t",), {"degraded": "disk full"})


def test_output_says_whether_it_was_cut():
    assert OutputView(1, 2, "text", truncated=True).json() == {
        "item_id": 1, "attempt": 2, "text": "text", "truncated": True,
    }  # fmt: skip
