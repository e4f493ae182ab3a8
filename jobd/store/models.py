"""The tables of ``schema.sql`` as peewee models, for queries that read better so than as text.

The schema is the truth and a test holds the two together. The models are bound to no database: several stores may be
open in one process, so a query names its own, ``query.execute(store.database)``. Foreign keys are plain columns here:
a row object that loads its neighbour by itself would read outside the caller's snapshot.
"""

from __future__ import annotations

from typing import Final

from peewee import BigAutoField, BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField


class Job(Model):
    id = BigAutoField()
    task = TextField()
    key = TextField(null=True)
    params = TextField()
    target = TextField(null=True)
    status = TextField()
    status_message = TextField(null=True)
    status_updated_at = BigIntegerField()
    version = IntegerField()
    last_error = TextField(null=True)
    priority = IntegerField()
    not_before = BigIntegerField(null=True)
    available_at = BigIntegerField()
    job_timeout_ms = BigIntegerField(null=True)
    timeout_at = BigIntegerField(null=True)
    retry_count = IntegerField()
    tolerance = TextField()
    submitter = TextField(null=True)
    sealed_at = BigIntegerField(null=True)
    paused_at = BigIntegerField(null=True)
    cancel_requested_at = BigIntegerField(null=True)
    fail_requested_at = BigIntegerField(null=True)
    deleted_at = BigIntegerField(null=True)
    blocked = IntegerField()
    untold_at = BigIntegerField(null=True)
    values_pruned_at = BigIntegerField(null=True)
    items_total = IntegerField()
    items_running = IntegerField()
    items_waiting = IntegerField()
    items_completed = IntegerField()
    items_failed = IntegerField()
    items_skipped = IntegerField()
    items_cancelled = IntegerField()
    policy = TextField()
    created_at = BigIntegerField()
    started_at = BigIntegerField(null=True)
    progress_at = BigIntegerField(null=True)
    completed_at = BigIntegerField(null=True)

    class Meta:
        table_name = "jobs"


class JobItem(Model):
    id = BigAutoField()
    job_id = BigIntegerField()
    key = TextField()
    payload = TextField()
    status = TextField()
    attempt = IntegerField()
    failures = IntegerField()
    interruptions = IntegerField()
    lone_deaths = IntegerField()
    daemon_id = BigIntegerField(null=True)
    available_at = BigIntegerField()
    deadline_at = BigIntegerField(null=True)
    poll_at = BigIntegerField(null=True)
    poll_gap_ms = BigIntegerField(null=True)
    started_at = BigIntegerField(null=True)
    completed_at = BigIntegerField(null=True)
    progress = TextField(null=True)
    intent = TextField(null=True)
    external_id = TextField(null=True)
    error_type = TextField(null=True)
    error = TextField(null=True)

    class Meta:
        table_name = "job_items"


class Result(Model):
    item_id = BigIntegerField(primary_key=True)
    attempt = IntegerField()
    task = TextField()
    key = TextField()
    period = TextField(null=True)
    status = TextField()
    source = TextField()
    value = TextField(null=True)
    created_at = BigIntegerField()
    pruned_at = BigIntegerField(null=True)

    class Meta:
        table_name = "results"


class ResultData(Model):
    item_id = BigIntegerField(primary_key=True)
    attempt = IntegerField()
    data = BlobField()

    class Meta:
        table_name = "result_data"


class ItemOutput(Model):
    item_id = BigIntegerField(primary_key=True)
    attempt = IntegerField()
    text = TextField()
    truncated = IntegerField()

    class Meta:
        table_name = "item_output"


class CommandOutput(Model):
    id = BigAutoField()
    item_id = BigIntegerField(unique=True)
    attempt = IntegerField()
    stdout = BlobField()
    stderr = BlobField()
    truncated = IntegerField()

    class Meta:
        table_name = "command_output"


class JobEvent(Model):
    id = BigAutoField()
    job_id = BigIntegerField()
    item_id = BigIntegerField(null=True)
    name = TextField()
    from_status = TextField(null=True)
    to_status = TextField(null=True)
    at = BigIntegerField()
    actor = TextField()
    attempt = IntegerField(null=True)
    external_id = TextField(null=True)
    message = TextField(null=True)
    count = IntegerField(null=True)

    class Meta:
        table_name = "job_events"


class Daemon(Model):
    id = BigAutoField()
    host = TextField()
    boot = TextField()
    pid = IntegerField()
    process_started_at = BigIntegerField()
    started_at = BigIntegerField()
    heartbeat_at = BigIntegerField()
    heartbeats = IntegerField()
    stopped_at = BigIntegerField(null=True)
    state = TextField()
    tasks = TextField()
    version = TextField()

    class Meta:
        table_name = "daemons"


class Pass(Model):
    name = TextField(primary_key=True)
    requested_at = BigIntegerField(null=True)
    options = TextField(null=True)
    started_at = BigIntegerField(null=True)
    finished_at = BigIntegerField(null=True)
    report = TextField(null=True)

    class Meta:
        table_name = "passes"


class Schedule(Model):
    name = TextField(primary_key=True)
    task = TextField()
    spec = TextField()
    zone = TextField()
    catch_up = TextField()
    items = TextField(null=True)
    params = TextField()
    created_at = BigIntegerField()
    last_fired_at = BigIntegerField(null=True)
    next_at = BigIntegerField(null=True)
    skipped_at = BigIntegerField(null=True)
    skipped_why = TextField(null=True)
    last_job_id = BigIntegerField(null=True)
    paused_at = BigIntegerField(null=True)

    class Meta:
        table_name = "schedules"


class Watched(Model):
    task = TextField()
    key = TextField()
    last_job_id = BigIntegerField(null=True)
    last_status = TextField(null=True)
    last_run_at = BigIntegerField(null=True)

    class Meta:
        table_name = "watchlist"
        primary_key = CompositeKey("task", "key")


class JobDependency(Model):
    job_id = BigIntegerField()
    after_id = BigIntegerField()
    on_status = TextField()
    cancelled_at = BigIntegerField(null=True)

    class Meta:
        table_name = "job_dependencies"
        primary_key = CompositeKey("job_id", "after_id")


MODELS: Final = (
    Job, JobItem, Result, ResultData, ItemOutput, CommandOutput, JobEvent, Daemon, Pass, Schedule, Watched,
    JobDependency,
)  # fmt: skip
