"""Each row of docs/faults.md has tests that cause its faults and see them happen."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs/faults.md"
LATER = "(comes with the web)"

ROWS = {
    "SIGKILL at random, and again during recovery": [
        "test_a_job_that_is_killed_twenty_times_completes_every_item_once",
        "test_the_next_one_goes_on_at_once_after_a_sigkill",
        "test_recovering_twice_finds_nothing_the_second_time",
    ],
    "crash before and after every statement of every operation": [
        "test_killed_at_any_boundary_nothing_is_lost_done_twice_or_half_done",
        "test_killed_at_any_boundary_nothing_is_lost_done_twice_or_half_done",
        "test_killed_anywhere_it_migrates_from_where_it_was",
        "test_killed_at_any_step_the_old_or_the_new_file_is_there_and_the_same_again_goes_on",
        "test_killed_around_the_commit_the_slot_has_its_one_job",
    ],
    "two rivals at once: sweep/complete, cancel/complete, claim/claim, complete/complete": [
        "test_a_pass_and_a_settlement_meet",
        "test_a_cancel_at_once_with_a_completion_undoes_nothing",
        "test_of_a_cancel_and_a_completion_the_first_decides_and_the_job_ends_once",
        "test_two_who_claim_at_once_never_get_the_same_item",
        "test_of_two_equal_answers_at_once_one_counts_and_the_other_is_replayed",
        "test_of_a_completion_and_a_failure_at_once_the_first_counts_and_the_other_is_told",
        "test_of_two_who_deliver_at_once_one_is_told_that_it_was_known",
    ],
    "SIGTERM with items running": [
        "test_sigterm_finishes_what_runs_keeps_the_queue_and_leaves_with_0",
        "test_what_does_not_end_in_time_is_queued_again_with_an_event",
        "test_a_second_signal_does_not_wait_for_what_runs",
    ],
    "SIGSTOP for longer than the grace, then SIGCONT; suspend (clock +8 h)": [
        "test_a_stopped_process_keeps_its_lock_and_goes_on_when_it_is_continued",
        "test_a_process_that_was_stopped_for_a_night_touches_nothing",
        "test_a_suspend_of_a_night_touches_nothing",
        "test_a_suspend_and_a_clock_that_is_put_forward_make_no_orphan_of_what_nobody_knows_of",
        "test_what_the_live_daemon_does_not_know_is_an_orphan_after_the_grace_alone",
        "test_what_the_live_daemon_knows_is_never_touched_however_long_it_takes",
        "test_a_stored_result_decides_before_anything_else",
        "test_what_nobody_knows_of_is_an_orphan_after_the_grace_by_a_clock_that_runs",
    ],
    "clock ±2 h, to 1970, daylight saving both ways": [
        "test_a_clock_that_is_set_touches_nothing",
        "test_a_clock_that_is_put_back_makes_no_orphan_and_no_negative_age",
        "test_no_age_is_negative_when_the_clock_was_set_back",
        "test_a_clock_that_starts_in_1970_and_is_put_right_fires_nothing_again",
        "test_a_clock_that_goes_back_silences_no_beat",
        "test_a_clock_that_jumps_ahead_rings_once",
        "test_a_clock_that_was_put_back_starves_no_pass",
        "test_in_a_year_of_nights_asleep_each_local_day_has_its_one_firing",
        "test_awake_through_an_odd_night_it_fires_at_its_slot",
        "test_in_the_nights_in_which_the_clocks_change_no_beat_is_silent_or_doubled",
        "test_a_day_is_the_local_one_on_both_sides_of_each_midnight",
    ],
    "two daemons on one file, also through a symlink or a relative path; a stale pid": [
        "test_a_second_daemon_names_the_first_and_leaves_with_7",
        "test_a_second_claim_is_refused_within_a_second_and_names_the_first",
        "test_one_of_many_that_start_at_once_wins",
        "test_a_second_daemon_is_refused_under_every_name_of_the_file",
        "test_a_second_daemon_on_the_same_file_is_refused_by_name_also_through_another_path",
        "test_what_is_written_in_the_file_is_never_believed",
        "test_a_reused_pid_fools_nobody",
    ],
    "a forked child of a handler outlives its SIGKILLed daemon": [
        "test_a_forked_child_that_outlives_its_daemon_leaves_the_lock_free",
        "test_a_forked_child_does_not_hold_the_lock_of_its_killed_daemon",
        "test_where_a_child_escaped_the_hook_the_refusal_names_the_child_not_the_dead",
    ],
    "one outcome that cannot be stored among 500": [
        "test_one_bad_outcome_among_500_fails_with_the_reason_and_the_others_commit_with_it",
        "test_a_result_that_cannot_be_stored_fails_its_item_with_the_reason_and_no_other",
        "test_what_cannot_be_stored_even_as_a_failure_waits_beside_the_file_and_the_others_commit",
    ],
    "a handler that spins, hangs, leaks, calls `sys.exit`, `os._exit`, segfaults, forks, raises "
    "BaseException, raises in `__str__`": [
        "test_in_threads_each_item_is_settled_and_the_pool_stays_whole",
        "test_whatever_a_handler_raises_the_pool_stays_whole",
        "test_a_handler_that_forks_and_returns_in_its_child_is_one_daemon_still",
        "test_a_handler_that_hangs_fails_its_item_at_the_timeout_and_its_late_answer_is_refused_with_an_event",
        "test_an_item_that_kills_its_daemon_fails_at_the_sixth_lone_death_and_its_neighbours_complete",
        "test_a_worker_that_dies_fails_the_one_item_that_it_ran",
        "test_whatever_a_handler_raises_is_its_item_s_end_and_its_worker_goes_on",
        "test_a_worker_is_replaced_that_has_grown_too_large",
        "test_a_child_that_a_handler_forks_neither_speaks_for_it_nor_goes_on_as_a_worker",
        "test_a_handler_that_no_python_signal_reaches_is_killed",
        "test_a_process_that_spins_is_killed_at_its_time_and_the_next_one_runs",
    ],
    "the daemon dies while a child process runs": [
        "test_no_worker_outlives_a_daemon_that_is_killed_and_the_next_one_recovers",
        "test_a_handler_past_its_timeout_is_gone_with_all_that_it_started_within_a_second",
    ],
    "write lock held elsewhere 3, 8, 60 s": [
        "test_a_short_lock_of_another_program_is_invisible",
        "test_handlers_go_on_and_what_they_leave_is_kept_and_written",
        "test_while_the_lock_is_held_elsewhere_who_looks_looks_and_others_leave_with_5_and_one_line",
        "test_a_client_gives_up_after_about_ten_seconds_with_one_line",
    ],
    "disk full; file-size limit": [
        "test_a_daemon_on_a_full_disk_loses_nothing_and_goes_on_by_itself_when_there_is_room",
        "test_killed_on_a_full_disk_it_goes_on_when_there_is_room",
        "test_on_a_full_disk_verbs_that_look_look_and_others_leave_with_5_and_one_line",
        "test_a_full_disk_loses_nothing_and_it_goes_on_by_itself_when_there_is_room",
        "test_a_full_disk_is_transient_and_the_store_goes_on_when_there_is_room",
        "test_a_full_disk_leaves_no_half_copy",
    ],
    "read-only file or folder": [
        "test_who_may_not_write_the_file_or_its_folder_is_told_so",
        "test_a_read_only_file_or_folder_is_refused_by_name",
    ],
    "database truncated, bits flipped, garbage, zero bytes beside a `-wal`, of another application, of a "
    "newer schema": [
        "test_every_verb_refuses_it_on_one_line_and_changes_no_byte",
        "test_a_row_that_is_none_is_a_damaged_file_to_who_stumbles_over_it_and_to_doctor",
        "test_flipped_bits_surprise_no_verb",
        "test_a_damaged_page_is_unusable_or_broken_but_never_well",
        "test_a_truncated_file_is_refused",
        "test_garbage_is_refused",
        "test_a_log_without_its_file_is_left_alone",
        "test_the_database_of_another_application_is_refused",
        "test_a_newer_schema_is_refused",
    ],
    "database or `-wal` removed or replaced under the daemon": [
        "test_a_file_that_is_moved_away_and_restored_loses_nothing",
        "test_the_command_leaves_with_6_and_one_line",
        "test_the_rescue_file_of_a_replaced_database_settles_nothing_in_its_successor",
        "test_a_log_or_a_lock_that_goes_is_noticed_too",
        "test_the_files_are_looked_at_often_enough",
    ],
    "a reader that never ends": [
        "test_a_reader_keeps_no_writer_and_its_end_bounds_the_log_again",
        "test_a_pinned_log_is_tried_again_later_and_later_still",
        "test_what_a_live_daemon_says_of_itself_is_told_and_of_a_dead_one_it_is_past",
    ],
    "network file system": [
        "test_a_daemon_on_a_network_file_system_is_refused_with_the_reason",
        "test_it_runs_there_where_it_is_asked_to",
    ],
    "old schema, killed in the middle of a migration": [
        "test_killed_anywhere_it_migrates_from_where_it_was",
    ],
    "backup under load": [
        "test_a_backup_beside_a_busy_daemon_passes_doctor_and_goes_on_where_it_was_taken",
        "test_a_copy_beside_busy_writers_is_of_one_moment_and_holds_none_of_them_up",
    ],
    "a result that is NaN, a set, bytes, a lone surrogate, 2**80, circular, 200,000 deep, 2 MiB": [
        "test_what_no_parser_or_database_would_take_is_refused_with_one_sentence",
        "test_a_result_that_cannot_be_stored_fails_the_item_with_one_sentence",
        "test_what_is_not_json_fails_its_item_with_the_reason",
    ],
    "a key that is empty, over 4 KiB, has NUL, a lone surrogate, ESC, a newline, right-to-left, NFC beside NFD": [
        "test_a_key_that_cannot_be_stored_is_refused_with_its_position",
        "test_a_str_is_its_own_key_and_payload_exactly_as_it_is",
        "test_every_verb_escapes_what_it_shows",
    ],
    "the same key twice in one submission": [
        "test_the_first_twenty_duplicates_are_named_in_their_order",
        "test_duplicates_are_skipped_with_a_count_and_the_first_is_kept",
        "test_duplicates_are_refused_or_skipped",
    ],
    "1,000,000 items from a generator": [
        "test_a_generator_of_any_length_takes_no_memory_neither_new_nor_again",
        "test_a_generator_is_read_in_constant_memory",
        "test_a_killed_submitter_leaves_a_job_of_which_nothing_runs_and_that_can_be_removed",
    ],
    "a payload changed under a known key on resume": [
        "test_a_changed_payload_is_said_and_nothing_is_written",
        "test_a_changed_param_is_said_and_nothing_is_written",
    ],
    "log, table and page injection from stored text": [
        "test_nothing_but_what_prints_and_our_own_signs_reaches_a_terminal",
        "test_every_verb_escapes_what_it_shows",
        "test_tsv_fields_can_be_read_back",
        "test_a_hook_that_raises_puts_no_traceback_and_no_control_byte_on_the_terminal",
    ],
    "a hostile database file": [
        "test_a_daemon_leaves_what_only_the_file_names_alone",
        "test_no_verb_imports_what_a_row_names",
    ],
    "closed pipe, non-UTF-8 argument, COLUMNS=1, no terminal": [
        "test_a_closed_pipe_is_no_error",
        "test_a_run_whose_reader_goes_away_still_ends",
        "test_a_name_that_is_not_utf_8_reaches_the_command_and_comes_back_on_its_streams",
        "test_no_width_is_a_traceback",
        "test_a_stream_that_takes_nothing_is_no_reason_not_to_run",
    ],
    "eight processes that write beside a draining daemon": [
        "test_of_four_writers_beside_a_draining_daemon_nobody_sees_a_lock_and_nobody_but_it_checkpoints",
        "test_a_busy_dispatcher_leaves_the_lock_alone_for_a_moment",
    ],
    "the WAL-reset race of SQLite before 3.51.3": [
        "test_a_log_that_is_emptied_all_the_time_loses_nothing_of_who_writes",
        "test_only_the_daemon_checkpoints_and_only_truncating",
        "test_no_connection_of_any_thread_checkpoints_by_itself",
    ],
}


def rows():
    """Return the first cell of each row of each table."""
    cells = re.findall(r"^\| (.+?) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return [cell for cell in cells if cell != "fault"]


@functools.cache
def known():
    """Return the name of every test."""
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


@pytest.mark.parametrize("row", rows())
def test_each_row_has_tests_that_see_it_happen(row):
    if row.endswith(LATER):
        assert row not in ROWS
        return
    assert ROWS[row]
    assert [name for name in ROWS[row] if name not in known()] == []


def test_nothing_is_seen_to_that_is_no_row():
    assert set(ROWS) <= set(rows())
