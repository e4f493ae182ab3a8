-- The schema of a jobd file, applied whole to a new one.
--
-- Times are integer Unix milliseconds (UTC), handed in by the caller. Text columns that hold JSON say so.
-- The CHECKs refuse what no code may ever write. What a crash or a foreign hand can leave behind (a running item
-- without a daemon, a terminal job without an end) stays storable, so that the passes can judge it and doctor can
-- name it. Indexes are few and partial: the pages that a commit touches are its cost. Lists of statuses are chains of
-- OR, the frequent ones first: SQLite builds a table for each IN list and for each row, which made a third of a settlement.

create table jobs (
  id                   integer primary key autoincrement,
  task                 text    not null,
  key                  text,                            -- idempotency key of the submission
  params               text    not null default 'null', -- JSON
  target               text,                            -- what the submitter typed; shown, never imported
  status               text    not null default 'queued',
  status_message       text,
  status_updated_at    integer not null,
  version              integer not null default 0,      -- numbers the job's own events
  last_error           text,
  priority             integer not null default 0,
  not_before           integer,
  available_at         integer not null default 0,      -- nothing of it is looked at before; 0: at once
  job_timeout_ms       integer,
  timeout_at           integer,
  retry_count          integer not null default 0,
  tolerance            text    not null default '0',    -- failed items that a completed job may have: a count or a percentage
  submitter            text,                            -- JSON: host, boot, pid, process_started_at
  sealed_at            integer,                         -- null while the submitter is still adding its items
  paused_at            integer,
  cancel_requested_at  integer,
  fail_requested_at    integer,
  deleted_at           integer,
  blocked              integer not null default 0,      -- of an open job: parents that have not ended as it waits for
  untold_at            integer,                         -- since when its children have yet to follow what became of it
  values_pruned_at     integer,                         -- since when the results of its items have no values any more
  items_total          integer not null default 0,
  items_running        integer not null default 0,
  items_waiting        integer not null default 0,
  items_completed      integer not null default 0,
  items_failed         integer not null default 0,
  items_skipped        integer not null default 0,
  items_cancelled      integer not null default 0,
  policy               text    not null default '{}',   -- JSON: what this job alone overrides of its task's policy
  created_at           integer not null,
  started_at           integer,
  progress_at          integer,
  completed_at         integer,
  constraint jobs_status_known check (
    status = 'queued' or status = 'running' or status = 'completed' or status = 'failed' or status = 'cancelled'),
  constraint jobs_version_counts check (version >= 0 and retry_count >= 0),
  constraint jobs_available_at_not_negative check (available_at >= 0),
  constraint jobs_counters_not_negative check (
    items_running >= 0 and items_waiting >= 0 and items_completed >= 0
    and items_failed >= 0 and items_skipped >= 0 and items_cancelled >= 0),
  constraint jobs_counters_within_total check (
    items_running + items_waiting + items_completed + items_failed + items_skipped + items_cancelled <= items_total),
  constraint jobs_key_length check (key is null or length(key) between 1 and 4096),
  constraint jobs_key_unique_in_task unique (task, key)
);
-- "completed_at is null" stands for an open job in every condition: a start and a counter do not touch that column, so
-- they leave these indexes alone.
-- Jobs with something left to claim: of each task those to look at now, in the order in which their turn comes, and
-- apart from them those to look at later, in the order in which they come due.
create index jobs_claimable on jobs (task, available_at, priority desc, id)
  where completed_at is null and sealed_at is not null and paused_at is null
    and cancel_requested_at is null and fail_requested_at is null and deleted_at is null and blocked = 0
    and items_total > items_running + items_waiting + items_completed + items_failed + items_skipped + items_cancelled;
create index jobs_open on jobs (id) where completed_at is null;
create index jobs_requested on jobs (id)
  where deleted_at is not null or sealed_at is null
    or (completed_at is null and (cancel_requested_at is not null or fail_requested_at is not null));
create index jobs_untold on jobs (id) where untold_at is not null;
create index jobs_ended on jobs (status, id) where completed_at is not null;
-- What has ended and for how long, apart for each outcome, and for those whose results have lost their values.
create index jobs_aged on jobs (status, (values_pruned_at is null), completed_at)
  where completed_at is not null and deleted_at is null;
create index jobs_timed on jobs (timeout_at) where job_timeout_ms is not null and completed_at is null;

-- The details: one row for each element of a job.
create table job_items (
  id             integer primary key autoincrement,     -- never reused: (id, attempt) is a fencing token
  job_id         integer not null references jobs (id) on delete cascade,
  key            text    not null,
  payload        text    not null,                      -- JSON
  status         text    not null default 'queued',
  attempt        integer not null default 0,
  failures       integer not null default 0,
  interruptions  integer not null default 0,
  lone_deaths    integer not null default 0,
  daemon_id      integer,
  available_at   integer not null default 0,            -- a queued item is not claimed before; 0: at once. Of a waiting one: up to when its deadline was moved
  deadline_at    integer,
  poll_at        integer,                               -- of a waiting one: when the outside is asked next
  poll_gap_ms    integer,                               -- and how long after the last time that is
  started_at     integer,                               -- of the present attempt
  completed_at   integer,
  progress       text,                                  -- JSON: [done, total, text]
  intent         text,
  external_id    text,
  error_type     text,
  error          text,
  constraint job_items_status_known check (
    status = 'running' or status = 'completed' or status = 'queued' or status = 'waiting' or status = 'failed'
    or status = 'skipped' or status = 'cancelled'),
  constraint job_items_counts_not_negative check (
    attempt >= 0 and failures >= 0 and interruptions >= 0 and lone_deaths >= 0),
  constraint job_items_key_length check (length(key) between 1 and 4096),
  constraint job_items_key_unique_in_job unique (job_id, key)
);
-- The last columns of these are there to be passed over without a look at the row.
create index job_items_queued on job_items (job_id, available_at, id, interruptions) where status = 'queued';
create index job_items_interrupted on job_items (job_id, id, interruptions, available_at)
  where status = 'queued' and interruptions > 0;
create index job_items_interrupted_later on job_items (available_at)
  where status = 'queued' and interruptions > 0 and available_at > 0;
create index job_items_running on job_items (job_id) where status = 'running';
create index job_items_waiting on job_items (deadline_at) where status = 'waiting';
create index job_items_polled on job_items (poll_at) where status = 'waiting' and poll_at is not null;
create index job_items_failed on job_items (job_id) where status = 'failed';
create index job_items_external on job_items (external_id) where external_id is not null;

create table results (
  item_id     integer primary key references job_items (id) on delete cascade,
  attempt     integer not null,
  task        text    not null,
  key         text    not null,
  period      text,                                     -- the period that a unique task claims, e.g. a day
  status      text    not null default 'completed',
  source      text    not null default 'handler',
  value       text,                                     -- JSON; null once pruned
  created_at  integer not null,
  pruned_at   integer,
  constraint results_status_known check (status = 'completed' or status = 'failed'),
  constraint results_source_known check (source = 'handler' or source = 'outside' or source = 'verify'),
  constraint results_value_or_pruned check ((value is null) = (pruned_at is not null))
);
create index results_of_key on results (task, key, item_id);
create unique index results_one_for_period on results (task, key, period) where period is not null;

-- The large companion of a result: apart, so that no list ever reads it.
create table result_data (
  item_id  integer primary key references job_items (id) on delete cascade,
  attempt  integer not null,
  data     blob    not null                             -- zlib
);

-- What an attempt logged: the last 64 KiB.
create table item_output (
  item_id    integer primary key references job_items (id) on delete cascade,
  attempt    integer not null,
  text       text    not null,
  truncated  integer not null default 0
);

-- What a command printed, as it came: the last 64 KiB of both streams together. Written anew by each attempt, so that the
-- ids are in the order in which they ended.
create table command_output (
  id         integer primary key autoincrement,
  item_id    integer not null references job_items (id) on delete cascade,
  attempt    integer not null,
  stdout     blob    not null,
  stderr     blob    not null,
  truncated  integer not null default 0,
  constraint command_output_item_once unique (item_id)
);

create table job_events (
  id           integer primary key autoincrement,
  job_id       integer not null references jobs (id) on delete cascade,
  item_id      integer,
  name         text    not null,
  from_status  text,
  to_status    text,
  at           integer not null,
  actor        text    not null,
  attempt      integer,
  external_id  text,
  message      text,
  count        integer                                  -- of a bulk move: how many items
);
create index job_events_of_job on job_events (job_id);
create index job_events_of_item on job_events (item_id) where item_id is not null;
create index job_events_external on job_events (external_id) where external_id is not null;

create table daemons (
  id                  integer primary key autoincrement,
  host                text    not null,
  boot                text    not null,
  pid                 integer not null,
  process_started_at  integer not null,
  started_at          integer not null,
  heartbeat_at        integer not null,
  heartbeats          integer not null default 0,
  stopped_at          integer,
  state               text    not null default '{}',    -- JSON: degraded and why, abandoned threads
  tasks               text    not null default '[]',    -- JSON: the names that it can run
  version             text    not null
);

-- What the maintenance ran, and what a client asks the daemon to run. A row without times is kept by what has to go on
-- where it was killed.
create table passes (
  name          text    primary key not null,
  requested_at  integer,
  options       text,                                   -- JSON: what the request says beside the name
  started_at    integer,
  finished_at   integer,
  report        text                                    -- JSON
);

create table schedules (
  name           text    primary key not null,
  task           text    not null,
  spec           text    not null,                      -- "every 10m", or cron text
  zone           text    not null,
  catch_up       text    not null default 'once',
  items          text,                                  -- JSON: payloads by key; null: one item without a payload
  params         text    not null default 'null',       -- JSON
  created_at     integer not null default 0,            -- where the slots of "every" are counted from
  last_fired_at  integer,                               -- the slot that was fired last
  next_at        integer,                               -- the next slot
  skipped_at     integer,                               -- the slot that was left out last, and why
  skipped_why    text,
  last_job_id    integer references jobs (id) on delete set null,
  paused_at      integer,
  constraint schedules_catch_up_known check (catch_up in ('once', 'skip'))
);
create index schedules_last_job on schedules (last_job_id) where last_job_id is not null;

create table watchlist (
  task         text    not null,
  key          text    not null,
  last_job_id  integer references jobs (id) on delete set null,
  last_status  text,
  last_run_at  integer,
  primary key (task, key)
);
create index watchlist_last_job on watchlist (last_job_id) where last_job_id is not null;

create table job_dependencies (
  job_id        integer not null references jobs (id) on delete cascade,
  after_id      integer not null references jobs (id) on delete restrict,
  on_status     text    not null default 'completed',
  cancelled_at  integer,                                -- the child fell with this parent
  primary key (job_id, after_id),
  constraint job_dependencies_on_known check (on_status in ('completed', 'ended')),
  constraint job_dependencies_not_itself check (job_id <> after_id)
);
create index job_dependencies_after on job_dependencies (after_id, job_id);
