"""A recorded run whose log is cut off after each frame, torn, zeroed, spoilt or followed by an old frame.

scripts/soak does it to a longer run, and cuts the power of a disk that keeps what it likes of what was not synced.
"""

# And after each commit.
EVERY = 4


def test_a_log_that_ends_after_any_frame_opens_recovers_and_holds_whole_transactions(warm, tmp_path):
    seen = warm.prefixes(tmp_path / "run", every=EVERY)
    assert seen.wrong == []
    assert seen.commits >= 40
    assert seen.frames > 2 * seen.commits
    assert seen.files > 2 * seen.frames / EVERY
