"""What jobd is put through by clocks, suspends, orphans and rivals, and the tests that see each of them happen."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

ROWS = {
    "SIGKILL at random, and again during recovery": [
        "faults/test_kills.py::test_a_job_that_is_killed_twenty_times_completes_every_item_once",
        "engine/test_daemon.py::test_the_next_one_goes_on_at_once_after_a_sigkill",
        "maintenance/test_recover.py::test_recovering_twice_finds_nothing_the_second_time",
    ],
    "crash before and after every statement of every operation": [
        "faults/test_boundaries.py::test_killed_at_any_boundary_nothing_is_lost_done_twice_or_half_done",
    ],
    "a power cut, as far as the log is concerned": [
        "faults/test_prefixes.py::test_a_log_that_ends_after_any_frame_opens_recovers_and_holds_whole_transactions",
    ],
    "rivals: sweep and complete": ["faults/test_pairs.py::test_a_pass_and_a_settlement_meet"],
    "rivals: cancel and complete": [
        "faults/test_rivals.py::test_a_cancel_at_once_with_a_completion_undoes_nothing",
    ],
    "rivals: claim and claim": ["store/test_claim.py::test_two_who_claim_at_once_never_get_the_same_item"],
    "rivals: complete and complete": [
        "faults/test_rivals.py::test_of_two_equal_answers_at_once_one_counts_and_the_other_is_replayed",
        "faults/test_rivals.py::test_of_a_completion_and_a_failure_at_once_the_first_counts_and_the_other_is_told",
        "store/test_deliver.py::test_of_two_who_deliver_at_once_one_is_told_that_it_was_known",
    ],
    "SIGSTOP for longer than the grace, then SIGCONT": [
        "engine/test_daemon.py::test_a_stopped_process_keeps_its_lock_and_goes_on_when_it_is_continued",
    ],
    "suspend": [
        "engine/test_standstill.py::test_a_suspend_of_a_night_touches_nothing",
        "faults/test_rivals.py::test_a_suspend_and_a_clock_that_is_put_forward_make_no_orphan_of_what_nobody_knows_of",
    ],
    "clock two hours ahead and back, and to 1970": [
        "engine/test_standstill.py::test_a_clock_that_is_set_touches_nothing",
        "faults/test_rivals.py::test_a_clock_that_is_put_back_makes_no_orphan_and_no_negative_age",
        "engine/test_scheduler.py::test_a_clock_that_goes_back_silences_no_beat",
        "engine/test_inline.py::test_a_clock_that_was_put_back_starves_no_pass",
    ],
    # The scheduler's library lives in naive local time: an hour of autumn is a clock that goes back by an hour.
    "daylight saving both ways": [
        "engine/test_scheduler.py::test_a_clock_that_goes_back_silences_no_beat",
        "engine/test_scheduler.py::test_a_clock_that_jumps_ahead_rings_once",
        "test_zones.py::test_a_day_is_the_local_one_on_both_sides_of_each_midnight",
    ],
    "two daemons on one file, also through a symlink or a relative path": [
        "engine/test_lock.py::test_a_second_daemon_is_refused_under_every_name_of_the_file",
        "faults/test_guards.py::test_a_second_daemon_on_the_same_file_is_refused_by_name_also_through_another_path",
        "engine/test_lock.py::test_one_of_many_that_start_at_once_wins",
    ],
    "a stale pid, and one that is used again": [
        "engine/test_lock.py::test_what_is_written_in_the_file_is_never_believed",
        "engine/test_lock.py::test_a_reused_pid_fools_nobody",
    ],
    "a forked child of a handler outlives its killed daemon": [
        "engine/test_lock.py::test_a_forked_child_that_outlives_its_daemon_leaves_the_lock_free",
        "faults/test_guards.py::test_a_forked_child_does_not_hold_the_lock_of_its_killed_daemon",
    ],
    "an orphan with and without proof": [
        "maintenance/test_recover.py::test_what_the_live_daemon_does_not_know_is_an_orphan_after_the_grace_alone",
        "maintenance/test_recover.py::test_what_the_live_daemon_knows_is_never_touched_however_long_it_takes",
        "maintenance/test_recover.py::test_a_stored_result_decides_before_anything_else",
        "faults/test_rivals.py::test_what_nobody_knows_of_is_an_orphan_after_the_grace_by_a_clock_that_runs",
    ],
}


@functools.cache
def names(file):
    found = ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_tests_that_see_it_happen(row):
    tests = [test.split("::") for test in ROWS[row]]
    assert tests
    assert [name for file, name in tests if name not in names(file)] == []
