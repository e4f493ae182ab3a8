from __future__ import annotations

import pytest

from jobd.errors import StoreBusy
from jobd.store.duplicates import Names


def test_the_first_keeps_its_key_and_the_next_are_numbered():
    with Names() as names:
        assert [names.give(key) for key in ("a", "b", "a", "a", "b")] == ["a", "b", "a#2", "a#3", "b#2"]


def test_a_number_that_an_item_has_by_name_is_passed_over():
    with Names() as names:
        assert [names.give(key) for key in ("a#2", "a", "a", "a#2", "a")] == ["a#2", "a", "a#3", "a#2#2", "a#4"]


def test_many_of_one_kind_cost_no_more_than_few():
    with Names() as names:
        given = [names.give("x") for _ in range(5000)]
    assert len(set(given)) == 5000
    assert given[-1] == "x#5000"


def test_a_full_disk_is_told_with_what_to_do():
    with Names() as names:
        names._connection.execute("pragma max_page_count=10")
        with pytest.raises(StoreBusy, match=r"temporary files \(TMPDIR\): disk full") as full:
            [names.give(f"a key that takes some room {number}") for number in range(5000)]
    assert "TMPDIR" in full.value.hint
