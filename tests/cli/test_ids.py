"""How jobs and items are named."""

import pytest

from jobd.cli import ids
from jobd.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "job", "item"),
    [
        ("7", "7", None),
        ("=nightly", "=nightly", None),
        ("=a:b", "=a:b", None),
        ("@last", "@last", None),
        ("@failed", "@failed", None),
        ("7:a.txt", "7", "a.txt"),
        ("7:#123", "7", "#123"),
        ("7:a:b c", "7", "a:b c"),
        ("7:a\nb", "7", "a\nb"),
        ("@last:a", "@last", "a"),
    ],
)
def test_an_id_names_a_job_or_an_item(typed, job, item):
    assert ids.parse(typed) == (job, item)


@pytest.mark.parametrize("typed", ["", "=", "x", "-1", "7.5", "@first", "\uff17", "7:", ":a", "7 ", "@last "])
def test_anything_else_is_refused_with_what_an_id_is(typed):
    with pytest.raises(UsageError) as caught:
        ids.parse(typed)
    assert "@last" in (caught.value.hint or "")


def test_a_task_is_not_taken_for_a_job():
    assert ids.is_job("7")
    assert ids.is_job("=key")
    assert ids.is_job("@last")
    assert not ids.is_job("checksum")
    assert not ids.is_job("7zip")
